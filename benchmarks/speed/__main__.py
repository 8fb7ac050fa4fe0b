"""Runs all speed benchmarks."""

from benchmarks.speed import ask_tell, loop_overhead, online

ask_tell.main()
print()
loop_overhead.main()
print()
online.main()
