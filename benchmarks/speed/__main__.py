"""Runs all speed benchmarks."""

from benchmarks.speed import ask_tell, loop_overhead

ask_tell.main()
print()
loop_overhead.main()
