"""What a compressed model (`inspect_model`) or an exported one (`inspect_onnx`, `inspect_executorch`) is made of."""
