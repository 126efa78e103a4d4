"""`python -m ltxrt.parity.bench`: the benchmark as a command of its own."""

from ltxrt.parity.bench.cli import bench_command as main

if __name__ == "__main__":
    main()
