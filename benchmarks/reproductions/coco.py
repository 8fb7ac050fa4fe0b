"""Compares cma_es with BIPOP restarts with pycma's on COCO's bbob suite (f1 to f24, instances 1 to 5, n = 5 and 10).

Both sides start at 0 with sigma 2 and restart within the budget of 2 000 n evaluations. A run ends when the final
target of its function, 1e-8, is reached. The tables count solved (function, instance, target) triples, with 51 targets
from 1e2 to 1e-8.

Run: python -m benchmarks.reproductions.coco [--folder exdata]
"""

import argparse
import functools
import pathlib
import warnings
from typing import Any

import cma
import cma.bbobbenchmarks
import cocoex
import jax
import numpy as np
import pandas as pd

import zoo

DIMENSIONS = (5, 10)
INSTANCES = "1-5"
BUDGET = 2_000  # evaluations per dimension
SIGMA = 2.0
TARGETS = 10 ** np.linspace(2, -8, 51)


class Recorder:
    """Evaluates a COCO problem and records when each target was first reached."""

    def __init__(self, problem: Any):
        self.problem = problem
        # COCO does not reveal the optimal value. pycma's copy of the suite has the same instances.
        self.optimum = cma.bbobbenchmarks.instantiate(problem.id_function, problem.id_instance)[1]
        self.steps = np.full(len(TARGETS), np.inf)
        self.best = np.inf
        self.count = 0

    def __call__(self, x: np.ndarray) -> float:
        """Returns the value at a point, and records the targets that it reaches."""
        value = self.problem(x)
        self.count += 1
        if value < self.best:
            self.best = value
            reached = value - self.optimum <= TARGETS
            self.steps[reached] = np.minimum(self.steps[reached], self.count)
        return value

    @property
    def is_done(self) -> bool:
        """Whether the final target is reached or the budget spent."""
        return bool(self.problem.final_target_hit) or self.count >= BUDGET * self.problem.dimension


@functools.cache
def programs(n: int) -> tuple[Any, Any]:
    """Returns two compiled programs for n dimensions: init and ask, and tell and ask."""
    strategy = zoo.make_strategy("bipop", base={"id": "cma_es", "sigma": SIGMA}).for_solution(np.zeros(n))

    @jax.jit
    def first(key):
        key_init, key = jax.random.split(key)
        return *strategy.ask(key, strategy.init(key_init, np.zeros(n))), key

    @jax.jit
    def following(state, population, fitness, key):
        key, key_ask = jax.random.split(key)
        return *strategy.ask(key_ask, strategy.tell(state, population, fitness)), key

    return first, following


def run_zoo(evaluate: Recorder, seed: int) -> None:
    first, following = programs(evaluate.problem.dimension)
    population, state, key = first(jax.random.key(seed))
    while not evaluate.is_done:
        fitness = np.array([evaluate(x) for x in np.asarray(population)])
        population, state, key = following(state, population, fitness, key)


def run_pycma(evaluate: Recorder, seed: int) -> None:
    n = evaluate.problem.dimension
    rng = np.random.default_rng(seed)
    starts = iter([np.zeros(n)])
    options = {"maxfevals": BUDGET * n, "ftarget": evaluate.optimum + TARGETS[-1], "verbose": -9}
    options |= {"seed": seed + 1, "verb_log": 0}
    # Each restart has its own start, as in Hansen 2009.
    cma.fmin2(evaluate, lambda: next(starts, rng.uniform(-4, 4, n)), SIGMA, options, restarts=9, bipop=True)


METHODS = {"zoo": run_zoo, "pycma": run_pycma}


def experiment(dimensions: tuple[int, ...]) -> pd.DataFrame:
    rows = []
    names = ",".join(map(str, dimensions))
    for method, run in METHODS.items():
        suite = cocoex.Suite("bbob", "", f"dimensions: {names} instance_indices: {INSTANCES}")
        for problem in suite:
            evaluate = Recorder(problem)
            run(evaluate, seed=problem.id_instance)
            for target, steps in zip(TARGETS, evaluate.steps, strict=True):
                rows.append(
                    {
                        "method": method,
                        "function": problem.id_function,
                        "n": problem.dimension,
                        "instance": problem.id_instance,
                        "target": target,
                        "steps": steps,
                        "spent": evaluate.count,
                    }
                )
            problem.free()
        print(f"{method} done", flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS)
    parser.add_argument("--folder", type=pathlib.Path, help="Folder to write the runtimes to, as CSV.")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="cma")
    with jax.enable_x64(True):
        frame = experiment(tuple(arguments.dimensions))
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        frame.to_csv(arguments.folder / "runtimes.csv", index=False)
    report(frame)


def report(frame: pd.DataFrame) -> None:
    """Prints the tables."""
    frame = frame.assign(solved=np.isfinite(frame.steps))
    print("\n| n | triples | zoo | pycma | ratio | target |\n| --- | --- | --- | --- | --- | --- |")
    for n, rows in frame.groupby("n"):
        solved = rows.groupby("method").solved.sum()
        total = len(rows) // len(METHODS)
        print(f"| {n} | {total:,} | {solved.zoo:,} | {solved.pycma:,} | {solved.zoo / solved.pycma:.3f} | 0.950 |")
    pairs = frame.groupby(["method", "n", "function", "target"]).solved.any().groupby(["n", "method"]).sum().unstack()
    print("\nPairs of function and target solved on at least one instance:\n")
    print(pairs.to_string())
    print("\nTargets solved by function (of 51 x 5):\n")
    print(frame.groupby(["function", "n", "method"]).solved.sum().unstack(["n", "method"]).to_string())


if __name__ == "__main__":
    main()
