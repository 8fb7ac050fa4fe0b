"""Follows the derivative of an inner state with respect to the solution, step by step along an unrolled episode."""

import abc
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from zoo.core.settings import PytreeDataclass
from zoo.core.solution import Solution

Inner = Any
"""Inner state of one member: a pytree of arrays."""
Carried = Any
"""The derivative of an inner state in the form that a `Sensitivity` stores: a pytree of arrays."""
Step = Callable[[Solution, Inner], tuple[Inner, jax.Array, Any]]
"""One step of an episode: maps solution and inner state to the next inner state, the loss, and further results."""

T = TypeVar("T")


class Sensitivity(PytreeDataclass, abc.ABC):
    """A rule that carries the derivative of an inner state with respect to the solution, exactly or as an estimate.

    A strategy that descends such derivatives names its rule in `Strategy.groups`. The problem then carries the
    derivative along with each member's inner state, from the start of the member's episode, and reports
    `Evaluation.gradient`. A subclass must be hashable, so all its settings are static.
    """

    @abc.abstractmethod
    def start(self, key: jax.Array, solution: Solution, inner: Inner) -> Carried:
        """Returns the carried derivative at the start of an episode, where `inner` does not depend on the solution."""

    @abc.abstractmethod
    def step(
        self, key: jax.Array, step: Step, time: jax.Array, solution: Solution, inner: Inner, carried: Carried
    ) -> tuple[tuple[Inner, jax.Array, Any], Carried, Solution]:
        """Takes one step of the episode.

        Args:
            key: JAX random key of this step.
            step: The step. A rule may differentiate it.
            time: The number of earlier steps in the episode.
            solution: The solution.
            inner: The inner state.
            carried: The carried derivative.

        Returns:
            The result of `step`, the new carried derivative, and the gradient of this step: an estimate of the
            derivative of its loss with respect to the solution, in the structure of the solution.
        """


def gradient_of_step(
    rule: Sensitivity, key: jax.Array, fn: Callable[[jax.Array, Solution], tuple[jax.Array, T]], solution: Solution
) -> tuple[jax.Array, T, Solution]:
    """Returns the loss of an episode of one step, the further result of `fn`, and the rule's estimate of the gradient.

    Args:
        rule: The rule.
        key: JAX random key.
        fn: `fn(key, solution)` returns the loss and a further result.
        solution: The solution.
    """

    def step(solution: Solution, inner: Inner) -> tuple[Inner, jax.Array, T]:
        return inner, *fn(key, solution)

    carried = rule.start(jax.random.fold_in(key, 1), solution, ())
    time = jnp.zeros((), jnp.int32)
    (_, loss, rest), _, gradient = rule.step(jax.random.fold_in(key, 2), step, time, solution, (), carried)
    return loss, rest, gradient


def float_leaves(tree: Any) -> list[jax.Array]:
    """Returns the floating-point leaves of a pytree. Only these leaves of an inner state can be differentiated."""
    return [x for x in jax.tree.leaves(tree) if _is_float(x)]


def _with_float_leaves(tree: T, floats: list[jax.Array]) -> T:
    """Returns the pytree with its floating-point leaves replaced."""
    replacements = iter(floats)
    return jax.tree.map(lambda x: next(replacements) if _is_float(x) else x, tree)


def of_floats(step: Step, inner: Inner) -> Callable[..., tuple[tuple[list[jax.Array], jax.Array], Any]]:
    """Returns a step as a function that can be differentiated.

    Returns:
        A function of a solution and the floating-point leaves of the inner state. Its first result is the
        floating-point leaves of the next inner state and the loss. Its second result is the full result of `step`.
    """

    def differentiable(solution: Solution, floats: list[jax.Array]) -> tuple[tuple[list[jax.Array], jax.Array], Any]:
        out = step(solution, _with_float_leaves(inner, floats))
        return (float_leaves(out[0]), out[1]), out

    return differentiable


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)
