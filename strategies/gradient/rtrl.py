"""RTRL: real-time recurrent learning, the exact derivative of inner states, for few parameters.

The Jacobian of the inner state with respect to the solution is carried forward in time, and multiplied by the Jacobian
of each step. The gradient of each step's loss, through the whole episode so far, is then known at once. It takes the
time and the memory of `num_dims` unrolls.

Reference: Williams, Zipser 1989, "A learning algorithm for continually running fully recurrent neural networks", doi
10.1162/neco.1989.1.2.270. The paper writes out the derivatives of a recurrent network. Here forward-mode
differentiation gives the derivatives of any step.
"""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.core import Inner, Sensitivity, Solution, num_dims
from zoo.core.promotion import ravel
from zoo.core.sensitivity import Step, float_leaves, of_floats
from zoo.strategies.gradient.forward import ForwardStrategy


class Jacobian(Sensitivity):
    """Carries the whole Jacobian of the inner state with respect to the solution from step to step.

    It is stored as one tangent, the derivative of the whole inner state, for each number in the solution.
    """

    def start(self, key: jax.Array, solution: Solution, inner: Inner) -> list[jax.Array]:
        """Returns zeros, `[num_dims, ...]` for each floating-point leaf of the inner state."""
        return [jnp.zeros((num_dims(solution), *x.shape), x.dtype) for x in float_leaves(inner)]

    def step(
        self, key: jax.Array, step: Step, time: jax.Array, solution: Solution, inner: Inner, carried: list[jax.Array]
    ) -> tuple[tuple[Inner, jax.Array, Any], list[jax.Array], Solution]:
        """Takes one step, and multiplies the Jacobian by the Jacobian of the step."""
        flat, unravel = ravel(solution)
        fn, primals = of_floats(step, inner), (solution, float_leaves(inner))

        def push(direction: jax.Array, tangents: list[jax.Array]) -> Any:
            _, pushed, out = jax.jvp(fn, primals, (unravel(direction), tangents), has_aux=True)
            return *pushed, out

        basis = jnp.eye(flat.size, dtype=flat.dtype)
        carried, slopes, out = jax.vmap(push, out_axes=(0, 0, None))(basis, carried)
        return out, carried, unravel(slopes.astype(flat.dtype))


class RTRL(ForwardStrategy):
    """Real-time recurrent learning: the exact gradient of each window's loss through the whole episode so far.

    Unbiased while the solution does not change. It takes the time and the memory of `num_dims` unrolls.

    References:
        Williams, Zipser 1989, doi 10.1162/neco.1989.1.2.270.
    """

    @property
    def sensitivity(self) -> Jacobian:
        """The exact derivative."""
        return Jacobian()
