"""The formats of an output: which codecs, qualities and depths a suffix has, how each is written and read."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    encoding="CODECS DEPTHS Encoding as_fraction suffix_of",
    reading="METADATA_BYTES read_metadata",
    sink="Frame Target opened",
)
