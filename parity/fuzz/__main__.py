"""`python -m ltxrt.parity.fuzz`."""

from ltxrt.parity.fuzz import main

main()
