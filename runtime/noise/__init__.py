"""Random numbers equal to torch's, on the CPU and on CUDA, or from a file."""
