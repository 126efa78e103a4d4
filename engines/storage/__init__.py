"""Files of a bundle: atomic writes, locks and hashes."""
