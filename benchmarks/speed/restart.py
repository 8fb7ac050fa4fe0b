"""Measures the cost of restarts: ask + tell of `ipop` over `cma_es` against bare `cma_es`, and the compile time.

Fitness is a quadratic with condition number 1e6. It neither converges nor restarts within the timed generations.

Run: python -m benchmarks.speed.restart
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from benchmarks.timing import time_paired

NUM_GENERATIONS = 200
SIZES = ((10, 10), (100, 17))  # dimensions, population size
LADDERS = (0, 3, 6)  # doublings


@functools.partial(jax.jit, static_argnames="batched")
def generations(strategy, state, key, *, batched: bool = False):
    def train(state, key):
        def generation(state, key):
            population, state = strategy.ask(key, state)
            curvature = 10 ** jnp.linspace(0, 6, population.shape[1])
            return strategy.tell(state, population, jnp.square(population) @ curvature), None

        return jax.lax.scan(generation, state, jax.random.split(key, NUM_GENERATIONS))[0]

    return (jax.vmap(train) if batched else train)(state, key)


def program(strategy, num_dims: int, num_seeds: int):
    keys = jax.random.split(jax.random.key(1), num_seeds)
    states = jax.vmap(lambda key: strategy.init(key, jnp.ones(num_dims)))(keys)
    if num_seeds == 1:
        return functools.partial(generations, strategy, jax.tree.map(lambda x: x[0], states), keys[0])
    return functools.partial(generations, strategy, states, keys, batched=True)


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}")
    print("| dimensions | seeds | doublings | ipop, us/generation | cma_es, us/generation | ratio | to compile, s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for num_dims, size in SIZES:
        bare = zoo.make_strategy("cma_es", population_size=size, sigma=1.0)
        for num_seeds in (1, 5):
            for max_doublings in LADDERS:
                ipop = zoo.make_strategy("ipop", base=bare, population_size=size, max_doublings=max_doublings)
                ours = program(ipop, num_dims, num_seeds)
                clock = time.perf_counter()
                generations.lower(*ours.args, **ours.keywords).compile()
                seconds = time.perf_counter() - clock
                t = time_paired(ours, program(bare, num_dims, num_seeds), rounds=9)
                first, second = (1e6 * np.array([t.first, t.second]) / NUM_GENERATIONS).round()
                print(
                    f"| {num_dims} | {num_seeds} | {max_doublings} | {first:.0f} | {second:.0f} "
                    f"| {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) | {seconds:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
