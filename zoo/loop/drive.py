"""Runs the compiled segments, and does the host's work between them (scores, progress, checkpoints)."""

import contextlib
import dataclasses
import datetime
import functools
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zoo.core.problem import Problem
from zoo.core.sharding import check_mesh, gather, is_first_process, replicate
from zoo.core.solution import Solution, check_finite, check_solution, num_dims
from zoo.core.strategy import Strategy
from zoo.host.interrupts import native_errors
from zoo.loop import compiled
from zoo.loop.budget import Budget
from zoo.loop.checkpoint import Checkpointer
from zoo.loop.converged import Converged, Watch
from zoo.loop.files import checked
from zoo.loop.identity import identify
from zoo.loop.log import NOT_METRICS, Log
from zoo.loop.log_file import LogFile
from zoo.loop.pauses import Pauses
from zoo.loop.progress import Compiling, Progress, progress_bar, say
from zoo.loop.provenance import describe_key, describe_value, fingerprint

_MAX_IDLE = 1000  # generations without a problem step after which a budget in steps is an error
_LOOK_EVERY = 100  # generations between two checks of convergence
_MIN_FLAT = 10  # generations in which all fitness is equal, or not finite, before a warning
_MAX_LISTED = 10  # seeds named in a message
_CONVERGED = 1e-3  # times the first sigma: below it, a search has converged, and equal fitness is no surprise


@dataclasses.dataclass
class Outcome:
    """The result of `drive`. With several seeds, arrays have a leading axis of seeds, and lists one entry per seed.

    Attributes:
        carry: Final carry.
        mean: Recommended solutions.
        histories: Per seed, arrays by name with one entry per generation.
        scores: Per seed, arrays by name with one entry per scoring.
        overshoot: Per seed, the problem steps of the generation that was dropped at the end. 0 if none was dropped.
        seconds: Time spent in the compiled loop.
        compile_seconds: Time spent compiling.
        stopped_by: Per seed, why it ended: `"budget"`, `"target"`, `"callback"`, or a criterion of `Converged`.
    """

    carry: compiled.Carry
    mean: Solution
    histories: list[dict[str, np.ndarray]]
    scores: list[dict[str, np.ndarray]]
    overshoot: np.ndarray
    seconds: float
    compile_seconds: float
    stopped_by: list[str]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics in `scores`."""
        return [name for name in self.scores[0] if name not in NOT_METRICS]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `drive`.

    Attributes:
        budget: When the run ends, and when it is scored.
        target: The headline score at which the run stops. With `None`, there is no target.
        stop: Ends the run when the search has converged by these criteria. With `None`, convergence does not end it.
        solution: The initial solution. With `None`, the problem makes it.
        start: The carry and the log of a run of one seed, from which this run goes on. With `None`, a new run starts.
        callback: Called with a `Progress` at each limit of the budget, or as `callback_every` says. A true return value
            stops the run.
        callback_every: Generations between two calls of the callback. The last call comes at the end of the run.
        began: Called when the run starts or resumes. A new run calls it before it compiles, so that a run interrupted
            while it compiles can be resumed. A resumed run calls it after the checkpoint has been checked.
        ready: Called after compilation with the generation that the run goes on from, 0 for a new run.
        observe: Called with the carry and its score after each scoring, before the checkpoint is saved. The memory of
            the carry is reused afterwards.
        checkpoint: The folder of the checkpoints. With `None`, nothing is saved.
        log: The file that gets a row per generation of a run of one seed. With `None`, there is no log.
        accept_versions: Whether to go on from a checkpoint of another version of the zoo or of JAX.
        may_be_longer: Whether to accept a checkpoint that has done more than the budget, and return it as it is.
        progress: The title of a progress bar. With `None`, there is no bar.
        report: Called at each limit of the budget with the share of the budget that is done.
        mesh: The devices that populations are split over. If several processes share it, all of them drive the same run
            and get its result, and the first process writes checkpoints and shows progress.
    """

    budget: Budget
    target: float | None = None
    stop: Converged | None = None
    solution: Solution | None = None
    start: tuple[compiled.Carry, Log] | None = None
    callback: Callable[[Progress], bool | None] | None = None
    callback_every: int | None = None
    began: Callable[[], None] | None = None
    ready: Callable[[int], None] | None = None
    observe: Callable[[compiled.Carry, dict[str, jax.Array]], None] | None = None
    checkpoint: str | pathlib.Path | None = None
    log: str | pathlib.Path | None = None
    accept_versions: bool = False
    may_be_longer: bool = False
    progress: str | None = None
    report: Callable[[float], None] | None = None
    mesh: Mesh | None = None


def drive(
    strategy: Strategy, problem: Problem, keys: jax.Array, options: Options, differs: tuple[bool, ...] | None = None
) -> Outcome:
    """Runs one seed (`keys` is a key) or several seeds (`keys` is an array of keys) in one compiled program.

    Args:
        strategy: The strategy. With `differs`, it may have a leaf per run.
        problem: The problem.
        keys: A key, or `[num_runs]` keys.
        options: How the runs are driven.
        differs: For each leaf of the strategy, whether it has a leading axis of runs. With `None`, none has.
    """
    compiled.forget_programs()
    context = contextlib.nullcontext()
    solution = None if options.solution is None else check_solution(options.solution)
    identity = None  # made before anything is placed on devices, because their number must not change it
    if options.checkpoint is not None or options.log is not None:
        facts = {"key": describe_key(keys), "initial_solution": describe_value(solution)}
        identity = identify(strategy, problem, **facts)
    if options.mesh is not None:
        mesh = check_mesh(options.mesh)
        strategy, problem, keys, solution = replicate(mesh, (strategy, problem, keys, solution))
        context = jax.set_mesh(mesh)
    options = dataclasses.replace(options, solution=solution)
    title = options.progress if is_first_process(options.mesh) else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(context)
        checkpointer, log_file = None, None
        if options.checkpoint is not None and identity is not None:
            checkpointer = stack.enter_context(
                Checkpointer(options.checkpoint, identity, options.mesh, accept_versions=options.accept_versions)
            )
        if options.log is not None and identity is not None:
            run, before = fingerprint([identity.what, identity.numbers])[:8], options.start and options.start[1]
            log_file = stack.enter_context(LogFile(options.log, run, before, options.mesh))
        pauses = Pauses(options.callback, options.callback_every, log_file)
        show = stack.enter_context(progress_bar(title, options.budget.limits[-1], status=Compiling()))
        with native_errors():
            outcome = _Drive(strategy, problem, keys, options, checkpointer, pauses, show, differs).run()
    return dataclasses.replace(outcome, carry=gather(outcome.carry), mean=gather(outcome.mean))


class _Drive:
    """A run in progress: the compiled programs, the carry, and the log."""

    def __init__(
        self,
        strategy: Strategy,
        problem: Problem,
        keys: jax.Array,
        options: Options,
        checkpointer: Checkpointer | None,
        pauses: Pauses,
        show: Callable[[int, str], None],
        differs: tuple[bool, ...] | None,
    ):
        self._strategy, self._problem, self._options, self._show = strategy, problem, options, show
        self._checkpointer, self._pauses = checkpointer, pauses
        self._batched: compiled.Batch = keys.ndim == 1 if differs is None else differs
        num_seeds = len(keys) if self._batched else 1
        self._next_limit = 0
        self._warned: set[str] = set()
        self._generation_steps = problem.generation_steps(strategy.population_size or 0)
        self._check_room(self._generation_steps or 0)
        self._stopped_by = [""] * num_seeds
        if checkpointer is not None and checkpointer.is_empty:
            self._begin()
        self._compile(keys)
        self._log = Log(num_seeds, self._aux)
        self._add_score(np.ones(num_seeds, bool))
        self._go_on()

    def run(self) -> Outcome:
        """Runs to the end of the budget, or until something stops the run."""
        num_limits = len(self._options.budget.limits)
        if self._next_limit < num_limits and not self._is_done.all():  # otherwise nothing will be written
            if self._checkpointer is not None:
                self._checkpointer.check_writable()
            self._begin()
        self._pauses.begin(self._log, is_from_result=self._options.start is not None)
        if self._options.ready is not None:
            self._options.ready(int(self._log.generations[0]))
        while self._next_limit < num_limits and not self._is_done.all():
            self._next_limit += 1
            self._segment(self._next_limit - 1)
        self._score_if_advanced()  # the run may have ended between two scorings
        self._pause(at_limit=True)
        if not self._is_stopped.any():
            self._show(self._options.budget.limits[-1], _status(self._log, self._problem.headline))
        seeds = range(len(self._stopped_by))
        return Outcome(
            carry=self._carry,
            mean=self._mean(),
            histories=[self._log.history(seed) for seed in seeds],
            scores=[self._log.scores(seed) for seed in seeds],
            overshoot=self._log.overshoot,
            seconds=self._log.seconds,
            compile_seconds=self._compile_seconds,
            stopped_by=[reason or "budget" for reason in self._stopped_by],
        )

    def _begin(self) -> None:
        if self._options.began is not None and is_first_process(self._options.mesh):
            self._options.began()

    @property
    def _is_stopped(self) -> np.ndarray:
        return np.array([bool(reason) for reason in self._stopped_by])

    @property
    def _is_done(self) -> np.ndarray:
        """Which seeds have ended."""
        return self._is_stopped | self._options.budget.is_spent(self._log, self._generation_steps)

    def _stop(self, seeds: np.ndarray, reason: str) -> None:
        for seed in np.flatnonzero(seeds & ~self._is_stopped):
            self._stopped_by[seed] = reason

    def _check_room(self, steps: int) -> None:
        """Raises a `ValueError` if the budget has no room for a first generation of `steps` problem steps."""
        budget = self._options.budget
        if budget.unit == "steps" and steps > budget.limits[-1]:
            raise ValueError(
                f"A generation of {type(self._strategy).__name__} spends {steps} problem steps, more than the whole "
                f"budget: num_steps={budget.limits[-1]}. Give a larger budget, or a smaller population_size."
            )

    def _compile(self, keys: jax.Array) -> None:
        """Makes the initial carry and its score, and compiles the loop with a call that runs no generation."""
        clock = time.perf_counter()
        arguments, batched = (self._strategy, self._problem), self._batched
        run_keys, carry = compiled.start(*arguments, keys, self._options.solution, batched=batched)
        check_finite(carry.best_solution, "The initial solution")
        advance = functools.partial(compiled.advance, batched=batched)
        nothing = np.zeros(len(self._stopped_by), np.int32)
        limits = _limits(compiled.Limits(nothing, nothing, nothing), batched)
        self._watch = None
        if self._options.stop is not None:
            size, count = self._strategy.groups.ids.size, num_dims(carry.best_solution) // len(self._stopped_by)
            self._watch = Watch(self._options.stop, count, size, every=1 if self._problem.is_expensive else _LOOK_EVERY)
            self._initial_std = np.ravel(compiled.spread(self._strategy, carry.state, batched=batched)[0])
        carry, record = advance(*arguments, carry, run_keys.generations, limits)
        self._aux = tuple(record.aux)
        # Until a generation is run, the best solution is the mean.
        mark = compiled.Mark(carry.best_solution, carry.generation)
        settings = {"key": run_keys.score, "batched": batched}
        score = compiled.score.choose(*arguments, carry, before=mark, **settings)
        self._score = functools.partial(score, *arguments, **settings)
        self._advance = lambda carry, limits: advance(*arguments, carry, run_keys.generations, limits)
        self._carry, self._mark = carry, mark
        self._score_carry()
        self._compile_seconds = time.perf_counter() - clock
        self._show(0, f"compiled in {self._compile_seconds:.1f} s")

    def _go_on(self) -> None:
        """Restores the checkpoint, or takes over the run that `start` names, if there is one."""
        budget, limits = self._options.budget, None
        if self._options.start is not None:
            carry, self._log = self._options.start
            self._carry = _placed(carry, self._carry, self._options.mesh)
        elif self._checkpointer is not None and (restored := self._restored(self._checkpointer)) is not None:
            (self._carry, self._mark), self._log, meta = restored
            if not self._options.may_be_longer:
                budget.check_covers(self._log, self._options.checkpoint)
            generation = self._log.generations.max()
            line = f"goes on from generation {generation} in {self._options.checkpoint}/, saved {meta['date'][:10]}"
            say(line, show=self._options.progress is not None and is_first_process(self._options.mesh))
            if meta["unit"] == budget.unit:
                limits, self._next_limit = meta["limits"], meta["next_limit"]
        if self._log.generations.any():
            if self._options.start is not None:
                self._mark = compiled.Mark(*jax.tree.map(jnp.copy, (self._mean(), self._carry.generation)))
            if limits != list(budget.limits):  # with another budget, find the next limit from the progress
                self._next_limit = int(np.searchsorted(budget.limits, budget.done(self._log).min(), side="right"))
                self._log.overshoot[:] = 0
            self._stop(self._reached(), "target")
            self._stop_if_converged()

    def _restored(
        self, checkpointer: Checkpointer
    ) -> tuple[tuple[compiled.Carry, compiled.Mark], Log, dict[str, Any]] | None:
        """Returns the carry and the mark, the log, and the facts of a checkpoint. Returns `None` without one."""

        def read(record: dict[str, np.ndarray], meta: dict[str, Any]) -> Log:
            _, limits, next_limit, _ = checked(meta, unit=str, limits=list, next_limit=int, date=str)
            if not 0 <= next_limit <= len(limits):
                raise ValueError(f"it is past limit {next_limit} of {len(limits)}.")
            return Log.from_record(record, self._metrics, self._aux)

        return checkpointer.restore((self._carry, self._mark), read)

    def _segment(self, number: int) -> None:
        """Runs to a limit of the budget, scores if due, shows progress, calls the callback and saves a checkpoint."""
        options, log = self._options, self._log
        before = log.generations
        self._run_to(options.budget.limits[number])
        if not (log.generations > before).any():  # a single generation passed this limit too
            return
        if options.budget.is_scored[number] or self._is_done.all():
            self._score_if_advanced()
        done = int(options.budget.done(log).min())
        self._show(done, _status(log, self._problem.headline))
        if options.report is not None:
            options.report(done / options.budget.limits[-1])
        self._warn_if_failing()
        self._warn_if_flat()
        self._pause(at_limit=True)
        if self._checkpointer is not None:
            meta: dict[str, Any] = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
            meta |= {"unit": options.budget.unit, "limits": list(options.budget.limits), "next_limit": self._next_limit}
            self._checkpointer.save(int(log.generations.max()), (self._carry, self._mark), log.record(), meta)

    def _pause(self, *, at_limit: bool) -> None:
        """Writes the log, and calls the callback if it is due. The callback may stop the run."""
        log, pauses = self._log, self._pauses
        pauses.write(log)
        is_end = at_limit and bool(self._is_done.all())
        if pauses.is_due(log, at_limit=at_limit, is_end=is_end) and pauses.call(self._strategy, self._carry, log):
            self._stop(np.ones(len(self._stopped_by), bool), "callback")
            self._score_if_advanced()
            pauses.write(log)

    def _warn(self, name: str, message: str) -> None:
        """Warns once per run and name."""
        if name not in self._warned:
            self._warned.add(name)
            pair = f"{type(self._strategy).__name__} on {type(self._problem).__name__}: " if self._batched else ""
            warnings.warn(pair + message, RuntimeWarning, stacklevel=3)

    def _seeds(self, seeds: np.ndarray) -> str:
        """Returns the seeds as text for a message. Returns an empty text if the run has one seed."""
        return f" of {_listed(seeds)} (of {len(seeds)})" if self._batched else ""

    def _warn_if_failing(self) -> None:
        """Warns once if no member has had a finite fitness for `_MIN_FLAT` generations."""
        if "failing" in self._warned:
            return
        log = self._log
        since = log.failing_since()
        is_failing = log.generations - since >= _MIN_FLAT
        if is_failing.any():
            first = int(np.flatnonzero(is_failing)[0])
            self._warn(
                "failing",
                f"The fitness of every member{self._seeds(is_failing)} has been NaN or infinite since generation "
                f"{since[first]}, and the run is at {log.generations[first]}: the strategy learns nothing. Look at the "
                "problem, or start from another solution or with a smaller sigma.",
            )

    def _warn_if_flat(self) -> None:
        """Warns once if fitness never differed between members, or stopped differing before the search converged."""
        if "flat" in self._warned or self._is_stopped.all():
            return
        log, budget = self._log, self._options.budget
        since, generation = log.flat_since(), int(log.generations.min())
        is_early = 2 * budget.done(log).max() <= budget.limits[-1] and not self._batched
        sigma = log.scores(0)["sigma"]
        is_stale = log.scored[0] < generation  # the latest sigma is not known then
        has_converged = is_stale or sigma[-1] <= _CONVERGED * sigma[0]
        if generation - since < _MIN_FLAT or not (since == 0 or (is_early and not has_converged)):
            return
        fitness = log.history(0)["best_fitness"][-1]
        self._warn(
            "flat",
            f"All members have had the same fitness, {fitness:.7g}, since generation {since}, and the run is at "
            f"{generation}: the strategy learns nothing. If this is not the goal, look at the problem, or search "
            "with a larger sigma. If it is the goal, target=... ends the run there.",
        )

    def _score_if_advanced(self) -> None:
        """Scores the run if a seed has run a generation since the previous score."""
        advanced = self._log.generations > self._log.scored
        if not advanced.any():
            return
        self._score_carry()
        self._add_score(advanced)
        self._stop(self._reached(), "target")
        if self._options.observe is not None:
            self._options.observe(self._carry, self._metrics)

    def _add_score(self, advanced: np.ndarray) -> None:
        """Adds the latest score to the log, and warns once if it is NaN."""
        self._log.add_score(self._metrics, self._diagnosis, advanced)
        headline = self._problem.headline
        is_nan = advanced & np.isnan(np.ravel(self._metrics[headline]))
        if is_nan.any():
            generation = self._log.generations[np.flatnonzero(is_nan)[0]]
            self._warn(
                "score",
                f"The score of the mean{self._seeds(is_nan)} at generation {generation}, {headline!r}, is NaN. The "
                "search goes on by the fitness of its members. Look at what the problem computes for the mean.",
            )

    def _score_carry(self) -> None:
        scored = self._score(self._carry, before=self._mark)
        self._metrics, self._diagnosis, self._mark = jax.block_until_ready(scored)

    def _mean(self) -> Solution:
        return compiled.each_run(lambda strategy, state: strategy.mean(state), self._strategy, self._batched)(
            self._carry.state
        )

    def _run_to(self, limit: int) -> None:
        """Runs generations up to a limit of the budget."""
        budget, log = self._options.budget, self._log
        while np.any(active := ~self._is_done & (budget.done(log) < limit)):
            if self._pauses.is_due(log, at_limit=False, is_end=False):
                self._pause(at_limit=False)
                continue  # the callback may have stopped the run
            limits = budget.limits_of_call(log, limit)
            if self._watch is not None:
                limits = limits._replace(generation=np.minimum(limits.generation, self._watch.next(log.generations)))
            limits = limits._replace(generation=np.minimum(limits.generation, self._pauses.next(log.generations)))
            limits = limits._replace(generation=np.where(active, limits.generation, 0))
            clock = time.perf_counter()
            carry, record = jax.block_until_ready(self._advance(self._carry, _limits(limits, self._batched)))
            self._carry = carry
            log.add_generations(record, carry, time.perf_counter() - clock)
            self._check_first_generations()
            self._stop_if_converged()
            if budget.unit == "steps" and log.idle >= _MAX_IDLE:
                raise ValueError(
                    f"The last {log.idle} generations spent no problem step, so a budget in steps would never end. "
                    "Give a budget in generations."
                )

    def _check_first_generations(self) -> None:
        """Raises if the budget has no room for the first generation of any seed. Warns if only some seeds have room."""
        log = self._log
        has_none = (log.overshoot > 0) & (log.generations == 0)
        if has_none.all():
            self._check_room(int(log.overshoot.max()))
        if has_none.any():
            self._warn(
                "room",
                f"num_steps={self._options.budget.limits[-1]} leaves no room for the first generation"
                f"{self._seeds(has_none)}, which spends up to {log.overshoot[has_none].max()} problem steps. There the "
                "result is the initial solution. Give a larger budget, or a smaller population_size.",
            )

    def _stop_if_converged(self) -> None:
        watch, log = self._watch, self._log
        if watch is None or not (is_due := ~self._is_stopped & watch.is_due(log.generations)).any():
            return
        spread = [np.ravel(x) for x in compiled.spread(self._strategy, self._carry.state, batched=self._batched)]
        for seed in np.flatnonzero(is_due).tolist():
            recent = log.recent(seed, watch.num_recent)
            reason = watch.reason(recent, spread[0][seed], self._initial_std[seed], spread[1][seed])
            self._stopped_by[seed] = reason or ""

    def _reached(self) -> np.ndarray:
        """Returns which seeds have reached the target, by their latest score."""
        target, headline = self._options.target, self._problem.headline
        if target is None:
            return np.zeros(len(self._stopped_by), bool)
        # Compares in the precision of the score, because an accuracy of 0.95 in float32 is below 0.95 in float64.
        dtype = self._metrics[headline].dtype
        scores = np.array([self._log.metrics(seed)[headline] for seed in range(len(self._stopped_by))], dtype)
        goal = np.asarray(target, dtype)
        return scores >= goal if self._problem.maximize else scores <= goal


def _listed(seeds: np.ndarray) -> str:
    """Returns the indices of seeds as text. If there are more than `_MAX_LISTED`, counts the others."""
    indices = np.flatnonzero(seeds).tolist()
    names = ", ".join(map(str, indices[:_MAX_LISTED]))
    more = f" and {len(indices) - _MAX_LISTED} more" if len(indices) > _MAX_LISTED else ""
    return f"{'seed' if len(indices) == 1 else 'seeds'} {names}{more}"


def _placed(carry: compiled.Carry, like: compiled.Carry, mesh: Mesh | None) -> compiled.Carry:
    """Returns a copy of a carry (whose memory will be reused), placed on devices like a carry of this run.

    Raises:
        ValueError: If the carry has another structure, other shapes or other dtypes than one of this run.
    """

    def signature(tree: compiled.Carry) -> object:
        return jax.tree.structure(tree), [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(tree)]

    if signature(carry) != signature(like):
        raise ValueError(
            "The run to start from is of another strategy or problem: their states differ in structure, shapes or "
            "dtypes. Leave out strategy and problem to go on with those of the result, or change only their numbers."
        )
    return jax.tree.map(lambda x, old: jnp.copy(x) if mesh is None else jax.device_put(x, old.sharding), carry, like)


def _limits(limits: compiled.Limits, batched: compiled.Batch) -> compiled.Limits:
    return compiled.Limits(*(np.asarray(x, np.int32).reshape(-1 if batched else ()) for x in limits))


def _status(log: Log, headline: str) -> str:
    if (log.scored < log.generations).all():
        return f"generation {log.generations.max()}"
    scores = [log.metrics(seed)[headline] for seed in range(len(log.generations))]
    return f"{headline} {np.mean(scores):.4g}, generation {log.generations.max()}"
