"""Many runs: benchmarks, their statistics, figures and reports."""
