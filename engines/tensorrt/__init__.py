"""TensorRT and TensorRT for RTX: building, caching and running engines."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "build cache inspect profiles session",
    cuda="CudaDevice DeviceBuffer",
)
