"""Compares a sweep of 32 settings x 5 seeds of open_es with the same 160 runs one after the other.

Three ratios: the time to compile the sweep beside one run; the time to run all settings beside the same runs one after
the other, compiled already; and a process that does all of this beside 160 new processes, one per run.

Run: python -m benchmarks.speed.sweep
"""

import json
import subprocess
import sys
import time

import jax
import numpy as np

import zoo
from zoo.tuning.search import TUNING

SPACE = {"sigma": zoo.space.log_uniform(0.01, 1), "learning_rate": zoo.space.log_uniform(0.001, 0.3)}
NUM_SETTINGS, NUM_SEEDS = 32, 5
CASES = {"supervised/digits": 200, "rl/CartPole-v1": 50, "blackbox/rosenbrock": 500}  # generations
STRATEGY = {"id": "open_es", "population_size": 32}


def sweep(problem: str, generations: int) -> zoo.Sweep:
    return zoo.sweep(
        STRATEGY,
        problem,
        SPACE,
        num_settings=NUM_SETTINGS,
        num_seeds=NUM_SEEDS,
        num_generations=generations,
        progress=False,
    )


def run(problem: str, generations: int, values: dict[str, float], key: int | jax.Array) -> zoo.RunResult:
    return zoo.run({**STRATEGY, **values}, problem, key, num_generations=generations, num_scores=1)


def in_process(what: str, problem: str) -> None:
    """What a new process does, whose times it prints: one run, or the sweep and then each of its settings alone."""
    first = run(problem, CASES[problem], {}, 0)
    times = {"one": first.compile_seconds}
    if what == "sweep":
        jax.clear_caches()
        found = sweep(problem, CASES[problem])
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), TUNING), 0)  # the first tuning seed
        run(problem, CASES[problem], found.settings[0], key)
        singles = [run(problem, CASES[problem], values, key).seconds for values in found.settings]
        times["compile"] = float(found.runs.compile_seconds.sum())
        # How long a run takes depends on its setting and seed if episodes end early: both sides are of the same runs.
        times["seconds"] = NUM_SEEDS * float(found.runs.seconds[found.runs.seed == 0].sum())
        times["singles"] = NUM_SEEDS * float(np.sum(singles))
    print(json.dumps(times))


def timed(what: str, problem: str) -> dict[str, float]:
    """Returns the times of a new process, without programs compiled by others."""
    clock = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.speed.sweep", what, problem]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(out.stdout.splitlines()[-1]), "wall": time.perf_counter() - clock}


def main() -> None:
    print(f"device: {jax.devices()[0].device_kind}; jax {jax.__version__}")
    print(f"{NUM_SETTINGS} settings x {NUM_SEEDS} seeds of open_es, population {STRATEGY['population_size']}")
    print(
        "| problem, generations | compile, s | of one run | ratio | run, s | 160 x one run | ratio | beside processes |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for problem, generations in CASES.items():
        sweep_, single = (timed(what, problem) for what in ("sweep", "run"))
        print(
            f"| {problem}, {generations} | {sweep_['compile']:.1f} | {single['one']:.1f} "
            f"| {sweep_['compile'] / single['one']:.2f} | {sweep_['seconds']:.1f} | {sweep_['singles']:.1f} "
            f"| {sweep_['seconds'] / sweep_['singles']:.2f} "
            f"| {sweep_['wall'] / (NUM_SETTINGS * NUM_SEEDS * single['wall']):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        in_process(*sys.argv[1:3])
    else:
        main()
