"""Compares cma_es with pycma: evaluations to 1e-8, and success rates of BIPOP restarts on Rastrigin.

Both sides start at the same point with the same step size and population size, in double precision. Both sides count
evaluations, in whole generations, until the best member so far reaches the target.

Run: python -m benchmarks.reproductions.cma_pycma [--bipop]
"""

import argparse
import functools
import warnings
from collections.abc import Callable

import cma
import jax
import jax.numpy as jnp
import numpy as np

import zoo

SEEDS = 11
TARGET = 1e-8
DIMENSIONS = (5, 10, 20)
SIGMA = 0.5


def rotation(n: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0]


def ellipsoid(x, xp):
    return xp.sum(10 ** (6 * xp.arange(x.shape[-1]) / (x.shape[-1] - 1)) * x**2)


def rosenbrock(x, xp):
    return xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def different_powers(x, xp):
    return xp.sum(xp.abs(x) ** (2 + 4 * xp.arange(x.shape[-1]) / (x.shape[-1] - 1)))


def rastrigin(x, xp):
    return 10 * xp.sum(1 - xp.cos(2 * xp.pi * x)) + xp.sum(x**2)


# By name: a function of a point and of jax.numpy or numpy, and the value of all coordinates of the starting point.
FUNCTIONS: dict[str, tuple[Callable, float]] = {
    "sphere": (lambda x, xp: xp.sum(x**2), 1.0),
    "ellipsoid": (ellipsoid, 1.0),
    "rotated ellipsoid": (lambda x, xp: ellipsoid(xp.asarray(rotation(x.shape[-1])) @ x, xp), 1.0),
    "Rosenbrock": (rosenbrock, 0.0),
    "different powers": (different_powers, 1.0),
}


def until_target(strategy, fn, start, key, budget: int):
    """Returns the number of evaluations to the target, negative if the budget did not suffice."""

    def is_on(loop):
        _, best, generation = loop
        return (best > TARGET) & (generation * strategy.population_size < budget)

    def body(loop):
        state, best, generation = loop
        population, state = strategy.ask(jax.random.fold_in(key, generation), state)
        fitness = zoo.map_members(lambda x: fn(x, jnp), population)
        return strategy.tell(state, population, fitness), jnp.minimum(best, jnp.min(fitness)), generation + 1

    loop = (strategy.init(key, start), jnp.asarray(jnp.inf), jnp.asarray(0))
    _, best, generation = jax.lax.while_loop(is_on, body, loop)
    return jnp.where(best <= TARGET, 1, -1) * generation * strategy.population_size


@functools.partial(jax.jit, static_argnames="fn")
def evaluations(strategy, fn, start, keys):
    return jax.vmap(lambda key: until_target(strategy, fn, start, key, 10_000 * len(start)))(keys)


def pycma_evaluations(fn, start, seed: int) -> int:
    es = cma.CMAEvolutionStrategy(start, SIGMA, {"verbose": -9, "seed": seed + 1})
    while es.best.f > TARGET and es.countevals < 10_000 * len(start):
        population = es.ask()
        es.tell(population, [fn(x, np) for x in population])
    return es.countevals if es.best.f <= TARGET else -es.countevals


def compare_local() -> None:
    print(f"Evaluations to {TARGET:g}, median over {SEEDS} seeds (quartiles):\n")
    print("| function | n | zoo | pycma | ratio of the medians | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (fn, start) in FUNCTIONS.items():
        for n in DIMENSIONS:
            point = np.full(n, start)
            strategy = zoo.make_strategy("cma_es", sigma=SIGMA).for_solution(point)
            ours = np.asarray(evaluations(strategy, fn, point, jax.random.split(jax.random.key(1), SEEDS)))
            theirs = [pycma_evaluations(fn, point, seed) for seed in range(SEEDS)]
            print(
                f"| {name} | {n} | {_quartiles(ours)} | {_quartiles(np.array(theirs))} "
                f"| {np.median(ours) / np.median(theirs):.2f} | 0.85 to 1.15 |",
                flush=True,
            )


BIPOP_SEEDS = 30
BIPOP_DIMENSIONS = 10
BIPOP_BUDGET = 200_000


@functools.partial(jax.jit, static_argnames="fn")
def bipop_evaluations(strategy, fn, keys):
    def run(key):
        key_start, key = jax.random.split(key)
        start = jax.random.uniform(key_start, (BIPOP_DIMENSIONS,), minval=-5.0, maxval=5.0)
        return until_target(strategy, fn, start, key, BIPOP_BUDGET)

    return jax.lax.map(run, keys)


def pycma_bipop_evaluations(fn, seed: int) -> int:
    rng = np.random.default_rng(seed)
    options = {"maxfevals": BIPOP_BUDGET, "ftarget": TARGET, "verbose": -9, "seed": seed + 1, "verb_log": 0}
    starts = functools.partial(rng.uniform, -5, 5, BIPOP_DIMENSIONS)
    _, es = cma.fmin2(lambda x: fn(x, np), starts, 2.0, options, restarts=12, bipop=True)
    return es.countevals if es.best.f <= TARGET else -es.countevals  # of all restarts together


def compare_bipop() -> None:
    print(f"BIPOP on Rastrigin, n = {BIPOP_DIMENSIONS}, {BIPOP_SEEDS} seeds, at most {BIPOP_BUDGET:,} evaluations:\n")
    print("| | solved | evaluations of those, median | expected running time |")
    print("| --- | --- | --- | --- |")
    base = {"id": "cma_es", "sigma": 2.0}
    strategy = zoo.make_strategy("bipop", base=base, spread=1.5).for_solution(np.zeros(BIPOP_DIMENSIONS))
    ours = bipop_evaluations(strategy, rastrigin, jax.random.split(jax.random.key(2), BIPOP_SEEDS))
    theirs = [pycma_bipop_evaluations(rastrigin, seed) for seed in range(BIPOP_SEEDS)]
    for name, counts in (("zoo", np.asarray(ours)), ("pycma", np.array(theirs))):
        solved = counts > 0
        ert = np.abs(counts).sum() / solved.sum()
        print(
            f"| {name} | {solved.sum()} of {len(counts)} | {np.median(counts[solved]):,.0f} | {ert:,.0f} |", flush=True
        )


def _quartiles(counts: np.ndarray) -> str:
    failed = f", {np.sum(counts < 0)} failed" if np.any(counts < 0) else ""
    low, middle, high = np.percentile(counts[counts > 0], (25, 50, 75))
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f}{failed})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bipop", action="store_true", help="Compare success rates of BIPOP on Rastrigin instead.")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="cma")
    with jax.enable_x64(True):
        if arguments.bipop:
            compare_bipop()
        else:
            compare_local()


if __name__ == "__main__":
    main()
