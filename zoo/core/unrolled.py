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

from zoo.core.evaluation import Aux, Evaluation, Groups, checked_aux, total_steps
from zoo.core.population import map_members, take_member
from zoo.core.problem import Problem, Statistics, check_groups, check_population_size, group_keys, number_groups
from zoo.core.sensitivity import Carried, Inner, Sensitivity
from zoo.core.settings import PytreeDataclass, leaf, static
from zoo.core.solution import Solution, check_solution
from zoo.core.surrogate import Surrogate, SurrogateGradient
from zoo.core.unroll import Place, Unroll, check_step, select, start, unroll


class Window(PytreeDataclass):
    """How an evaluation unrolls, as the groups asked for; part of the compiled program.

    Attributes:
        length: How many steps.
        sensitivity: How the derivative of the inner states is followed; `None`: it is not.
    """

    length: int = static(at_least=1)
    sensitivity: Sensitivity | None = leaf(default=None)


class UnrolledState(NamedTuple):
    """State of an unrolled problem.

    Attributes:
        window: The problem's window, or its horizon if the strategy asked for whole episodes; and the sensitivity.
        groups: `[population_size]` group of each member, numbered 0 to num_groups - 1.
        members: `[num_groups]` one member of each group, that carries its inner state.
        parents: `[population_size]` the member from whose inner state each member goes on; `None`: its own.
        statistics: See `Problem.init_statistics`.
        inner: `[population_size, ...]` inner states.
        time: `[population_size]` inner step each member is at.
        terminated: `[population_size]` whether the member's episode terminated before its horizon.
        carried: `[population_size, ...]` what is carried of the inner states' derivatives, if anything is.
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
    carried: Carried
    pending_steps: jax.Array

    @property
    def places(self) -> Place:
        """Where in their episodes the members are, `[population_size, ...]`."""
        return Place(self.inner, self.time, self.terminated, self.carried)


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

    def aux(self, inner: Inner) -> Aux:
        """Returns what there is to say of a member at the end of a window: arrays by name; by default nothing."""
        del inner
        return {}

    def init_aux(self, solution: Solution) -> Aux:
        """Returns zeros in the shapes of what there is to say of one member."""
        if type(self).aux is UnrolledProblem.aux:
            return {}
        aux = jax.eval_shape(lambda: checked_aux(self.aux(self.reset(jax.random.key(0)))))
        return {name: jnp.zeros(x.shape, x.dtype) for name, x in aux.items()}

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the objective of one full episode (or of one window from the start, without a horizon)."""
        loss = self.rollout(key, solution).loss
        return loss / (self.horizon or self._window) if self.objective == "mean" else loss

    def rollout(self, key: jax.Array, solution: Solution) -> Unroll:
        """Unrolls one full episode (one window, without a horizon) from a fresh start."""
        key_reset, key_steps = jax.random.split(key)
        length = self.horizon or self._window
        return self._unroll(key_steps, solution, start(self, key_reset, solution, None), length=length)

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
            TypeError: If the strategy asks for derivatives and the problem has none.
        """
        check_groups(groups, differentiable=self.differentiable)
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
        rule = groups.sensitivity
        places = problem._starts(group_keys(key_reset, num_groups), solution, rule)
        check_step(problem, solution, jax.tree.map(lambda x: x[0], places.inner))
        steps = jnp.zeros((), jnp.int32)
        if self._num_windows > 1 and num_groups > 1:
            phase = jnp.asarray(self._window * self._stagger(key_phase, num_groups), jnp.int32)

            def warm_up(k: jax.Array, phase: jax.Array, place: Place) -> Unroll:
                return problem._unroll(k, solution, place, length=phase, rule=rule)

            end = jax.vmap(warm_up)(group_keys(key_steps, num_groups), phase, places)
            steps = total_steps(end.steps)
            # Before the members of a group get copies of what it saw.
            statistics, inner = self.pool_statistics(statistics, end.inner)
            # A terminated group keeps its place in the clock.
            places = end.place._replace(inner=inner, time=phase)
        places = jax.tree.map(lambda x: x[group_of], places)
        window = Window(length=self._window, sensitivity=rule)
        return UnrolledState(window, group_of, members, parents, statistics, *places, pending_steps=steps)

    def surrogate_gradient(self, key: jax.Array, state: UnrolledState) -> Surrogate | None:
        """Returns the gradient of the next window's fitness, by backpropagation from each group's inner state."""
        if type(self).gradient is not Problem.gradient:
            return super().surrogate_gradient(key, state)
        if not self.differentiable:
            return None
        problem = self._as_started(state)

        def keys() -> jax.Array:
            return self._keys(key, state.members.shape[0])[0]

        def fitness(x: Solution, k: jax.Array, place: Place) -> jax.Array:
            return problem._scale * problem._unroll(k, x, place, length=problem._window).loss

        def gradient(solution: Solution) -> Solution:
            of_groups = jax.tree.map(lambda x: x[state.members], state.places)

            def mean_fitness(x: Solution) -> jax.Array:
                return jnp.mean(jax.vmap(fitness, in_axes=(None, 0, 0))(x, keys(), of_groups))

            return jax.grad(mean_fitness)(check_solution(solution))

        def members(population: Any) -> Any:
            parents = slice(None) if state.parents is None else state.parents
            of_members = jax.tree.map(lambda x: x[parents], state.places)
            arguments = (population, keys()[state.groups], of_members)
            return map_members(jax.grad(fitness), *arguments, batch_size=self.member_batch_size)

        return SurrogateGradient(gradient, members)

    def evaluate(self, key: jax.Array, population: Any, state: UnrolledState) -> tuple[Evaluation, UnrolledState]:
        """Unrolls every member by one window; see `Problem.evaluate`."""
        check_population_size(self, population, state.groups)
        problem = self._as_started(state)
        num_groups = state.members.shape[0]
        keys, reset_keys = self._keys(key, num_groups)
        rule, places = state.window.sensitivity, state.places
        if state.parents is not None:
            places = jax.tree.map(lambda x: x[state.parents], places)

        def unroll_one(solution: Solution, place: Place, key: jax.Array = keys[0]) -> Unroll:
            return problem._unroll(key, solution, place, length=problem._window, rule=rule)

        members = (places,) if num_groups == 1 else (places, keys[state.groups])
        end = map_members(unroll_one, population, *members, batch_size=self.member_batch_size)
        aux = jax.vmap(lambda inner: checked_aux(self.aux(inner)))(end.inner)
        # A terminated member's clock runs on, so that partners end together.
        time = state.time + problem._window
        done = jnp.zeros(time.shape, bool) if self.horizon is None else time >= self.horizon
        statistics, inner = self.pool_statistics(state.statistics, end.inner)
        places = end.place._replace(inner=inner, time=time)
        if self.horizon is not None:
            problem = problem.with_statistics(statistics)
            fresh = problem._starts(reset_keys, take_member(population, 0), rule)
            fresh = jax.tree.map(lambda x: x[state.groups], fresh)
            places = fresh if problem._num_windows == 1 else jax.vmap(select)(done, fresh, places)
        steps = total_steps(end.steps) + state.pending_steps
        gradient = None if rule is None else jax.tree.map(lambda g: g * problem._scale, end.gradient)
        evaluation = Evaluation(problem._scale * end.loss, done, steps, aux=aux, gradient=gradient)
        state = state._replace(**places._asdict(), statistics=statistics, pending_steps=jnp.zeros((), jnp.int32))
        return evaluation, state

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

    def _starts(self, keys: jax.Array, solution: Solution, rule: Sensitivity | None) -> Place:
        return jax.vmap(start, in_axes=(None, 0, None, None))(self, keys, solution, rule)

    def _unroll(
        self,
        key: jax.Array,
        solution: Solution,
        place: Place,
        *,
        length: int | jax.Array,
        rule: Sensitivity | None = None,
    ) -> Unroll:
        # Windows that tile the horizon end with it, so nobody pauses unless by terminating.
        pauses = self.horizon is not None and self.horizon % self._window != 0
        return unroll(self, key, solution, place, length=length, pauses=pauses, rule=rule)
