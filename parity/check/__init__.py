"""The parity check: every component, precision and backend of a bundle against torch."""
