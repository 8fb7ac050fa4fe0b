"""UORO: unbiased online recurrent optimization, a rank-one estimate of the derivative of inner states.

A product of two vectors is carried forward in time. Its expectation is the derivative of the inner state with respect
to the solution. After each step, random signs reduce the propagated product and the derivative of the step to one
product again, with the same expectation. A step costs a few forward and backward passes, at any number of parameters.

Reference: Tallec, Ollivier 2018, "Unbiased online recurrent optimization", arXiv 1702.05043, algorithm 1. The loss and
the next inner state come from one step here, so that both are differentiated together.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Inner, Sensitivity, Solution
from zoo.core.promotion import times
from zoo.core.sensitivity import Step, float_leaves, of_floats
from zoo.strategies.gradient.forward import ForwardStrategy

_SMALL = 1e-7  # keeps the scales above zero (Tallec, Ollivier 2018, section 3.2)


class RankOneTerm(NamedTuple):
    """A product whose expectation is the derivative of the inner state with respect to the solution."""

    inner: list[jax.Array]  # s, in the shapes of the floating-point leaves of the inner state
    solution: Solution  # theta, in the structure of the solution


class RankOne(Sensitivity):
    """Carries a rank-one estimate of the derivative of the inner state; the derivative is its expectation."""

    def start(self, key: jax.Array, solution: Solution, inner: Inner) -> RankOneTerm:
        """Returns zeros: the inner state does not depend on the solution yet."""
        return RankOneTerm([jnp.zeros_like(x) for x in float_leaves(inner)], jax.tree.map(jnp.zeros_like, solution))

    def step(
        self, key: jax.Array, step: Step, time: jax.Array, solution: Solution, inner: Inner, carried: RankOneTerm
    ) -> tuple[tuple[Inner, jax.Array, Any], RankOneTerm, Solution]:
        """Takes one step, and reduces the estimate for the next inner state to rank one again, by random signs."""
        fn, floats = of_floats(step, inner), float_leaves(inner)
        (_, loss), pull, out = jax.vjp(fn, solution, floats, has_aux=True)
        by_solution, by_inner = pull(([jnp.zeros_like(x) for x in floats], jnp.ones_like(loss)))
        slope = _dot(by_inner, carried.inner)
        gradient = jax.tree.map(lambda g, theta: g + _scaled(slope, theta), by_solution, carried.solution)
        if not floats:
            return out, carried, gradient

        keys = jax.random.split(key, len(floats))
        signs = [jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, floats, strict=True)]
        _, (moved, _) = jax.jvp(lambda s: fn(solution, s)[0], (floats,), (carried.inner,))
        pulled, _ = pull((signs, jnp.zeros_like(loss)))
        # The scales minimise the variance: they give the factors of each term equal norms.
        old = jnp.sqrt(_norm(carried.solution) / (_norm(moved) + _SMALL)) + _SMALL
        new = jnp.sqrt(_norm(pulled) / (_norm(signs) + _SMALL)) + _SMALL
        return (
            out,
            RankOneTerm(
                inner=[_scaled(old, s) + _scaled(new, sign) for s, sign in zip(moved, signs, strict=True)],
                solution=jax.tree.map(lambda a, b: _scaled(1 / old, a) + _scaled(1 / new, b), carried.solution, pulled),
            ),
            gradient,
        )


class UORO(ForwardStrategy):
    """Unbiased online recurrent optimization: a few passes through each step, for any number of parameters.

    Unbiased while the solution does not change. The variance grows with the size of the inner state.

    References:
        Tallec, Ollivier 2018, arXiv 1702.05043.
    """

    @property
    def sensitivity(self) -> RankOne:
        """A rank-one estimate of the derivative."""
        return RankOne()


def _scaled(factor: jax.Array, x: jax.Array) -> jax.Array:
    return times(factor, x).astype(x.dtype)


def _dot(a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
    dots = [jnp.sum((x * y).astype(float)) for x, y in zip(a, b, strict=True)]
    return jnp.sum(jnp.stack(dots)) if dots else jnp.zeros(())


def _norm(tree: Any) -> jax.Array:
    leaves = jax.tree.leaves(tree)
    return jnp.sqrt(_dot(leaves, leaves))
