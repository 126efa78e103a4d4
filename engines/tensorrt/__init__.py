"""TensorRT and TensorRT for RTX: building, caching and running engines."""
