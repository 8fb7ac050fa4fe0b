"""Runs all speed benchmarks."""

from benchmarks.speed import ask_tell, distribution, guided, hybrid, loop_overhead, online, scale, tickets

for benchmark in (ask_tell, distribution, loop_overhead, online, guided, hybrid, tickets, scale):
    benchmark.main()
    print()
