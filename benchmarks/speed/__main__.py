"""Runs all speed benchmarks."""

from benchmarks.speed import ask_tell, guided, hybrid, loop_overhead, online

for benchmark in (ask_tell, loop_overhead, online, guided, hybrid):
    benchmark.main()
    print()
