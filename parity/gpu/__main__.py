"""`python -m ltxrt.parity.gpu`."""

from ltxrt.parity.gpu import main

if __name__ == "__main__":
    main()
