"""Settings of the exporter tests, made before onnxruntime is first imported."""

from __future__ import annotations

import os

# ONNX Runtime's telemetry starts a thread and a database, which disturb memory figures.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
