"""Checks too long for the tests, run by hand as `python -m ltxrt.parity.proofs.NAME`."""
