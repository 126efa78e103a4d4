"""ONNX graphs of any model: tracing, weights, FP8, memory of activations."""

__all__ = ["fp8", "layers", "memory", "trace", "weights"]
