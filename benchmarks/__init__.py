"""Scripts that print the figures in `benchmarks/README.md`."""
