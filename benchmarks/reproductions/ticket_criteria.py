"""Compares SNR with magnitude for several strategies, rates and lengths, on digits (MLP 64-32-10).

SNR differs from magnitude only if the standard deviations of the search distribution differ. So the second table gives
the differences (paired by seed, mean and standard error) and two more columns, each for the dense round and at 4.4 %.
`log std parted by` is the standard deviation of the logarithm of the standard deviations over the kept weights, at the
end of the round. `pruned alike` is the share of the next 36 % to go by SNR that would also go by magnitude. Ladders of
ten rounds prune 36 % each, as two rounds of 20 % do, down to 1.8 %.

Run: python -m benchmarks.reproductions.ticket_criteria [FOLDER]   (saves the tickets in FOLDER, and resumes from it)
"""

import pathlib
import sys

import jax
import numpy as np

import zoo
from benchmarks.reproductions.curves import FIGURES
from zoo.sparsity.landscape import metric_rows

NUM_SEEDS, METRIC = 3, "test_accuracy"
PRUNE_FRACTION = {10: 0.36, 20: 0.2}  # by the number of rounds
SHOWN = (0, 5, 6, 7, 8, 9)  # of ten rounds; of twenty rounds, every second one
SNES, SEP, PGPE = ({"id": id, "population_size": 64} for id in ("snes", "sep_cma_es", "pgpe"))
LADDERS = {  # strategy, generations per round, rounds
    "snes": (SNES, 300, 10),
    "snes, std rate x 3": ({**SNES, "std_learning_rate": 0.13}, 300, 10),
    "snes, std rate x 10": ({**SNES, "std_learning_rate": 0.44}, 300, 10),
    "snes, 1000 generations": (SNES, 1000, 10),
    "pgpe": (PGPE, 300, 10),
    "pgpe, std rate x 5": ({**PGPE, "std_learning_rate": 0.5}, 300, 10),
    "sep_cma_es": (SEP, 300, 10),
    "sep_cma_es, 1000 generations": (SEP, 1000, 10),
    "sep_cma_es, 1000 generations, 20 rounds": (SEP, 1000, 20),
}


def parted(
    ticket: zoo.Ticket, strategy: zoo.Strategy, problem: zoo.Problem, num_generations: int
) -> tuple[float, float]:
    """Returns the spread of log standard deviations at the end of a round, and the share that both criteria prune."""
    result = ticket.train(strategy, problem, num_generations=num_generations, num_scores=1)
    leaves = (jax.tree.leaves(tree) for tree in (ticket.mask, result.mean, result.strategy.std(result.state)))
    kernels = [(m, x, s) for m, x, s in zip(*leaves, strict=True) if np.ndim(m) > 1]
    mean, std = (np.concatenate([np.asarray(each[i])[each[0]] for each in kernels]) for i in (1, 2))
    count = round(PRUNE_FRACTION[10] * len(mean))
    by_magnitude, by_snr = (set(np.argsort(scores)[:count]) for scores in (np.abs(mean), np.abs(mean) / std))
    return float(np.std(np.log(std))), len(by_magnitude & by_snr) / count


def main() -> None:
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
    problem = zoo.make_problem("supervised/digits", hidden=(32,))
    kept = [f"{100 * 0.64**r:.3g} %" for r in SHOWN]
    print(f"| strategy | criterion | {' | '.join(kept)} |")
    print("| --- " * (2 + len(SHOWN)) + "|")
    differences, spreads = {}, {}
    for label, (strategy, generations, num_rounds) in LADDERS.items():
        tickets = zoo.lottery_tickets(
            strategy,
            problem,
            criteria=("snr", "magnitude"),
            num_seeds=NUM_SEEDS,
            num_rounds=num_rounds,
            generations_per_round=generations,
            prune_fraction=PRUNE_FRACTION[num_rounds],
            out=None if folder is None else folder / label.replace(" ", "_").replace(",", ""),
            progress=False,
        )
        made, step = zoo.make_strategy(**strategy, problem=problem), num_rounds // 10
        chosen = [tickets.ticket("snr", round=r * step) for r in (0, 7)]
        spreads[label] = [parted(ticket, made, problem, generations) for ticket in chosen]
        frame = metric_rows(tickets.frame, METRIC, ("criterion", "seed", "round"))
        frame = frame[frame["round"] % step == 0]
        frame = frame.assign(round=frame["round"] // step)
        scores = frame.pivot(index="seed", columns=["criterion", "round"], values="value")
        for criterion in tickets.criteria:
            cells = [f"{scores[criterion, r].mean():.3f} ± {scores[criterion, r].std():.3f}" for r in SHOWN]
            print(f"| {label} | {criterion} | {' | '.join(cells)} |", flush=True)
        differences[label] = scores["snr"] - scores["magnitude"]
        if label in ("snes", "sep_cma_es"):
            tickets.plot().savefig(FIGURES / f"ticket_criteria_{label}.png", dpi=150)
    print()
    print(f"| SNR minus magnitude: | {' | '.join(kept[1:])} | log std parted by | pruned alike |")
    print("| --- " * (2 + len(SHOWN)) + "|")
    for label, difference in differences.items():
        errors = difference.std() / np.sqrt(NUM_SEEDS)
        cells = [f"{difference[r].mean():+.3f} ± {errors[r]:.3f}" for r in SHOWN[1:]]
        (dense, dense_alike), (sparse, sparse_alike) = spreads[label]
        cells += [f"{dense:.2f}, {sparse:.2f}", f"{100 * dense_alike:.0f} %, {100 * sparse_alike:.0f} %"]
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
