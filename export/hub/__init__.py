"""Checkpoints from a model hub: names, what goes with what, downloads.

huggingface_hub is imported when it is used.
"""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "repository selection",
    locating="Located Wanted announced companions locate pick",
    reference="Reference cached_as parse",
)
