"""Speed against peers and against limits; `python -m benchmarks.speed` runs all of it."""
