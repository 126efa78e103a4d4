"""The parity report as one HTML page."""
