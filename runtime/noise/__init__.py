"""Random numbers equal to torch's, on the CPU and on CUDA, or from a file."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "file",
    cpu="Generator Noise TorchCpuGenerator bfloat16",
    cuda="GPUS TorchCudaGenerator",
)
