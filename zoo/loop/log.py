"""The host's log of a run: generations and steps done, the history, and the scores."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from zoo.core.evaluation import MAX_STEPS
from zoo.loop.compiled import Carry, Diagnosis, Record

CLOCK = ("generation", "steps", "seconds")
NOT_METRICS = (*CLOCK, *Diagnosis._fields)
"""The columns of a score curve that are not metrics."""

HISTORY = ("best_fitness", "mean_fitness", "std_fitness", "worst_fitness", "steps", "failed")
"""The rows of the history, besides one row for each number in the problem's `aux`."""


class Log:
    """Generations, steps and seconds so far, the history of all generations, and the scores.

    Args:
        num_seeds: Number of runs.
        aux: Names of the numbers that the problem reports for each member besides its fitness.
    """

    def __init__(self, num_seeds: int, aux: Iterable[str] = ()):
        self._rows = (*HISTORY, *(f"aux/{name}" for name in aux))
        self.generations = np.zeros(num_seeds, np.int64)
        self.steps = np.zeros(num_seeds, np.int64)
        self.seconds = 0.0
        self.overshoot = np.zeros(num_seeds, np.int64)  # problem steps of the generation that was dropped
        self.idle = 0  # generations since any seed spent a problem step
        # Per seed: blocks [rows, generations]. No block is empty.
        self._history: list[list[np.ndarray]] = [[] for _ in range(num_seeds)]
        self._scores: list[dict[str, np.ndarray]] = []  # per scoring: arrays [num_seeds]
        # Generations and seconds at the end of each call; before the run was resumed, at each scoring.
        self._clock: list[tuple[np.ndarray, float]] = [(self.generations, 0.0)]

    def add_generations(self, record: Record, carry: Carry, seconds: float) -> None:
        """Adds the record of a call of the compiled loop.

        Args:
            record: The record of each generation, as `compiled.advance` returns it.
            carry: The carry after the call.
            seconds: Duration of the call.

        Raises:
            ValueError: If a generation spent `MAX_STEPS` problem steps or more.
        """
        arrays = {**record._asdict(), **{f"aux/{name}": x for name, x in record.aux.items()}}
        rows = [np.asarray(arrays[name]).reshape(len(self.generations), -1) for name in self._rows]
        generations = np.asarray(carry.generation).reshape(-1).astype(np.int64)
        # A seed that dropped a generation has ended, and its overshoot is 0 in later calls.
        self.overshoot = np.maximum(self.overshoot, np.asarray(carry.overshoot).reshape(-1))
        before = self.steps.copy()
        for seed, count in enumerate(generations - self.generations):
            if count:
                block = np.stack([row[seed, :count].astype(np.float64) for row in rows])
                steps = block[self._rows.index("steps")]
                if not ((steps >= 0) & (steps < MAX_STEPS)).all():
                    raise ValueError(
                        f"A generation spent {MAX_STEPS} problem steps or more, which is more than can be counted. "
                        "Use a smaller population_size, or shorter episodes."
                    )
                self._history[seed].append(block)
                self.steps[seed] += int(steps.sum())
        advanced = int(np.max(generations - self.generations))
        self.idle = 0 if np.any(self.steps > before) else self.idle + advanced
        self.generations = generations
        self.seconds += seconds
        self._clock.append((generations, self.seconds))

    def add_score(self, metrics: dict[str, Any], diagnosis: Diagnosis, advanced: np.ndarray) -> None:
        """Adds a score of each seed.

        Args:
            metrics: The metrics by name, with one number per seed.
            diagnosis: The diagnosis, with one number per seed.
            advanced: Which seeds ran generations since the previous score.

        Raises:
            ValueError: If a metric has the name of another column.
        """
        if taken := set(metrics) & set(NOT_METRICS):
            raise ValueError(f"The problem's score names metrics like other columns: {sorted(taken)}. Rename them.")
        row = {**metrics, **diagnosis._asdict()}
        row = {name: np.asarray(value, np.float64).reshape(-1) for name, value in row.items()}
        seconds = np.full(len(advanced), self.seconds)
        clock = {"generation": self.generations.copy(), "steps": self.steps.copy(), "seconds": seconds}
        self._scores.append({**clock, **row, "_advanced": advanced.copy()})

    @property
    def scored(self) -> np.ndarray:
        """The generation at which each seed was last scored."""
        return self._scores[-1]["generation"]

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics."""
        return [name for name in self._scores[0] if name not in (*NOT_METRICS, "_advanced")]

    @property
    def score_names(self) -> list[str]:
        """Names of the metrics and of the diagnosis."""
        return [*self.metric_names, *Diagnosis._fields]

    def metrics(self, seed: int) -> dict[str, float]:
        """Returns the latest score of a seed, by name."""
        latest = self._latest(seed)
        return {name: float(latest[name][seed]) for name in self.metric_names}

    def diagnosis(self, seed: int) -> dict[str, float]:
        """Returns the latest diagnosis of a seed, by name, with the share that `failed` in the last generation."""
        latest, history = self._latest(seed), self._history[seed]
        diagnosis = {name: float(latest[name][seed]) for name in Diagnosis._fields}
        failed = history[-1][self._rows.index("failed"), -1] if history else 0.0
        return {**diagnosis, "failed": float(failed)}

    def _latest(self, seed: int) -> dict[str, np.ndarray]:
        return next(row for row in reversed(self._scores) if row["_advanced"][seed])

    def history(self, seed: int) -> dict[str, np.ndarray]:
        """Returns the history of a seed: arrays by name, with one entry per generation."""
        rows = dict(zip(self._rows, self._block(seed), strict=True))
        return {"steps": np.cumsum(rows.pop("steps").astype(np.int64)), **rows}

    def recent(self, seed: int, count: int) -> dict[str, np.ndarray]:
        """Returns the history of the last `count` generations of a seed, without the steps."""
        rows = self._tail(seed, count)
        return {name: row for name, row in zip(self._rows, rows, strict=True) if name != "steps"}

    def since(self, seed: int, generation: int) -> dict[str, np.ndarray]:
        """Returns the history of a seed after a generation: arrays by name, with one entry per generation.

        Besides the history, returns `generation` and `seconds`, the time spent in the compiled loop until then. Within
        a call of the loop, it is interpolated.
        """
        last = int(self.generations[seed])
        rows = dict(zip(self._rows, self._tail(seed, last - generation), strict=True))
        steps = np.cumsum(rows.pop("steps").astype(np.int64))
        numbers = np.arange(generation + 1, last + 1)
        clock = {"generation": numbers, "steps": self.steps[seed] - (steps[-1:] - steps), "seconds": numbers * 0.0}
        points: list[tuple[int, float]] = []
        for generations, seconds in reversed(self._clock):
            points.append((int(generations[seed]), seconds))
            if generations[seed] <= generation:
                break
        ends, seconds = np.array(points[::-1], float).T
        clock["seconds"] = np.interp(numbers, ends, seconds)
        return {**clock, **rows}

    def scores_since(self, seed: int, generation: int) -> dict[int, dict[str, float]]:
        """Returns the scores of a seed after a generation: metrics and diagnosis by name, by generation."""
        found = {}
        for row in reversed(self._scores):
            if row["generation"][seed] <= generation:
                break
            if row["_advanced"][seed]:
                found[int(row["generation"][seed])] = {name: float(row[name][seed]) for name in self.score_names}
        return found

    def _tail(self, seed: int, count: int) -> np.ndarray:
        """Returns the rows of the last `count` generations of a seed, `[rows, generations]`."""
        blocks, size = [], 0
        for block in reversed(self._history[seed]):
            if size >= count:
                break
            blocks.append(block)
            size += block.shape[1]
        rows = np.concatenate(blocks[::-1] or [np.zeros((len(self._rows), 0))], axis=1)
        return rows[:, max(0, rows.shape[1] - count) :]

    def _block(self, seed: int) -> np.ndarray:
        return np.concatenate(self._history[seed] or [np.zeros((len(self._rows), 0))], axis=1)

    def scores(self, seed: int) -> dict[str, np.ndarray]:
        """Returns the scores of a seed: arrays by name, with one entry per scoring (clock, metrics, diagnosis)."""
        rows = [row for row in self._scores if row["_advanced"][seed]]
        names = [name for name in self._scores[0] if name != "_advanced"]
        return {name: np.asarray([row[name][seed] for row in rows]) for name in names}

    def flat_since(self) -> int:
        """Returns the generation since which all members of all runs have had the same fitness, to single precision."""
        return max(self._flat_since(seed) for seed in range(len(self._history)))

    def failing_since(self) -> np.ndarray:
        """Returns, per seed, the generation since which no member has had a finite fitness."""
        failed = self._rows.index("failed")
        return np.array([self._since(seed, lambda block: block[failed] == 1) for seed in range(len(self._history))])

    def _flat_since(self, seed: int) -> int:
        def is_flat(block: np.ndarray) -> np.ndarray:
            best, mean = block[:2]
            latest = self._history[seed][-1][0, -1]
            return (np.abs(mean - best) <= np.finfo(np.float32).eps * np.abs(best)) & (best == latest)

        return self._since(seed, is_flat)

    def _since(self, seed: int, holds: Callable[[np.ndarray], np.ndarray]) -> int:
        """Returns the generation of a seed since which a condition has held.

        Args:
            seed: The seed.
            holds: Returns, for a block, in which generations the condition holds.
        """
        since = int(self.generations[seed])
        for block in reversed(self._history[seed]):  # back to the last generation where it does not hold
            since -= block.shape[1]
            if len(others := np.flatnonzero(~holds(block))):
                return since + int(others[-1]) + 1
        return since

    def record(self) -> dict[str, np.ndarray]:
        """Returns the log as arrays by name, for a checkpoint."""
        record = {f"score/{name}": np.stack([row[name] for row in self._scores]) for name in self._scores[0]}
        record |= {f"history/{seed}": self._block(seed) for seed in range(len(self._history))}
        return {
            **record,
            "generations": self.generations,
            "steps": self.steps,
            "overshoot": self.overshoot,
            "seconds": np.asarray(self.seconds),
        }

    @classmethod
    def from_curves(cls, history: dict[str, np.ndarray], scores: dict[str, np.ndarray], seconds: float) -> "Log":
        """Returns the log of a run of one seed, from the values that `history` and `scores` returned."""
        log = cls(1, (name.removeprefix("aux/") for name in history if name.startswith("aux/")))
        steps = np.diff(history["steps"], prepend=0)
        log.generations[:], log.steps[:] = len(steps), steps.sum()
        log.seconds = seconds
        block = np.stack([{**history, "steps": steps.astype(np.float64)}[name] for name in log._rows])
        log._history = [[block] if block.size else []]
        rows = range(len(scores["steps"]))
        log._scores = [{**{name: x[[k]] for name, x in scores.items()}, "_advanced": np.ones(1, bool)} for k in rows]
        log._set_clock()
        return log

    @classmethod
    def from_record(cls, record: dict[str, np.ndarray], metrics: Iterable[str], aux: Iterable[str]) -> "Log":
        """Returns the log that `record` stored.

        Args:
            record: The arrays that `record` returned.
            metrics: Names of the metrics.
            aux: Names of the numbers that the problem reports for each member.

        Raises:
            ValueError: If the parts of the record do not fit together.
            KeyError: If a part is missing.
        """
        names = (*CLOCK, *metrics, *Diagnosis._fields, "_advanced")
        num_seeds = len(record["generations"])
        log = cls(num_seeds, aux)
        lengths = {seed: record[f"history/{seed}"].shape for seed in range(num_seeds)}
        scores = {record[f"score/{name}"].shape for name in names}
        if (
            record["steps"].shape != (num_seeds,)
            or record["overshoot"].shape != (num_seeds,)
            or record["seconds"].shape != ()
            or lengths != {seed: (len(log._rows), count) for seed, count in enumerate(record["generations"])}
            or scores != {(len(record["score/steps"]), num_seeds)}
        ):
            raise ValueError("The parts of the record of a run do not fit together.")
        log.generations, log.steps = record["generations"].copy(), record["steps"].copy()
        log.overshoot = record["overshoot"].copy()
        log.seconds = float(record["seconds"])
        blocks = [record[f"history/{seed}"] for seed in range(len(log.steps))]
        log._history = [[block] if block.size else [] for block in blocks]
        columns = {name: record[f"score/{name}"] for name in names}
        log._scores = [{name: x[k] for name, x in columns.items()} for k in range(len(columns["steps"]))]
        log._set_clock()
        return log

    def _set_clock(self) -> None:
        scored = [(row["generation"], float(np.ravel(row["seconds"])[0])) for row in self._scores]
        self._clock = [*scored, (self.generations, self.seconds)]
