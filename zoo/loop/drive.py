"""Drives the compiled segments: everything that happens on the host, between segments and only there."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.core.problem import Problem
from zoo.core.sharding import check_mesh, gather, is_first_process, replicate
from zoo.core.solution import Solution, check_solution
from zoo.core.strategy import Strategy
from zoo.loop import compiled
from zoo.loop.budget import Budget
from zoo.loop.checkpoint import Checkpointer
from zoo.loop.log import CLOCK, Log
from zoo.loop.progress import Compiling, Progress, progress_bar
from zoo.loop.provenance import describe_settings, describe_value, fingerprint

_MAX_IDLE = 1000  # generations that spend no step before a budget in steps is called hopeless


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
        return [name for name in self.scores[0] if name not in CLOCK]


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
    checkpoint: str | pathlib.Path | None = None,
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
    checkpoint: str | pathlib.Path | None,
    progress: str | None,
    mesh: Mesh | None,
) -> Outcome:
    batched = keys.ndim == 1
    num_seeds = len(keys) if batched else 1
    solution = None if solution is None else check_solution(solution)

    with contextlib.ExitStack() as stack:
        title = progress if is_first_process(mesh) else None
        show = stack.enter_context(progress_bar(title, budget.limits[-1], status=Compiling()))
        clock = time.perf_counter()
        run_keys, carry = compiled.start(strategy, problem, keys, solution, batched=batched)
        advance = functools.partial(compiled.advance, batched=batched)
        nothing = np.zeros(num_seeds, np.int32)
        # A call with nothing to do compiles the program, so that compile time can be told from run time.
        carry, _ = advance(strategy, problem, carry, run_keys.generations, *_limits(nothing, nothing, batched))
        options = {"key": run_keys.score, "batched": batched}
        score = functools.partial(
            compiled.score.choose(strategy, problem, carry, **options), strategy, problem, **options
        )
        metrics = jax.block_until_ready(score(carry))
        compile_seconds = time.perf_counter() - clock
        show(0, f"compiled in {compile_seconds:.1f} s")

        log = Log(num_seeds)
        log.add_score(metrics, np.ones(num_seeds, bool))
        stopped = np.zeros(num_seeds, bool)
        next_limit = 0
        checkpointer = None
        if checkpoint is not None:
            checkpointer = Checkpointer(checkpoint, _identity(strategy, problem, keys, solution), mesh)
            restored = checkpointer.restore(carry)
            if restored is not None:
                carry, record, meta = restored
                log = Log.from_record(record, [*CLOCK, *metrics])
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
        if checkpointer is not None:
            stack.callback(checkpointer.close)
        while next_limit < len(budget.limits) and not stopped.all():
            limit = budget.limits[next_limit]
            next_limit += 1
            before = log.generations
            while np.any(~stopped & (budget.done(log) < limit)):
                generation_limit, step_limit = budget.limits_of_call(log, limit)
                clock = time.perf_counter()
                limits = _limits(np.where(stopped, 0, generation_limit), step_limit, batched)
                carry, record = jax.block_until_ready(advance(strategy, problem, carry, run_keys.generations, *limits))
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
            show(min(int(budget.done(log).min()), budget.limits[-1]), _status(log, problem.headline))
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


def _status(log: Log, headline: str) -> str:
    scores = [log.metrics(seed)[headline] for seed in range(len(log.generations))]
    return f"generation {log.generations.max()}, {headline} {np.mean(scores):.4g}"


def _progress_of(strategy: Strategy, carry: compiled.Carry, log: Log) -> Progress:
    return Progress(
        generation=int(log.generations[0]),
        steps=int(log.steps[0]),
        seconds=log.seconds,
        metrics=log.metrics(0),
        mean=gather(jax.tree.map(jnp.copy, strategy.mean(carry.state))),  # the carry's memory is reused
        best_fitness=float(carry.best_fitness),
    )
