"""Compares the whole family and its peers on BBOB in one call: expected running times and the runtime distribution.

Uses eight of the 24 functions, one or two from each group of the suite, with n = 5, 1 000 n evaluations, in double
precision.

Run: python -m benchmarks.reproductions.bbob [--folder results/bbob]   (resumes if the folder exists)
"""

import argparse
import pathlib

import jax
import numpy as np

import zoo

NUM_DIMS = 5
SEEDS = 5
FUNCTIONS = {
    "sphere": "f1",
    "ellipsoidal": "f2",
    "rastrigin": "f3",
    "rosenbrock": "f8",
    "ellipsoidal_rotated": "f10",
    "different_powers": "f14",
    "rastrigin_rotated": "f15",
    "gallagher_101_me": "f21",
}
PLAIN = ["cma_es", "sep_cma_es", "ma_es", "lm_ma_es", "lra_cma_es", "cr_fm_nes", "xnes", "snes", "one_plus_one_es"]
PLAIN += ["pgpe", "ars", "de", "pso", "simple_ga", "random_search"]
PEERS = [
    "evosax/CMA_ES",
    "evosax/Sep_CMA_ES",
    "evosax/CR_FM_NES",
    "evosax/xNES",
    "evosax/DifferentialEvolution",
]
TARGETS = (1e-1, 1e-4, 1e-8)
FIGURE = pathlib.Path(__file__).parent / "figures" / "bbob.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("results/bbob"))
    arguments = parser.parse_args()
    problems = {f"{number} {name}": f"blackbox/{name}" for name, number in FUNCTIONS.items()}
    strategies = {id: id for id in (*PLAIN, "bipop", *PEERS)}
    with jax.enable_x64(True):
        results = zoo.benchmark(
            strategies,
            problems,
            num_seeds=SEEDS,
            num_steps=1_000 * NUM_DIMS,
            num_scores=1,
            strategy_settings={"bipop": {"base": "cma_es", "max_doublings": 3}},
            problem_settings={label: {"num_dims": NUM_DIMS} for label in problems},
            out=arguments.folder,
        )
    if len(results.failures):
        print(results.failures.to_string())
    report(results)
    FIGURE.parent.mkdir(exist_ok=True)
    results.plot_ecdf().savefig(FIGURE, dpi=110)


def report(results: zoo.Results) -> None:
    """Prints the share of reached targets, and the expected running time to three targets."""
    runtimes = results.runtimes
    reached = runtimes.steps.notna().groupby(runtimes.strategy).mean().sort_values(ascending=False)
    table = results.ert(TARGETS).pivot_table(index="strategy", columns=["problem", "target"], values="ert", sort=False)
    numbers = list(FUNCTIONS.values())
    print(f"| strategy | targets reached | {' | '.join(numbers)} |")
    print(f"| --- | --- | {' | '.join('---' for _ in numbers)} |")
    for strategy, share in reached.items():
        row = table.loc[strategy]
        cells = [
            " / ".join(_number(row.get((label, target), np.inf)) for target in TARGETS)
            for label in dict.fromkeys(label for label, _ in table.columns)
        ]
        print(f"| {strategy} | {share:.0%} | {' | '.join(cells)} |")


def _number(ert: float) -> str:
    return f"{ert:,.0f}" if np.isfinite(ert) else "-"


if __name__ == "__main__":
    main()
