"""ONNX graphs of any model: tracing, weights, FP8, the memory of activations."""
