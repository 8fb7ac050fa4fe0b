"""Small problems, one of each family, that a strategy is run on."""

import jax
import jax.numpy as jnp

from zoo.core import Problem, UnrolledProblem, from_function, number, static
from zoo.registry import make_problem


class Decay(UnrolledProblem):
    """A small unrolled problem: x <- rate x + solution, with the loss (x - 1)^2 at every step."""

    horizon: int | None = static(default=6, at_least=1)
    window: int | None = static(default=2, at_least=1)
    rate: float = number(default=0.5)

    def initial_solution(self, key: jax.Array) -> dict[str, jax.Array]:
        """Returns no drive."""
        del key
        return {"drive": jnp.zeros(2)}

    def reset(self, key: jax.Array) -> jax.Array:
        """Draws a standard normal vector."""
        return jax.random.normal(key, (2,))

    def step(self, key: jax.Array, solution: dict[str, jax.Array], inner: jax.Array) -> tuple:
        """Applies the drive once."""
        del key
        inner = self.rate * inner + solution["drive"]
        return inner, jnp.sum((inner - 1) ** 2), jnp.asarray(False)


def _squares(x: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum(x["a"] ** 2) + x["b"] ** 2


def example_problems() -> dict[str, Problem]:
    """Returns a small problem of each family, by the name of the family.

    There is one that autodiff cannot differentiate, one with minibatches, and one with observation statistics.
    """
    return {
        "function": from_function(_squares, {"a": jnp.ones(3), "b": 2.0}),
        "blackbox": make_problem("blackbox/rastrigin", num_dims=3),
        "supervised": make_problem("supervised/digits", hidden=(4,), batch_size=8),
        "rl": make_problem("rl/CartPole-v1", hidden=(4,), horizon=20, normalize_observations=True),
        "unrolled": Decay(),
    }
