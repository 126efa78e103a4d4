"""TensorRT and TensorRT for RTX: building engines, keeping them, running them."""
