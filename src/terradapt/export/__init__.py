"""ONNX, INT8, parity and metadata."""
