"""ONNX graphs of any model: tracing, weights, FP8, memory of activations."""
