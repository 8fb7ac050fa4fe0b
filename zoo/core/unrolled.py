"""Problems that are unrolled over the steps of an inner episode: dynamical systems, inner optimisation, control.

An author writes `reset` and `step` for one solution. The library unrolls a window of steps per evaluation, pauses a
terminated member until its episode's end, resets groups together, and staggers the groups' phases, so that online
strategies (PES, NRES) see every part of an episode in every generation (Vicol et al. 2021, arXiv 2112.13835, section 4;
Li et al. 2023, arXiv 2304.12180, "step-unlocked workers").
"""

import abc
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.evaluation import Evaluation, Groups
from zoo.core.population import map_members
from zoo.core.problem import Problem, Statistics, check_groups, check_population_size, group_keys, number_groups
from zoo.core.settings import PytreeDataclass, static
from zoo.core.solution import Solution, check_solution
from zoo.core.surrogate import Surrogate, SurrogateGradient

Inner = Any
"""Inner state of one member: a pytree of arrays."""


class Window(PytreeDataclass):
    """How many steps an evaluation unrolls; static, so part of the compiled program."""

    length: int = static(at_least=1)


class UnrolledState(NamedTuple):
    """State of an unrolled problem.

    Attributes:
        window: The problem's window, or its horizon if the strategy asked for whole episodes.
        groups: `[population_size]` group of each member, numbered 0 to num_groups - 1.
        members: `[num_groups]` one member of each group, that carries its inner state.
        parents: `[population_size]` the member from whose inner state each member goes on; `None`: its own.
        statistics: See `Problem.init_statistics`.
        inner: `[population_size, ...]` inner states.
        time: `[population_size]` inner step each member is at.
        terminated: `[population_size]` whether the member's episode terminated before its horizon.
        pending_steps: Scalar: steps spent on staggering that no evaluation has counted yet.
    """

    window: Window
    groups: jax.Array
    members: jax.Array
    parents: jax.Array | None
    statistics: Statistics
    inner: Inner
    time: jax.Array
    terminated: jax.Array
    pending_steps: jax.Array


class Unroll(NamedTuple):
    """Where an unroll of one member ended."""

    inner: Inner
    time: jax.Array
    terminated: jax.Array
    loss: jax.Array  # sum over the steps taken
    steps: jax.Array


class UnrolledProblem(Problem):
    """A problem whose loss is spread over an inner episode.

    A subclass implements `initial_solution`, `reset` and `step`. One evaluation unrolls `window` steps; the fitness of
    a window is scaled so that its mean over uniformly distributed phases is the objective of the full episode. After
    `horizon` steps a group is reset and `Evaluation.done` is true for its members.

    Attributes:
        horizon: Steps of an episode (T), or `None` for an episode that never ends.
        window: Steps per evaluation (W); default: the full episode.
        objective: Whether the objective is the `"mean"` or the `"sum"` of the losses of an episode.
        num_score_episodes: Held-out episodes per score.
    """

    horizon: int | None = static(at_least=1)
    window: int | None = static(default=None, at_least=1)
    objective: Literal["mean", "sum"] = static(default="mean")
    num_score_episodes: int = static(default=32, at_least=1)

    headline = "objective"

    def __post_init__(self) -> None:
        """Checks the settings against each other."""
        super().__post_init__()
        name = type(self).__name__
        if self.objective not in ("mean", "sum"):
            raise ValueError(f"{name}.objective must be 'mean' or 'sum', got {self.objective!r}.")
        for setting in ("horizon", "window"):  # an author's own declaration may have lost the bound
            if getattr(self, setting) is not None and getattr(self, setting) < 1:
                raise ValueError(f"{name}.{setting} must be at least 1, got {getattr(self, setting)}.")
        if self.horizon is None and self.window is None:
            raise ValueError(f"{name} has no horizon, so it needs a window: pass window=<steps per evaluation>.")
        if self.horizon is not None and self.window is not None and self.window > self.horizon:
            raise ValueError(f"{name}.window must be at most its horizon {self.horizon}, got {self.window}.")

    @abc.abstractmethod
    def reset(self, key: jax.Array) -> Inner:
        """Returns the inner state an episode starts from."""

    @abc.abstractmethod
    def step(self, key: jax.Array, solution: Solution, inner: Inner) -> tuple[Inner, jax.Array, jax.Array | bool]:
        """Advances the inner state by one step.

        Returns:
            The new inner state, the scalar loss of the step, and whether the episode terminated with it; a plain
            `False` where it never does, which spares the library from watching for it.
        """

    def step_cost(self, inner: Inner) -> jax.Array | int:
        """Returns how many problem steps `step` spends from this inner state: an integer if that is always the same."""
        del inner
        return 1

    def pool_statistics(self, statistics: Statistics, inner: Inner) -> tuple[Statistics, Inner]:
        """Moves what the members accumulated in their inner states during a window into the shared statistics.

        Args:
            statistics: The statistics so far.
            inner: `[population_size, ...]` inner states after the window.
        """
        return statistics, inner

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the objective of one full episode (or of one window from the start, without a horizon)."""
        loss = self.rollout(key, solution).loss
        return loss / (self.horizon or self._window) if self.objective == "mean" else loss

    def rollout(self, key: jax.Array, solution: Solution) -> "Unroll":
        """Unrolls one full episode (one window, without a horizon) from a fresh start."""
        key_reset, key_steps = jax.random.split(key)
        length = self.horizon or self._window
        return self._unroll(key_steps, solution, *self._start(key_reset), length=length)

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns the mean full-episode objective of the solution over held-out starts."""
        keys = jax.random.split(key, self.num_score_episodes)
        return {"objective": jnp.mean(jax.vmap(lambda k: self.fitness(k, solution))(keys))}

    def init(self, key: jax.Array, groups: Groups, solution: Solution) -> UnrolledState:
        """Returns the initial state, the groups' phases staggered uniformly over an episode's windows.

        A group at phase p was unrolled for p windows from its reset with the initial solution; the steps this costs
        are counted by the first evaluation. A single group starts at the beginning.

        Args:
            key: JAX random key.
            groups: `Strategy.groups`.
            solution: The initial solution.

        Raises:
            ValueError: If the strategy asks for whole episodes and the problem has no horizon.
        """
        check_groups(groups)
        if groups.whole_episodes and self.horizon is None:
            raise ValueError(
                f"The strategy evaluates whole episodes, and {type(self).__name__} has no horizon: its episode never "
                "ends. Use an online strategy (nres, pes, tes, tbptt), or give the problem a horizon."
            )
        if groups.whole_episodes and self._num_windows > 1:
            return self.replace(window=None).init(key, groups, solution)
        group_of, members = number_groups(groups)
        parents = None if groups.parents is None else jnp.asarray(groups.parents, jnp.int32)
        solution = check_solution(solution)
        key_phase, key_reset, key_steps = jax.random.split(key, 3)
        statistics = self.init_statistics()
        problem = self.with_statistics(statistics)
        num_groups = members.shape[0]
        inner, time, terminated = jax.vmap(problem._start)(group_keys(key_reset, num_groups))
        problem._check_step(solution, jax.tree.map(lambda x: x[0], inner))
        steps = jnp.zeros((), jnp.int32)
        if self._num_windows > 1 and num_groups > 1:
            phase = jnp.asarray(self._window * self._stagger(key_phase, num_groups), jnp.int32)

            def warm_up(k: jax.Array, phase: jax.Array, *start: Any) -> Unroll:
                return problem._unroll(k, solution, *start, length=phase)

            end = jax.vmap(warm_up)(group_keys(key_steps, num_groups), phase, inner, time, terminated)
            # A terminated group keeps its place in the clock.
            inner, time, terminated, steps = end.inner, phase, end.terminated, jnp.sum(end.steps, dtype=jnp.int32)
            # Before the members of a group get copies of what it saw.
            statistics, inner = self.pool_statistics(statistics, inner)
        inner, time, terminated = jax.tree.map(lambda x: x[group_of], (inner, time, terminated))
        return UnrolledState(
            Window(length=self._window), group_of, members, parents, statistics, inner, time, terminated, steps
        )

    def surrogate_gradient(self, key: jax.Array, state: UnrolledState) -> Surrogate | None:
        """Returns the gradient of the next window's fitness, by backpropagation from each group's inner state."""
        if type(self).gradient is not Problem.gradient:
            return super().surrogate_gradient(key, state)
        if not self.differentiable:
            return None
        problem = self._as_started(state)

        starts = (state.inner, state.time, state.terminated)

        def keys() -> jax.Array:
            return self._keys(key, state.members.shape[0])[0]

        def fitness(x: Solution, k: jax.Array, *start: Any) -> jax.Array:
            return problem._scale * problem._unroll(k, x, *start, length=problem._window).loss

        def gradient(solution: Solution) -> Solution:
            of_groups = jax.tree.map(lambda x: x[state.members], starts)

            def mean_fitness(x: Solution) -> jax.Array:
                return jnp.mean(jax.vmap(fitness, in_axes=(None, 0, 0, 0, 0))(x, keys(), *of_groups))

            return jax.grad(mean_fitness)(check_solution(solution))

        def members(population: Any) -> Any:
            parents = slice(None) if state.parents is None else state.parents
            of_members = jax.tree.map(lambda x: x[parents], starts)
            arguments = (population, keys()[state.groups], *of_members)
            return map_members(jax.grad(fitness), *arguments, batch_size=self.member_batch_size)

        return SurrogateGradient(gradient, members)

    def evaluate(self, key: jax.Array, population: Any, state: UnrolledState) -> tuple[Evaluation, UnrolledState]:
        """Unrolls every member by one window; see `Problem.evaluate`."""
        check_population_size(self, population, state.groups)
        problem = self._as_started(state)
        num_groups = state.members.shape[0]
        keys, reset_keys = self._keys(key, num_groups)
        starts = (state.inner, state.time, state.terminated)
        if state.parents is not None:
            starts = jax.tree.map(lambda x: x[state.parents], starts)

        def unroll(solution: Solution, *arguments: Any) -> Unroll:
            key, *start = arguments if num_groups > 1 else (keys[0], *arguments)
            return problem._unroll(key, solution, *start, length=problem._window)

        members = (*starts,) if num_groups == 1 else (keys[state.groups], *starts)
        end = map_members(unroll, population, *members, batch_size=self.member_batch_size)
        # A terminated member's clock runs on, so that partners end together.
        time = state.time + problem._window
        done = jnp.zeros(time.shape, bool) if self.horizon is None else time >= self.horizon
        statistics, inner = self.pool_statistics(state.statistics, end.inner)
        if self.horizon is not None:
            problem = problem.with_statistics(statistics)
            fresh = jax.vmap(problem._start)(reset_keys)
            fresh = jax.tree.map(lambda x: x[state.groups], fresh)
            current = (inner, time, end.terminated)
            inner, time, terminated = fresh if problem._num_windows == 1 else jax.vmap(_select)(done, fresh, current)
        else:
            terminated = end.terminated
        steps = jnp.sum(end.steps, dtype=jnp.int32) + state.pending_steps
        evaluation = Evaluation(problem._scale * end.loss, done, steps)
        return evaluation, state._replace(
            statistics=statistics, inner=inner, time=time, terminated=terminated, pending_steps=jnp.zeros((), jnp.int32)
        )

    @staticmethod
    def _keys(key: jax.Array, num_groups: int) -> jax.Array:
        """Returns `[2, num_groups]` keys of an evaluation: to step, and to reset."""
        # Together, since each derivation of keys takes a tenth of a second to compile.
        return jax.vmap(group_keys, in_axes=(0, None))(group_keys(key, 2), num_groups)

    def _stagger(self, key: jax.Array, num_groups: int) -> jax.Array:
        """Returns the window of the episode that each group begins in: evenly spread from a random one, shuffled."""
        key_offset, key_order = jax.random.split(key)
        even = np.arange(num_groups) * self._num_windows // num_groups
        offset = jax.random.randint(key_offset, (), 0, self._num_windows)
        return jax.random.permutation(key_order, (jnp.asarray(even) + offset) % self._num_windows)

    def _as_started(self, state: UnrolledState) -> Self:
        """Returns the problem with the statistics of a state, and the window that it was started with."""
        problem = self.with_statistics(state.statistics)
        return problem if state.window.length == self._window else problem.replace(window=state.window.length)

    @property
    def _window(self) -> int:
        return self.window or self.horizon or 0  # __post_init__ saw to it that one is given

    @property
    def _num_windows(self) -> int:
        return 1 if self.horizon is None else -(-self.horizon // self._window)

    @property
    def _scale(self) -> float:
        # Mean over the n phases of scale * (loss of the phase's window) = objective of the episode.
        if self.horizon is None:
            return 1.0 / self._window if self.objective == "mean" else 1.0
        return self._num_windows / self.horizon if self.objective == "mean" else float(self._num_windows)

    def _start(self, key: jax.Array) -> tuple[Inner, jax.Array, jax.Array]:
        """Returns inner state, time and terminated flag at the start of an episode."""
        inner = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), self.reset(key))
        return inner, jnp.zeros((), jnp.int32), jnp.zeros((), bool)

    def _unroll(
        self,
        key: jax.Array,
        solution: Solution,
        inner: Inner,
        time: jax.Array,
        terminated: jax.Array,
        *,
        length: int | jax.Array,
    ) -> Unroll:
        """Unrolls one member by `length` steps; it pauses once it terminated or reached the horizon."""
        loss_dtype, terminates = self._probe_step(key, solution, inner)
        # Windows that tile the horizon end with it, so nobody pauses unless by terminating.
        pauses = terminates or (self.horizon is not None and self.horizon % self._window != 0)

        def is_active(carry: Unroll) -> jax.Array:
            within = True if self.horizon is None else carry.time < self.horizon
            return jnp.logical_and(~carry.terminated, within)

        def advance(i: jax.Array, carry: Unroll) -> Unroll:
            inner, loss, terminated = self.step(jax.random.fold_in(key, i), solution, carry.inner)
            cost = self.step_cost(carry.inner)
            steps = carry.steps if isinstance(cost, int) else carry.steps + cost.astype(jnp.int32)
            loss = carry.loss + loss
            if not pauses:
                return carry._replace(inner=inner, loss=loss, steps=steps)
            advanced = Unroll(inner, carry.time + 1, jnp.asarray(terminated, bool), loss, steps)
            return _select(is_active(carry), advanced, carry)

        start = Unroll(inner, time, terminated, jnp.zeros((), loss_dtype), jnp.zeros((), jnp.int32))
        if not pauses:
            end = jax.lax.fori_loop(0, length, advance, start)
            end = end._replace(time=time + length)
        elif self.differentiable and isinstance(length, int):  # reverse mode needs a fixed number of steps
            end = jax.lax.fori_loop(0, length, advance, start)
        else:  # stop as soon as nobody is active
            _, end = jax.lax.while_loop(
                lambda loop: (loop[0] < length) & is_active(loop[1]),
                lambda loop: (loop[0] + 1, advance(*loop)),
                (jnp.zeros((), jnp.int32), start),
            )
        cost = self.step_cost(inner)
        # A constant cost need not be counted in the loop: the clock says how many steps were taken.
        return end._replace(steps=(end.time - time) * cost) if isinstance(cost, int) else end

    def _probe_step(self, key: jax.Array, solution: Solution, inner: Inner) -> tuple[Any, bool]:
        """Returns the dtype of a step's loss, and whether a step may terminate the episode."""
        never = []

        def probe(*arguments: Any) -> Any:
            result = self.step(*arguments)
            never.append(result[2] is False)
            return result

        return jax.eval_shape(probe, key, solution, inner)[1].dtype, not never[0]

    def _check_step(self, solution: Solution, inner: Inner) -> None:
        """Says at trace time what is wrong with `step`."""
        result = jax.eval_shape(self.step, jax.random.key(0), solution, inner)
        name = f"{type(self).__name__}.step"
        if not isinstance(result, tuple) or len(result) != 3:
            raise TypeError(f"{name} must return (inner, loss, terminated), got {type(result).__name__}.")
        new_inner, loss, terminated = result

        def signature(tree: Any) -> Any:
            leaves, structure = jax.tree.flatten(tree)
            return structure, [(tuple(jnp.shape(x)), jnp.result_type(x)) for x in leaves]

        if signature(new_inner) != signature(inner):
            raise TypeError(
                f"{name} must return an inner state of the structure, shapes and dtypes that `reset` returns: expected "
                f"{signature(inner)}, got {signature(new_inner)}."
            )
        if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise TypeError(f"{name} must return a scalar floating-point loss, got {loss.dtype}{list(loss.shape)}.")
        if terminated.shape != () or terminated.dtype != bool:
            raise TypeError(
                f"{name} must return a scalar boolean `terminated`, got {terminated.dtype}{list(terminated.shape)}."
            )


def _select(predicate: jax.Array, on_true: Any, on_false: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(predicate, a, b), on_true, on_false)
