"""Unrolled problems whose inner episode trains a model with an optimizer that the solution defines."""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Problem, Solution, UnrolledProblem, leaf, number, static
from zoo.core.checks import as_scalar
from zoo.core.keys import check_seed
from zoo.core.settings import is_rebuilt
from zoo.problems.supervised.classification import Classification
from zoo.registry import make_problem


class InnerTrainingState(NamedTuple):
    """Inner state: a model in training."""

    params: Any
    optimizer_state: Any
    time: jax.Array  # [] steps taken
    data_seed: jax.Array  # [] seed of the batch order


class InnerTraining(UnrolledProblem):
    """Base of problems in which the solution defines an optimizer and the inner episode is a training run with it.

    A subclass implements `initial_solution`, `init_optimizer` and `update`.

    Attributes:
        task: Problem of the inner model, whose fitness must have a gradient. It is a problem, the id of a supervised
            problem, or a dictionary of such an id and settings. A task by id is made with `hidden`, `activation` and
            `batch_size`.
        hidden: Units of each hidden layer of the inner model.
        activation: Activation of the inner model.
        batch_size: Training examples per inner step.
        outer_task: Problem whose fitness at the model after a step is the loss of the step. With `None`, the loss is
            the training loss of the model before the step.
        held_out: Fraction of the training data that a task by id keeps for the outer task, in [0, 1). With 0, holds out
            no data.
        seed: Seed of the inner model's initialisation and of the batch order, the same in every episode. With `None`,
            every episode has its own. The score always uses fresh ones.
    """

    task: str | Mapping[str, Any] | Problem = leaf(default="supervised/digits")
    hidden: tuple[int, ...] = static(default=(32,), at_least=1)
    activation: str = static(default="relu")
    batch_size: int = static(default=128, at_least=1)
    outer_task: Problem | None = leaf(default=None)
    held_out: float = number(default=0.0, at_least=0)
    seed: int | None = static(default=0, at_least=0)
    num_score_episodes: int = static(default=4, at_least=1)

    def __post_init__(self) -> None:
        """Makes the task if it is given by its id."""
        super().__post_init__()
        name = type(self).__name__
        if self.seed is not None:
            check_seed(self.seed, f"{name}.seed")
        if not isinstance(self.task, (str, Mapping)) or (isinstance(self.task, Mapping) and is_rebuilt()):
            return
        spec = {"id": self.task} if isinstance(self.task, str) else self.task
        of_model = {"hidden": self.hidden, "activation": self.activation, "batch_size": self.batch_size}
        task = make_problem({**of_model, **spec})
        if not isinstance(task, Classification):
            raise TypeError(
                f"{name}.task must be a problem or the id of a supervised problem, got {self.task!r}. Pass other "
                "problems as instances."
            )
        if self.outer_task is None and (not isinstance(self.held_out, float) or self.held_out):
            task, outer = task.hold_out(as_scalar(self.held_out, f"{name}.held_out"))
            object.__setattr__(self, "outer_task", outer)
        object.__setattr__(self, "task", task)

    @abc.abstractmethod
    def init_optimizer(self, params: Any) -> Any:
        """Returns the optimizer's initial state for the inner model's parameters."""

    @abc.abstractmethod
    def update(self, solution: Solution, gradient: Any, state: InnerTrainingState) -> tuple[Any, Any]:
        """Returns the inner model's new parameters and the optimizer's new state."""

    @property
    def differentiable(self) -> bool:
        """Whether the task and the outer task have gradients, so that the objective can be differentiated."""
        return self._task.differentiable and (self.outer_task is None or self.outer_task.differentiable)

    def reset(self, key: jax.Array) -> InnerTrainingState:
        """Returns a freshly initialised model."""
        if self.seed is not None:
            key = jax.random.key(self.seed)
        key_params, key_data = jax.random.split(key)
        params = self._task.initial_solution(key_params)
        data_seed = jax.random.randint(key_data, (), 0, jnp.iinfo(jnp.int32).max)
        return InnerTrainingState(params, self.init_optimizer(params), jnp.zeros((), jnp.int32), data_seed)

    def step(
        self, key: jax.Array, solution: Solution, inner: InnerTrainingState
    ) -> tuple[InnerTrainingState, jax.Array, bool]:
        """Takes one training step."""
        key_batch, key_outer = jax.random.split(jax.random.fold_in(jax.random.key(inner.data_seed), inner.time))
        loss, gradient = jax.value_and_grad(lambda p: self._task.fitness(key_batch, p))(inner.params)
        params, optimizer_state = self.update(solution, gradient, inner)
        if self.outer_task is not None:
            loss = self.outer_task.fitness(key_outer, params)
        inner = inner._replace(params=params, optimizer_state=optimizer_state, time=inner.time + 1)
        return inner, loss, False

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns the mean objective and final scores of the inner model, over fresh models and batch orders."""
        problem = self.replace(seed=None)

        def train(key: jax.Array) -> dict[str, jax.Array]:
            end = problem.rollout(key, solution)
            objective = end.loss / (self.horizon or self._window) if self.objective == "mean" else end.loss
            final = self._task.score(key, end.inner.params)
            return {"objective": objective, **{f"final_{name}": value for name, value in final.items()}}

        scores = jax.lax.map(train, jax.random.split(key, self.num_score_episodes))
        return {name: jnp.mean(values) for name, values in scores.items()}

    @property
    def _task(self) -> Problem:
        if isinstance(self.task, (str, Mapping)):
            raise TypeError(f"{type(self).__name__}.task must be a problem, got an id that no problem was made of.")
        return self.task
