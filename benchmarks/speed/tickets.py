"""Times a ladder of lottery tickets: 20 rounds of 300 generations of 64 on digits, one criterion, by snes.

Compares it with the same number of generations of the bare strategy, and three seeds in one program with one seed.
Programs are compiled before the clock starts.

Run: python -m benchmarks.speed.tickets
"""

import functools
import time

import jax
import numpy as np

import zoo
from benchmarks.timing import time_paired
from zoo.loop import compiled

NUM_ROUNDS, GENERATIONS, POPULATION_SIZE = 20, 300, 64


def train(strategy, problem, seeds: int, num_generations: int):
    """Runs the compiled loop from the start for `num_generations`, with all seeds in one program."""
    batched = seeds > 1
    keys = jax.random.split(jax.random.key(0), seeds) if batched else jax.random.key(0)
    run_keys, carry = compiled.start(strategy, problem, keys, None, batched=batched)
    unlimited = np.iinfo(np.int32).max
    values = (num_generations, unlimited, unlimited)
    limits = compiled.Limits(*(np.full(np.shape(keys), value, np.int32) for value in values))
    for _ in range(0, num_generations, GENERATIONS):
        carry, _ = compiled.advance(strategy, problem, carry, run_keys.generations, limits, batched=batched)
    return carry.state


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}")
    problem = zoo.make_problem("supervised/digits", hidden=(32,))
    bare = zoo.make_strategy("snes", problem=problem, population_size=POPULATION_SIZE)
    lottery = zoo.make_strategy("lottery", base=bare, generations_per_round=GENERATIONS)
    lottery = lottery.replace(population_size=POPULATION_SIZE)
    total = NUM_ROUNDS * GENERATIONS
    for seeds in (1, 3):
        jax.block_until_ready(train(lottery, problem, seeds, GENERATIONS))
        clock = time.perf_counter()
        state = jax.block_until_ready(train(lottery, problem, seeds, total))
        print(
            f"whole ladder, {seeds} seed(s): {time.perf_counter() - clock:.1f} s, {np.ravel(state.round)[0] + 1} rounds"
        )
    program = functools.partial(train, problem=problem, num_generations=GENERATIONS)
    print("| a round | first, s | second, s | ratio (quartiles) |")
    print("| --- | --- | --- | --- |")
    pairs = {
        "lottery beside snes": (
            functools.partial(program, lottery, seeds=1),
            functools.partial(program, bare, seeds=1),
        ),
        "3 seeds beside 1": (
            functools.partial(program, lottery, seeds=3),
            functools.partial(program, lottery, seeds=1),
        ),
        "3 seeds beside 1, snes alone": (
            functools.partial(program, bare, seeds=3),
            functools.partial(program, bare, seeds=1),
        ),
    }
    for name, (first, second) in pairs.items():
        t = time_paired(first, second, rounds=7)
        print(f"| {name} | {t.first:.2f} | {t.second:.2f} | {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
