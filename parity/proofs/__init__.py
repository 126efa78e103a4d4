"""Long proofs, run by hand as `python -m ltxrt.parity.proofs.NAME`; not tests."""
