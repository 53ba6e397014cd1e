"""Exported models as files and as running sessions, without torch and without the onnx package."""
