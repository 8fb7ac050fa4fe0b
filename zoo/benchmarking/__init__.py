"""Many runs: benchmarks and their results."""
