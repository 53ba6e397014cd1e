"""Exported artifacts as files and as running sessions, without torch and without the onnx package.

The package imports nothing by itself: the benchmark's measured process loads single modules of it and must stay small.
"""
