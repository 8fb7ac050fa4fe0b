"""Compares SNR, magnitude and random masks in ladders of lottery tickets (Lange, Sprekeler 2023, arXiv 2306.00045).

Twenty rounds prune a fifth each, down to 1.4 % of the weights, on digits (MLP 64-32-10) and on CartPole and Pendulum
(MLP 2 x 64, normalised observations). Every round trains the masked initial solution with a fresh strategy.

Run: python -m benchmarks.reproductions.tickets [--task digits] [--task CartPole] [--task Pendulum]
"""

import argparse
import time

import numpy as np

import zoo
from benchmarks.reproductions.curves import FIGURES

NUM_ROUNDS = 20
SHOWN = (0, 5, 10, 14, 17, 19)  # rounds in the table: 100, 33, 10.7, 4.4, 2.3, 1.4 %
NUM_SEEDS = {"digits": 4, "CartPole": 3, "Pendulum": 3}
GENERATIONS = {"digits": 300, "CartPole": 20, "Pendulum": 300}
STRATEGIES = {
    "digits": ({"id": "snes"}, {"id": "sep_cma_es"}, {"id": "pgpe"}),
    "CartPole": ({"id": "snes"}, {"id": "sep_cma_es"}),
    "Pendulum": ({"id": "snes", "sigma": 0.3},),
}


def make_problem(task: str) -> zoo.Problem:
    """Returns the problem of a task."""
    if task == "digits":
        return zoo.make_problem("supervised/digits", hidden=(32,))
    return zoo.make_problem(f"rl/{task}-v1", hidden=(64, 64), normalize_observations=True)


def print_table(task: str, strategy: str, tickets: zoo.Tickets, seconds: float) -> None:
    """Prints a row per criterion: mean and standard deviation of the headline score over the seeds, by round."""
    frame = tickets.frame[tickets.frame.metric == tickets.metadata["headline"]]
    for criterion in tickets.criteria:
        rows = frame.loc[frame.criterion == criterion].pivot(index="seed", columns="round", values="value")
        cells = [f"{rows[r].mean():.3g} ± {rows[r].std():.2g}" for r in SHOWN]
        print(f"| {task} | {strategy} | {criterion} | {' | '.join(cells)} | {seconds / len(tickets.criteria):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(NUM_SEEDS), action="append", help="Task to run. Defaults to all.")
    kept = [f"{100 * 0.8**r:.3g} %" for r in SHOWN]
    print(f"| task | strategy | criterion | {' | '.join(kept)} | seconds, all seeds |")
    print("| --- " * (4 + len(SHOWN)) + "|")
    for task in parser.parse_args().task or NUM_SEEDS:
        for strategy in STRATEGIES[task]:
            clock = time.perf_counter()
            tickets = zoo.lottery_tickets(
                {"population_size": 64, **strategy},
                make_problem(task),
                num_seeds=NUM_SEEDS[task],
                num_rounds=NUM_ROUNDS,
                generations_per_round=GENERATIONS[task],
                progress=False,
            )
            print_table(task, strategy["id"], tickets, time.perf_counter() - clock)
            FIGURES.mkdir(exist_ok=True)
            name = f"tickets_{task.lower()}_{strategy['id']}"
            tickets.plot().savefig(FIGURES / f"{name}.png", dpi=150)
            if name == "tickets_digits_snes":
                tickets.plot_layers().savefig(FIGURES / f"{name}_layers.png", dpi=120)
            drops = -np.diff(tickets.summary()[tickets.criteria].iloc[[0, 10]].to_numpy(), axis=0)[0]
            lost = ", ".join(f"{c} {drop:.3g}" for c, drop in zip(tickets.criteria, drops, strict=True))
            print(f"<!-- {task}, {strategy['id']}: lost at 10.7 %: {lost} -->", flush=True)


if __name__ == "__main__":
    main()
