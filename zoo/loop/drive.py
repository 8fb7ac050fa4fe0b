"""Drives the compiled segments: everything that happens on the host, between segments and only there."""

import contextlib
import dataclasses
import functools
import numbers
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.core.problem import Problem
from zoo.core.sharding import check_mesh, gather, is_first_process, replicate
from zoo.core.strategy import Solution, Strategy, check_solution
from zoo.loop import compiled
from zoo.loop.checkpoint import Checkpointer
from zoo.loop.provenance import describe_settings, describe_value, fingerprint, is_key

if TYPE_CHECKING:
    import pathlib

_INT32_MAX = np.iinfo(np.int32).max
_MAX_SEGMENT = 1024  # generations per call of the compiled loop, which bounds its history buffers
_MIN_SEGMENT = 128  # of a budget in steps, where generations may spend few
_MAX_STEPS = 2**30  # problem steps per call, so that they are counted in 32 bits without overflow
_MAX_IDLE = 1000  # generations that spend no step before a budget in steps is called hopeless
_CLOCK = ("generation", "steps", "seconds")  # the columns of a score curve that are not metrics


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a callback sees between two segments.

    Attributes:
        generation: Generations done.
        steps: Problem steps spent.
        seconds: Time spent in the compiled loop; compilation and scoring apart.
        metrics: The latest score, by name.
        mean: The recommended solution.
        best_fitness: Lowest fitness of any member so far.
    """

    generation: int
    steps: int
    seconds: float
    metrics: dict[str, float]
    mean: Solution
    best_fitness: float


@dataclasses.dataclass(frozen=True)
class Budget:
    """When a run ends and when it is scored: `limits[k]`, in generations or in problem steps."""

    unit: str  # "generations" or "steps"
    limits: tuple[int, ...]

    @classmethod
    def make(cls, problem: Problem, num_generations: int | None, num_steps: int | None, num_scores: int) -> "Budget":
        """Checks a budget and divides it evenly.

        Raises:
            ValueError: If both budgets are given or a number is not positive.
        """
        if num_generations is not None and num_steps is not None:
            raise ValueError("Give one budget: num_generations or num_steps, not both.")
        unit, total = ("steps", num_steps) if num_generations is None else ("generations", num_generations)
        if total is None:
            total = problem.suggested_num_steps
        for name, value in ((f"num_{unit}", total), ("num_scores", num_scores)):
            if not _is_whole(value) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
        total = int(total)
        if unit == "generations" and total > _INT32_MAX:
            raise ValueError(f"num_generations must be at most {_INT32_MAX}, got {total}.")
        count = min(int(num_scores), total)
        return cls(unit, tuple(-(-total * (k + 1) // count) for k in range(count)))

    def done(self, log: "_Log") -> np.ndarray:
        """Returns how far each seed is, in the budget's unit."""
        return log.steps if self.unit == "steps" else log.generations

    def limits_of_call(self, log: "_Log", limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the limits that one call of the compiled loop gets, per seed: generation, and steps from now."""
        unlimited = np.full(len(log.steps), _INT32_MAX)
        if self.unit == "steps":
            return unlimited, np.clip(limit - log.steps, 0, _MAX_STEPS)
        return np.full(len(log.steps), limit), unlimited

    def longest_segment(self, strategy: Strategy) -> int:
        """Returns how many generations may lie between two scorings (if every member spends at least one step)."""
        longest = int(np.max(np.diff((0, *self.limits))))
        if self.unit == "generations":
            return longest
        return max(_MIN_SEGMENT, -(-longest // (strategy.population_size or 1)))


@dataclasses.dataclass
class Outcome:
    """What `drive` returns. With several seeds every array has a leading axis of seeds, and lists have one entry each.

    Attributes:
        carry: Final carry.
        mean: Recommended solutions.
        histories: Per seed, arrays by name with one entry per generation.
        scores: Per seed, arrays by name with one entry per scoring.
    """

    carry: compiled.Carry
    mean: Solution
    histories: list[dict[str, np.ndarray]]
    scores: list[dict[str, np.ndarray]]
    seconds: float
    compile_seconds: float
    stopped_by: str

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics in `scores`."""
        return [name for name in self.scores[0] if name not in _CLOCK]


def drive(
    strategy: Strategy,
    problem: Problem,
    keys: jax.Array,
    *,
    budget: Budget,
    target: float | None = None,
    solution: Solution | None = None,
    callback: Callable[[Progress], bool | None] | None = None,
    observe: Callable[[compiled.Carry, dict[str, jax.Array]], None] | None = None,
    checkpoint: "str | pathlib.Path | None" = None,
    progress: str | None = None,
    mesh: Mesh | None = None,
) -> Outcome:
    """Runs one seed (`keys` is a key) or several at once (`keys` is an array of keys), in one compiled program.

    `observe` is called with the carry and its score after each scoring, before the checkpoint is saved; the memory of
    the carry is reused afterwards. Populations are split over the devices of `mesh`. Where several processes share it,
    all of them drive the same run: each is handed what comes of it, the first writes checkpoints and shows progress.
    """
    context = contextlib.nullcontext()
    if mesh is not None:
        mesh = check_mesh(mesh)
        strategy, problem, keys, solution = replicate(mesh, (strategy, problem, keys, solution))
        context = jax.set_mesh(mesh)
    with context:
        outcome = _drive(
            strategy, problem, keys, solution, budget, target, callback, observe, checkpoint, progress, mesh
        )
    return dataclasses.replace(outcome, carry=gather(outcome.carry), mean=gather(outcome.mean))


def _drive(
    strategy: Strategy,
    problem: Problem,
    keys: jax.Array,
    solution: Solution | None,
    budget: Budget,
    target: float | None,
    callback: Callable[[Progress], bool | None] | None,
    observe: Callable[[compiled.Carry, dict[str, jax.Array]], None] | None,
    checkpoint: "str | pathlib.Path | None",
    progress: str | None,
    mesh: Mesh | None,
) -> Outcome:
    batched = keys.ndim == 1
    num_seeds = len(keys) if batched else 1
    solution = None if solution is None else check_solution(solution)

    clock = time.perf_counter()
    carry = compiled.start(strategy, problem, keys, solution, batched=batched)
    length = min(_MAX_SEGMENT, budget.longest_segment(strategy))
    advance = functools.partial(compiled.advance, length=length, batched=batched)
    nothing = np.zeros(num_seeds, np.int32)
    # A call with nothing to do compiles the program, so that compile time can be told from run time.
    carry, _ = advance(strategy, problem, carry, keys, *_limits(nothing, nothing, batched))
    score = functools.partial(compiled.score, strategy, problem, keys=keys, batched=batched)
    metrics = jax.block_until_ready(score(carry))
    compile_seconds = time.perf_counter() - clock

    log = _Log(num_seeds)
    log.add_score(metrics, np.ones(num_seeds, bool))
    stopped = np.zeros(num_seeds, bool)
    next_limit = 0
    checkpointer = None
    if checkpoint is not None:
        checkpointer = Checkpointer(checkpoint, _identity(strategy, problem, keys, solution), mesh)
        restored = checkpointer.restore(carry)
        if restored is not None:
            carry, record, meta = restored
            log = _Log.from_record(record, [*_CLOCK, *metrics])
            if meta["limits"] == list(budget.limits) and meta["unit"] == budget.unit:
                next_limit = meta["next_limit"]
            else:  # another budget: go on from where the run is
                next_limit = int(np.searchsorted(budget.limits, budget.done(log).max(), side="right"))

    def reached() -> np.ndarray:
        """Returns which seeds are at the target, by their latest score."""
        if target is None:
            return np.zeros(num_seeds, bool)
        # Compared in the precision of the score: an accuracy of 0.95 in float32 is below 0.95 in float64.
        dtype = metrics[problem.headline].dtype
        headline = np.array([log.metrics(seed)[problem.headline] for seed in range(num_seeds)], dtype)
        goal = np.asarray(target, dtype)
        return headline >= goal if problem.maximize else headline <= goal

    stopped = reached() if log.generations.any() else stopped
    with contextlib.ExitStack() as stack:
        if checkpointer is not None:
            stack.callback(checkpointer.close)
        show = stack.enter_context(
            _progress_bar(progress if is_first_process(mesh) else None, budget, problem.headline)
        )
        while next_limit < len(budget.limits) and not stopped.all():
            limit = budget.limits[next_limit]
            next_limit += 1
            before = log.generations
            while np.any(~stopped & (budget.done(log) < limit)):
                generation_limit, step_limit = budget.limits_of_call(log, limit)
                clock = time.perf_counter()
                limits = _limits(np.where(stopped, 0, generation_limit), step_limit, batched)
                carry, record = jax.block_until_ready(advance(strategy, problem, carry, keys, *limits))
                log.add_generations(record, np.asarray(carry.generation), time.perf_counter() - clock)
                if budget.unit == "steps" and log.idle >= _MAX_IDLE:
                    raise ValueError(
                        f"The last {log.idle} generations spent no problem step, so a budget in steps would never end. "
                        "Give a budget in generations."
                    )
            advanced = log.generations > before
            if not advanced.any():  # one generation took the run past this limit already
                continue
            metrics = jax.block_until_ready(score(carry))
            log.add_score(metrics, advanced)
            show(log)
            stopped = reached()
            if observe is not None:
                observe(carry, metrics)
            if callback is not None and callback(_progress_of(strategy, carry, log)):
                stopped[:] = True
            if checkpointer is not None:
                meta = {
                    "unit": budget.unit,
                    "limits": list(budget.limits),
                    "next_limit": next_limit,
                }
                checkpointer.save(int(log.generations.max()), carry, log.record(), meta)
    stopped_by = "target" if reached().all() else "callback" if stopped.all() else "budget"
    return Outcome(
        carry=carry,
        mean=jax.vmap(strategy.mean)(carry.state) if batched else strategy.mean(carry.state),
        histories=[log.history(seed) for seed in range(num_seeds)],
        scores=[log.scores(seed) for seed in range(num_seeds)],
        seconds=log.seconds,
        compile_seconds=compile_seconds,
        stopped_by=stopped_by,
    )


def as_key(key: Any) -> jax.Array:
    """Returns a random key from a seed, a key, or a key of the older kind.

    Raises:
        TypeError: If it is none of them.
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and is_key(key):
        return key
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32:
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(f"Expected a random key, jax.random.key(seed), or a seed; got {key!r}.")


def _is_whole(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and float(value).is_integer()


def _limits(generation_limit: np.ndarray, step_limit: np.ndarray, batched: bool) -> tuple[np.ndarray, np.ndarray]:
    limits = (np.asarray(generation_limit, np.int32), np.asarray(step_limit, np.int32))
    return limits if batched else (limits[0].reshape(()), limits[1].reshape(()))


def _identity(strategy: Strategy, problem: Problem, keys: jax.Array, solution: Solution | None) -> str:
    """Returns what tells the checkpoints of two runs apart: all but the budget."""
    return fingerprint(
        {
            "strategy": describe_settings(strategy),
            "problem": describe_settings(problem),
            "keys": describe_value(keys),
            "solution": describe_value(solution),
        }
    )


def _progress_of(strategy: Strategy, carry: compiled.Carry, log: "_Log") -> Progress:
    return Progress(
        generation=int(log.generations[0]),
        steps=int(log.steps[0]),
        seconds=log.seconds,
        metrics=log.metrics(0),
        mean=gather(jax.tree.map(jnp.copy, strategy.mean(carry.state))),  # the carry's memory is reused
        best_fitness=float(carry.best_fitness),
    )


class _Log:
    """What the host knows about a run: generations, steps and seconds so far, history and scores."""

    def __init__(self, num_seeds: int):
        self.generations = np.zeros(num_seeds, np.int64)
        self.steps = np.zeros(num_seeds, np.int64)
        self.seconds = 0.0
        self.idle = 0  # generations since anybody spent a step
        self._history: list[list[np.ndarray]] = [[] for _ in range(num_seeds)]  # per seed: [3, generations]
        self._scores: list[dict[str, np.ndarray]] = []  # per scoring: arrays [num_seeds]

    @property
    def num_scores(self) -> int:
        return len(self._scores)

    def add_generations(self, record: compiled.Record, generations: np.ndarray, seconds: float) -> None:
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
        row = {name: np.asarray(value, np.float64).reshape(-1) for name, value in metrics.items()}
        seconds = np.full(len(advanced), self.seconds)
        clock = {"generation": self.generations.copy(), "steps": self.steps.copy(), "seconds": seconds}
        self._scores.append({**clock, **row, "_advanced": advanced.copy()})

    def metrics(self, seed: int) -> dict[str, float]:
        return {name: float(x[-1]) for name, x in self.scores(seed).items() if name not in _CLOCK}

    def history(self, seed: int) -> dict[str, np.ndarray]:
        blocks = self._history[seed] or [np.zeros((3, 0))]
        best_fitness, mean_fitness, steps = np.concatenate(blocks, axis=1)
        return {
            "steps": np.cumsum(steps.astype(np.int64)),
            "best_fitness": best_fitness,
            "mean_fitness": mean_fitness,
        }

    def scores(self, seed: int) -> dict[str, np.ndarray]:
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
    def from_record(cls, record: dict[str, np.ndarray], names: list[str]) -> "_Log":
        log = cls(len(record["generations"]))
        log.generations, log.steps = record["generations"].copy(), record["steps"].copy()
        log.seconds = float(record["seconds"])
        log._history = [[record[f"history/{seed}"]] for seed in range(len(log.steps))]
        columns = {name: record[f"score/{name}"] for name in (*names, "_advanced")}
        log._scores = [{name: x[k] for name, x in columns.items()} for k in range(len(columns["steps"]))]
        return log


@contextlib.contextmanager
def _progress_bar(title: str | None, budget: Budget, headline: str) -> Iterator[Callable[[_Log], None]]:
    """Yields a function that shows where the run is; one that does nothing without a title."""
    if title is None:
        yield lambda log: None
        return
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[status]}"),
    )
    with rich.progress.Progress(*columns) as bar:
        task = bar.add_task(title, total=budget.limits[-1], status="compiled")

        def show(log: _Log) -> None:
            done = log.steps if budget.unit == "steps" else log.generations
            scores = [log.metrics(seed)[headline] for seed in range(len(done))]
            status = f"generation {log.generations.max()}, {headline} {np.mean(scores):.4g}"
            bar.update(task, completed=min(int(done.min()), budget.limits[-1]), status=status)

        yield show
