"""Files of a bundle: atomic writes, locks and hashes."""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "integrity locks system times",
    files="NotRegularError atomic_write inside make_folder open_regular read_ahead read_small "
    "removed_on_failure sha256 temporary_folder_for temporary_for temporary_name",
)
