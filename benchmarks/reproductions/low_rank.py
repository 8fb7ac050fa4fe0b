"""Compares low-rank perturbations with dense ones at equal generations, on digits and CartPole with five seeds.

Also compares seeded perturbations (the dense numbers, drawn again), rank 4, and bfloat16 members. All use the problem's
own suggestions for sigma and learning rate, and none is tuned for its perturbations.

Run: python -m benchmarks.reproductions.low_rank
"""

import pathlib

import jax.numpy as jnp
import numpy as np
import scipy.stats

import zoo
from zoo import Results
from zoo.strategies.perturbations import Dense, LowRank, Seeded

FORMS = {
    "dense": Dense(),
    "seeded": Seeded(),
    "rank 1": LowRank(),
    "rank 4": LowRank(rank=4),
    "rank 1, bfloat16": LowRank(dtype=jnp.bfloat16),
}
POPULATION_SIZE, SEEDS = 64, 5
PROBLEMS = {"supervised/digits": 64 * 500, "rl/CartPole-v1": 500_000}  # problem steps
SETTINGS = {"rl/CartPole-v1": {"hidden": (64, 64)}}
FIGURE = pathlib.Path(__file__).parent / "figures" / "low_rank.png"


def main() -> None:
    results = zoo.benchmark(
        dict.fromkeys(FORMS, "open_es"),
        list(PROBLEMS),
        num_seeds=SEEDS,
        num_steps=PROBLEMS,
        strategy_settings={
            label: {"perturbation": form, "population_size": POPULATION_SIZE} for label, form in FORMS.items()
        },
        problem_settings=SETTINGS,
        progress=False,
    )
    report(results)
    results.plot().savefig(FIGURE, dpi=120)


def report(results: Results) -> None:
    """Prints the final scores and their differences from dense. Equal seeds share their initial solutions."""
    print("| problem | perturbation | score, mean (95 % interval) | minus dense (95 % interval) |")
    print("| --- | --- | --- | --- |")
    for problem in PROBLEMS:
        dense = results.scores("dense", problem)
        for label in FORMS:
            scores = results.scores(label, problem)
            print(f"| {problem} | {label} | {interval(scores)} | {interval(scores - dense)} |", flush=True)


def interval(values: np.ndarray) -> str:
    """Returns the mean and Student's 95 % interval."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.4g} ({np.mean(values) - half:.4g} to {np.mean(values) + half:.4g})"


if __name__ == "__main__":
    main()
