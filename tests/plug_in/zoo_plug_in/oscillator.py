"""Bring a damped oscillator to rest."""

import jax
import jax.numpy as jnp

import zoo


class Oscillator(zoo.UnrolledProblem):
    """Bring a damped oscillator to rest: the solution is a feedback gain on position and velocity.

    Attributes:
        damping: Force per velocity that slows the oscillator down.
    """

    horizon: int | None = zoo.static(50, at_least=1)
    window: int | None = zoo.static(10, at_least=1)
    damping: float = zoo.number(0.1, at_least=0)

    def initial_solution(self, key: jax.Array) -> jax.Array:
        """Returns no feedback."""
        return jnp.zeros(2)

    def reset(self, key: jax.Array) -> jax.Array:
        """Draws a position and a velocity."""
        return jax.random.normal(key, (2,))

    def step(self, key: jax.Array, solution: jax.Array, inner: jax.Array):
        """Moves the oscillator by 0.1 time units; its energy is the loss."""
        position, velocity = inner
        velocity = velocity + 0.1 * (-position - self.damping * velocity + solution @ inner)
        inner = jnp.array([position + 0.1 * velocity, velocity])
        return inner, jnp.sum(inner**2), False
