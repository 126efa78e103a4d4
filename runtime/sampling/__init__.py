"""The sampling loop: schedules, guidance, conditioning, rotary tables."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "conditioning denoise guidance rope schedule",
    latents="Compression LatentShape VideoShape normalise pack unnormalise unpack NO_MARGINS Margins",
    numerics="ADVICE check_finite",
)
