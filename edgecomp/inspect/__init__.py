"""What a compressed model or an exported artifact is made of: `model.inspect_model`, `artifact.inspect_onnx`."""
