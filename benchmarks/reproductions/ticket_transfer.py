"""Measures the value of tickets for other strategies and for gradient descent, and the landscape around optima.

snes, pgpe and Adam train tickets of digits (MLP 64-32-10) that snes found. They also train tickets that Adam found by
magnitude, and masks found before training (SNIP, GraSP, SynFlow). The controls are the same masks permuted within the
layers, the same masks with new weights, and random masks of the same size. The landscape is measured by linear
interpolation between two optima and by scores under isotropic perturbations, for optima of evolution strategies and of
gradient descent (Lange, Sprekeler 2023, arXiv 2306.00045, sections 5 and 6).

Run: python -m benchmarks.reproductions.ticket_transfer
"""

import jax
import numpy as np

import zoo
from benchmarks.reproductions.curves import FIGURES

NUM_SEEDS, NUM_ROUNDS, GENERATIONS = 3, 20, 300
ROUNDS = (10, 14, 19)  # 10.7, 4.4 and 1.4 % kept
SNES = {"id": "snes", "population_size": 64}
PGPE = {"id": "pgpe", "population_size": 64}
ADAM = {"id": "bptt", "optimizer": "adam", "learning_rate": 0.01, "population_size": 1}
TRAINED_BY = {"snes": (SNES, 300), "pgpe": (PGPE, 300), "Adam": (ADAM, 600)}  # generations
ONE_SHOT = ("snip", "grasp", "synflow")
METRIC = "test_accuracy"


def ladder(strategy, criteria, problem) -> zoo.Tickets:
    return zoo.lottery_tickets(
        strategy,
        problem,
        criteria=criteria,
        num_seeds=NUM_SEEDS,
        num_rounds=NUM_ROUNDS,
        generations_per_round=GENERATIONS,
        progress=False,
    )


def masks(by_snes: zoo.Tickets, by_adam: zoo.Tickets, problem, seed: int, number: int) -> dict[str, zoo.Ticket]:
    """Returns tickets of the same size, by label."""
    ticket = by_snes.ticket("snr", seed=seed, round=number)
    one_shot = {
        name: zoo.prune_at_init(problem, ticket.kept, name, key=seed, solution=ticket.solution) for name in ONE_SHOT
    }
    return {
        "snes, SNR": ticket,
        "Adam, magnitude": by_adam.ticket("magnitude", seed=seed, round=number),
        **one_shot,
        "snes, SNR, permuted": ticket.permuted(seed),
        "snes, SNR, new weights": ticket.reinitialized(problem, 100 + seed),
        "random": by_snes.ticket("random", seed=seed, round=number),
    }


def transfer(by_snes: zoo.Tickets, by_adam: zoo.Tickets, problem) -> None:
    """Prints the test accuracy of every mask with every trainer: mean and standard deviation over the seeds."""
    columns = [f"{by}, {100 * 0.8**r:.3g} %" for by in TRAINED_BY for r in ROUNDS]
    print(f"| mask | {' | '.join(columns)} |")
    print("| --- " * (1 + len(columns)) + "|")
    scores: dict[str, list[list[float]]] = {}
    for by, (strategy, generations) in TRAINED_BY.items():
        made = zoo.make_strategy(**strategy, problem=problem)
        for number in ROUNDS:
            for seed in range(NUM_SEEDS):
                for label, ticket in masks(by_snes, by_adam, problem, seed, number).items():
                    result = ticket.train(made, problem, seed, num_generations=generations, num_scores=1)
                    cells = scores.setdefault(label, [])
                    column = list(TRAINED_BY).index(by) * len(ROUNDS) + ROUNDS.index(number)
                    if len(cells) == column:
                        cells.append([])
                    cells[column].append(result.score)
    for label, cells in scores.items():
        print(f"| {label} | {' | '.join(f'{np.mean(x):.3f} ± {np.std(x, ddof=1):.3f}' for x in cells)} |", flush=True)


def connectivity(found: dict[str, tuple[zoo.Tickets, str]], problem) -> None:
    """Prints and draws barriers of test accuracy: from round to round, from dense to sparse, and between two seeds."""
    print("| optima | dense to 80 % | dense to 10.7 % | 10.7 % to 8.6 % | two seeds, dense | two seeds, 10.7 % |")
    print("| --- | --- | --- | --- | --- | --- |")
    pairs = {(0, 1): "dense to 80 %", (0, 10): "dense to 10.7 %", (10, 11): "10.7 % to 8.6 %"}
    drawn = {}
    for label, (tickets, criterion) in found.items():
        mean = {
            (seed, r): tickets.ticket(criterion, seed=seed, round=r).mean
            for seed in range(NUM_SEEDS)
            for r in (0, 1, 10, 11)
        }
        cells = []
        for (one, other), name in pairs.items():
            paths = [zoo.interpolate(problem, mean[s, one], mean[s, other]) for s in range(NUM_SEEDS)]
            cells.append(np.mean([zoo.barrier(path, METRIC, True) for path in paths]))
            if (one, other) != (10, 11):
                drawn[f"{label}: {name}"] = paths[0]
        for r in (0, 10):
            paths = [zoo.interpolate(problem, mean[s, r], mean[(s + 1) % NUM_SEEDS, r]) for s in range(NUM_SEEDS)]
            cells.append(np.mean([zoo.barrier(path, METRIC, True) for path in paths]))
        print(f"| {label} | {' | '.join(f'{x:.3f}' for x in cells)} |", flush=True)
    figure = zoo.plot_interpolation(drawn, metric=METRIC, maximize=True)
    figure.savefig(FIGURES / "tickets_connectivity.png", dpi=150)


def flatness(found: dict[str, tuple[zoo.Tickets, str]], problem) -> None:
    """Prints and draws the test accuracy under perturbations of all kept weights: the mean over seeds and samples."""
    sigmas = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
    print(f"| optima | kept | norm of the weights | {' | '.join(f'sigma {s:g}' for s in sigmas)} |")
    print("| --- " * (3 + len(sigmas)) + "|")
    drawn = {}
    for label, (tickets, criterion) in found.items():
        for r in (0, 10):
            chosen = [tickets.ticket(criterion, seed=seed, round=r) for seed in range(NUM_SEEDS)]
            frames = [zoo.flatness(problem, t.mean, s, mask=t.mask, sigmas=sigmas) for s, t in enumerate(chosen)]
            rows = [frame[frame.metric == METRIC].groupby("sigma").value.mean() for frame in frames]
            norms = [np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(t.mean))) for t in chosen]
            cells = [f"{np.mean([row[s] for row in rows]):.3f}" for s in sigmas]
            print(
                f"| {label} | {100 * chosen[0].kept:.3g} % | {np.mean(norms):.1f} | {' | '.join(cells)} |", flush=True
            )
            drawn[f"{label}, {100 * chosen[0].kept:.3g} %"] = frames[0]
    zoo.plot_flatness(drawn, metric=METRIC, maximize=True).savefig(FIGURES / "tickets_flatness.png", dpi=150)


def main() -> None:
    problem = zoo.make_problem("supervised/digits", hidden=(32,))
    by_snes = ladder(SNES, ("snr", "random"), problem)
    by_adam = ladder(ADAM, ("magnitude",), problem)
    print("kept | snes, SNR | snes, random | Adam, magnitude (as found)")
    for r in (0, *ROUNDS):
        row = [by_snes.summary()[c][r] for c in ("snr", "random")] + [by_adam.summary()["magnitude"][r]]
        print(f"{100 * 0.8**r:.3g} % | {' | '.join(f'{x:.3f}' for x in row)}", flush=True)
    found = {"snes": (by_snes, "snr"), "Adam": (by_adam, "magnitude")}
    connectivity(found, problem)
    flatness(found, problem)
    transfer(by_snes, by_adam, problem)


if __name__ == "__main__":
    main()
