"""Compares ask + tell of the CMA and natural ES family under `lax.scan` with evosax 0.3.2 and pycma, in one process.

Both sides draw a population, compute a fitness that costs almost nothing (the first coordinate), and update. Against
pycma, every generation goes through the host on both sides, as in a user's own loop over a function that is not JAX.
One row runs the zoo under scan instead.

Run: python -m benchmarks.speed.distribution
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from benchmarks.speed.ask_tell import evosax_program, zoo_generations
from benchmarks.timing import time_paired

# Registry id, evosax's name, population size, dimensions, generations per call, rounds, target. A call of cma_es has
# only whole intervals between two decompositions.
ROWS = (
    ("cma_es", "CMA_ES", 24, 1_000, 21, 3, 0.25),
    ("cma_es", "CMA_ES", 64, 1_000, 9, 3, 0.5),
    ("cma_es", "CMA_ES", 17, 100, 200, 9, 0.9),
    ("sep_cma_es", "Sep_CMA_ES", 64, 100_000, 4, 11, 0.9),
    ("snes", "SNES", 64, 100_000, 4, 11, 0.9),
    ("pgpe", "PGPE", 64, 100_000, 4, 11, 0.9),
    ("xnes", "xNES", 64, 100, 100, 11, 0.9),
)


def beside_evosax() -> None:
    print("| strategy | size | zoo, ms/generation | evosax, ms/generation | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    for id, peer, size, num_dims, num_generations, rounds, target in ROWS:
        strategy = zoo.make_strategy(id, population_size=size)
        state = strategy.init(jax.random.key(0), jnp.zeros(num_dims))
        ours = functools.partial(zoo_generations, strategy, state, jax.random.key(1), num_generations=num_generations)
        theirs = evosax_program(peer, num_dims, num_generations, population_size=size)
        t = time_paired(ours, theirs, rounds=rounds)
        first, second = (1e3 * seconds / num_generations for seconds in (t.first, t.second))
        print(
            f"| {id} | {size} x {num_dims:,} | {first:.3f} | {second:.3f} "
            f"| {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) | {target:.2f} |",
            flush=True,
        )


def beside_pycma(num_dims: int = 40, num_generations: int = 200) -> None:
    import cma

    warnings.filterwarnings("ignore", module="cma")
    point = np.ones(num_dims)
    strategy = zoo.make_strategy("cma_es", sigma=0.5).for_solution(point)
    curvature = 10 ** np.linspace(0, 3, num_dims)

    def fitness(population) -> np.ndarray:
        return np.square(np.asarray(population)) @ curvature

    def ours(dtype):
        optimizer = zoo.Optimizer(strategy, point.astype(dtype), stop=None)
        for _ in range(num_generations):
            population = optimizer.ask()
            optimizer.tell(population, fitness(population))
        return optimizer.mean

    rows = (("`zoo.Optimizer`, double precision", np.float64), ("`zoo.Optimizer`, single precision", np.float32))
    programs = [(name, functools.partial(ours, dtype), 0.25) for name, dtype in rows]
    scanned = functools.partial(
        zoo_generations,
        strategy,
        strategy.init(jax.random.key(0), point),
        jax.random.key(1),
        num_generations=num_generations,
    )

    def theirs():
        es = cma.CMAEvolutionStrategy(point, 0.5, {"verbose": -9, "seed": 1, "popsize": strategy.population_size})
        for _ in range(num_generations):
            population = es.ask()
            es.tell(population, fitness(population).tolist())
        return es.mean

    print("\n| cma_es, n = 40 | zoo, ms/generation | pycma, ms/generation | ratio (quartiles) | target |")
    print("| --- | --- | --- | --- | --- |")
    for name, program, target in (*programs, ("under scan", scanned, 0.20)):
        t = time_paired(program, theirs, rounds=7)
        first, second = (1e3 * seconds / num_generations for seconds in (t.first, t.second))
        print(
            f"| {name} | {first:.3f} | {second:.3f} | {t.ratio:.2f} ({t.low:.2f} to {t.high:.2f}) | {target:.2f} |",
            flush=True,
        )


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}")
    beside_evosax()
    beside_pycma()


if __name__ == "__main__":
    main()
