"""The search space of a strategy: the whole solution, or the entries that a mask keeps."""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.core.masks import Mask, apply_mask
from zoo.core.promotion import common_dtype, ravel
from zoo.core.settings import PytreeDataclass, leaf
from zoo.core.solution import Solution, num_dims


class Space(PytreeDataclass):
    """The entries of a solution that a strategy searches. Wrappers such as `masked` set `Strategy.space`.

    The wrapper keeps all other entries at zero in every member. A strategy asks its space for the number of dimensions,
    which sets its learning rates, and masks its own state where entries that nothing bounds could grow or shrink.

    Attributes:
        mask: Booleans in the structure and the shapes of the solution, true where it is searched. May be traced. With
            `None`, everything is searched.
    """

    mask: Mask | None = leaf(default=None)

    def num_dims(self, solution: Solution) -> int | jax.Array:
        """Returns the number of entries that are searched, at least one.

        Without a mask it is a Python integer, so that values computed from it are known at compile time. With a mask it
        is a traced float in the precision of the solution (at least single), so that it causes no dtype promotion.
        """
        if self.mask is None:
            return num_dims(solution)
        dtype = common_dtype(*jax.tree.leaves(solution), jnp.float32)
        return jnp.maximum(sum(jnp.sum(m, dtype=dtype) for m in jax.tree.leaves(self.mask)), 1)

    def restrict(self, values: Any) -> Any:
        """Returns a solution or a population with zeros in all entries that are not searched."""
        return apply_mask(self.mask, values)

    def restrict_flat(self, x: jax.Array, fill: float = 0) -> jax.Array:
        """Returns vectors `[..., d]`, in the order of `ravel_pytree`, with `fill` where nothing is searched."""
        if self.mask is None:
            return x
        searched = jnp.broadcast_to(self._flat_mask(), x.shape)
        return jnp.where(searched, x, jnp.asarray(fill, x.dtype))

    def identity(self, x: jax.Array) -> jax.Array:
        """Returns the identity matrix `[d, d]` for a vector `[d]`, with zeros where nothing is searched."""
        return self.restrict_flat(jnp.eye(x.size, dtype=x.dtype))

    def keep_apart(self, covariance: jax.Array) -> jax.Array:
        """Returns a covariance matrix `[d, d]` with the mean variance on the diagonal where nothing is searched.

        Keeps masked coordinates out of the extreme eigenvalues, which set the condition number and the floor.
        """
        if self.mask is None:
            return covariance
        searched = self._flat_mask()
        variances = jnp.diagonal(covariance)
        mean = jnp.sum(jnp.where(searched, variances, 0)) / jnp.maximum(jnp.sum(searched, dtype=variances.dtype), 1)
        rest = jnp.diag(jnp.where(searched, 0, mean))
        return jnp.where(searched[:, None] & searched[None], covariance, rest)

    def _flat_mask(self) -> jax.Array:
        return ravel(self.mask)[0]
