"""Problems that are unrolled over the steps of an inner episode: dynamical systems, inner optimisation, control.

An author writes `reset` and `step` for one solution. The library unrolls a window of steps per evaluation, pauses a
terminated member until the end of its episode, and resets the members of a group together. It staggers the phases of
the groups, so that online strategies (PES, NRES) see every part of an episode in every generation (Vicol et al. 2021,
arXiv 2112.13835, section 4; Li et al. 2023, arXiv 2304.12180, "step-unlocked workers").
"""

import abc
from typing import Any, Literal

import jax
import jax.numpy as jnp

from zoo.core.evaluation import Aux, Evaluation, Groups, zeros_of_aux
from zoo.core.grouping import check_groups
from zoo.core.problem import Problem, Statistics
from zoo.core.sensitivity import Inner
from zoo.core.settings import static
from zoo.core.solution import Solution
from zoo.core.surrogate import Surrogate
from zoo.core.unroll import Unroll, start
from zoo.core.windows import UnrolledState, evaluate_window, start_members, unroll_window, window_gradient


class UnrolledProblem(Problem):
    """A problem whose loss is spread over an inner episode.

    A subclass implements `initial_solution`, `reset` and `step`. One evaluation unrolls `window` steps. The fitness of
    a window is scaled so that its mean over uniformly distributed phases is the objective of the full episode. After
    `horizon` steps a group is reset, and `Evaluation.done` is true for its members.

    Attributes:
        horizon: Steps of an episode (T), or `None` for an episode that never ends.
        window: Steps per evaluation (W). Defaults to the full episode.
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
        for setting in ("horizon", "window"):  # an author who declares it again may omit the bound
            if getattr(self, setting) is not None and getattr(self, setting) < 1:
                raise ValueError(f"{name}.{setting} must be at least 1, got {getattr(self, setting)}.")
        if self.horizon is None and self.window is None:
            raise ValueError(f"{name} has no horizon, so it needs a window: pass window=<steps per evaluation>.")
        if self.horizon is not None and self.window is not None and self.window > self.horizon:
            raise ValueError(f"{name}.window must be at most its horizon {self.horizon}, got {self.window}.")

    @abc.abstractmethod
    def reset(self, key: jax.Array) -> Inner:
        """Returns the initial inner state of an episode."""

    @abc.abstractmethod
    def step(self, key: jax.Array, solution: Solution, inner: Inner) -> tuple[Inner, jax.Array, jax.Array | bool]:
        """Advances the inner state by one step.

        Returns:
            The new inner state, the scalar loss of the step, and whether the episode terminated with it. If it never
            terminates, return a plain `False`, so that the library need not check for it.
        """

    def step_cost(self, inner: Inner) -> jax.Array | int:
        """Returns how many problem steps `step` takes from this inner state. If always the same, return an integer."""
        del inner
        return 1

    def pool_statistics(self, statistics: Statistics, inner: Inner) -> tuple[Statistics, Inner]:
        """Moves the values that members accumulated in their inner states during a window into the shared statistics.

        Args:
            statistics: The statistics so far.
            inner: `[population_size, ...]` inner states after the window.

        Returns:
            The new statistics and the new inner states.
        """
        return statistics, inner

    def aux(self, inner: Inner) -> Aux:
        """Returns further arrays of a member by name, at the end of a window. By default there are none."""
        del inner
        return {}

    def init_aux(self, solution: Solution) -> Aux:
        """Returns zeros in the shapes of the further arrays of one member."""
        if type(self).aux is UnrolledProblem.aux:
            return {}
        return zeros_of_aux(lambda: self.aux(self.reset(jax.random.key(0))))

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the objective of one full episode. Without a horizon, of one window from the start."""
        loss = self.rollout(key, solution).loss
        return loss / (self.horizon or self._window) if self.objective == "mean" else loss

    def rollout(self, key: jax.Array, solution: Solution) -> Unroll:
        """Unrolls one full episode from a new start. Without a horizon, unrolls one window."""
        key_reset, key_steps = jax.random.split(key)
        length = self.horizon or self._window
        return unroll_window(self, key_steps, solution, start(self, key_reset, solution, None), length=length)

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns the mean objective of the solution over held-out full episodes."""
        keys = jax.random.split(key, self.num_score_episodes)
        return {"objective": jnp.mean(jax.vmap(lambda k: self.fitness(k, solution))(keys))}

    def init(self, key: jax.Array, groups: Groups, solution: Solution) -> UnrolledState:
        """Returns the initial state, with the groups' phases staggered uniformly over the windows of an episode.

        A group at phase p was unrolled for p windows from its reset, with the initial solution. The first evaluation
        counts the steps that this takes. A single group starts at the beginning of its episode.

        Args:
            key: JAX random key.
            groups: `Strategy.groups`.
            solution: The initial solution.

        Raises:
            ValueError: If the strategy requires whole episodes and the problem has no horizon.
            TypeError: If the strategy requires derivatives and the problem has none.
        """
        check_groups(groups, differentiable=self.differentiable)
        if groups.whole_episodes and self.horizon is None:
            raise ValueError(
                f"The strategy evaluates whole episodes, and {type(self).__name__} has no horizon: its episode never "
                "ends. Use an online strategy (nres, pes, tes, tbptt), or give the problem a horizon."
            )
        if groups.whole_episodes and self._num_windows > 1:
            return self.replace(window=None).init(key, groups, solution)
        return start_members(self, key, groups, solution)

    def surrogate_gradient(self, key: jax.Array, state: UnrolledState) -> Surrogate | None:
        """Returns the gradient of the next window's fitness, by backpropagation from each group's inner state."""
        if type(self).gradient is not Problem.gradient:
            return super().surrogate_gradient(key, state)
        return window_gradient(self, key, state) if self.differentiable else None

    def evaluate(self, key: jax.Array, population: Any, state: UnrolledState) -> tuple[Evaluation, UnrolledState]:
        """Unrolls every member by one window; see `Problem.evaluate`."""
        return evaluate_window(self, key, population, state)

    @property
    def _window(self) -> int:
        return self.window or self.horizon or 0  # __post_init__ checks that one of them is given

    @property
    def _num_windows(self) -> int:
        return 1 if self.horizon is None else -(-self.horizon // self._window)
