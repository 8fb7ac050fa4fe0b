"""Runs all speed benchmarks."""

from benchmarks.speed import (
    ask_tell,
    distribution,
    first_result,
    guided,
    hybrid,
    inner_training,
    loop_overhead,
    online,
    scale,
    sweep,
    tickets,
)

for benchmark in (
    first_result,
    inner_training,
    ask_tell,
    distribution,
    loop_overhead,
    online,
    guided,
    hybrid,
    tickets,
    sweep,
    scale,
):
    benchmark.main()
    print()
