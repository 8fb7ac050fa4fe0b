"""What the host knows about a run: how far it is, its history and its scores."""

from typing import Any

import numpy as np

from zoo.loop.compiled import Record

CLOCK = ("generation", "steps", "seconds")
"""The columns of a score curve that are not metrics."""


class Log:
    """Generations, steps and seconds so far, the history of all generations, and the scores."""

    def __init__(self, num_seeds: int):
        self.generations = np.zeros(num_seeds, np.int64)
        self.steps = np.zeros(num_seeds, np.int64)
        self.seconds = 0.0
        self.idle = 0  # generations since anybody spent a step
        self._history: list[list[np.ndarray]] = [[] for _ in range(num_seeds)]  # per seed: [3, generations]
        self._scores: list[dict[str, np.ndarray]] = []  # per scoring: arrays [num_seeds]

    def add_generations(self, record: Record, generations: np.ndarray, seconds: float) -> None:
        """Adds what a call of the compiled loop recorded, and how long it took.

        Args:
            record: Of each generation, as `compiled.advance` returns it.
            generations: `[num_seeds]` generations that each seed has done by now.
            seconds: Duration of the call.
        """
        rows = [np.asarray(x).reshape(len(self.generations), -1) for x in record]
        generations = generations.reshape(-1).astype(np.int64)
        before = self.steps.copy()
        for seed, count in enumerate(generations - self.generations):
            if count:
                block = np.stack([row[seed, :count].astype(np.float64) for row in rows])
                self._history[seed].append(block)
                self.steps[seed] += int(block[2].sum())
        advanced = int(np.max(generations - self.generations))
        self.idle = 0 if np.any(self.steps > before) else self.idle + advanced
        self.generations = generations
        self.seconds += seconds

    def add_score(self, metrics: dict[str, Any], advanced: np.ndarray) -> None:
        """Adds a scoring: a score per seed, by name; `advanced` says which seeds went on since the last one."""
        row = {name: np.asarray(value, np.float64).reshape(-1) for name, value in metrics.items()}
        seconds = np.full(len(advanced), self.seconds)
        clock = {"generation": self.generations.copy(), "steps": self.steps.copy(), "seconds": seconds}
        self._scores.append({**clock, **row, "_advanced": advanced.copy()})

    def metrics(self, seed: int) -> dict[str, float]:
        """Returns the latest score of a seed, by name."""
        return {name: float(x[-1]) for name, x in self.scores(seed).items() if name not in CLOCK}

    def history(self, seed: int) -> dict[str, np.ndarray]:
        """Returns arrays by name with an entry per generation of a seed."""
        blocks = self._history[seed] or [np.zeros((3, 0))]
        best_fitness, mean_fitness, steps = np.concatenate(blocks, axis=1)
        return {
            "steps": np.cumsum(steps.astype(np.int64)),
            "best_fitness": best_fitness,
            "mean_fitness": mean_fitness,
        }

    def scores(self, seed: int) -> dict[str, np.ndarray]:
        """Returns arrays by name with an entry per scoring of a seed: the clock, and the metrics."""
        rows = [row for row in self._scores if row["_advanced"][seed]]
        names = [name for name in self._scores[0] if name != "_advanced"]
        return {name: np.asarray([row[name][seed] for row in rows]) for name in names}

    def record(self) -> dict[str, np.ndarray]:
        """Returns the log as arrays by name, for a checkpoint."""
        record = {f"score/{name}": np.stack([row[name] for row in self._scores]) for name in self._scores[0]}
        for seed, blocks in enumerate(self._history):
            record[f"history/{seed}"] = np.concatenate(blocks or [np.zeros((3, 0))], axis=1)
        return {
            **record,
            "generations": self.generations,
            "steps": self.steps,
            "seconds": np.asarray(self.seconds),
        }

    @classmethod
    def from_curves(cls, history: dict[str, np.ndarray], scores: dict[str, np.ndarray], seconds: float) -> "Log":
        """Returns the log of a run of one seed from what `history` and `scores` returned."""
        log = cls(1)
        steps = np.diff(history["steps"], prepend=0)
        log.generations[:], log.steps[:] = len(steps), steps.sum()
        log.seconds = seconds
        log._history = [[np.stack([history["best_fitness"], history["mean_fitness"], steps.astype(np.float64)])]]
        rows = range(len(scores["steps"]))
        log._scores = [{**{name: x[[k]] for name, x in scores.items()}, "_advanced": np.ones(1, bool)} for k in rows]
        return log

    @classmethod
    def from_record(cls, record: dict[str, np.ndarray], names: list[str]) -> "Log":
        """Returns the log that `record` stored, whose scores have these names.

        Raises:
            ValueError: If its parts do not fit together.
            KeyError: If one is missing.
        """
        num_seeds = len(record["generations"])
        lengths = {seed: record[f"history/{seed}"].shape for seed in range(num_seeds)}
        scores = {record[f"score/{name}"].shape for name in (*names, "_advanced")}
        if (
            record["steps"].shape != (num_seeds,)
            or record["seconds"].shape != ()
            or lengths != {seed: (3, count) for seed, count in enumerate(record["generations"])}
            or scores != {(len(record["score/steps"]), num_seeds)}
        ):
            raise ValueError("The parts of the record of a run do not fit together.")
        log = cls(num_seeds)
        log.generations, log.steps = record["generations"].copy(), record["steps"].copy()
        log.seconds = float(record["seconds"])
        log._history = [[record[f"history/{seed}"]] for seed in range(len(log.steps))]
        columns = {name: record[f"score/{name}"] for name in (*names, "_advanced")}
        log._scores = [{name: x[k] for name, x in columns.items()} for k in range(len(columns["steps"]))]
        return log
