"""Files of a bundle: written whole or not at all, locked, and hashed."""
