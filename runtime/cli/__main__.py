"""`python -m ltxrt.runtime.cli`."""

from ltxrt.runtime.cli.command import main

if __name__ == "__main__":
    main()
