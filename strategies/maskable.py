"""Learning rates that follow the number of dimensions that are searched, of which pruning leaves ever fewer."""

from typing import Any, Self

import jax
import jax.numpy as jnp

from zoo.core import Solution, Strategy, leaf, num_dims
from zoo.core.promotion import common_dtype


class MaskableStrategy(Strategy):
    """Base of strategies whose settings depend on the number of dimensions, which a mask may reduce.

    Attributes:
        mask: Booleans in the structure and the shapes of the solution, which may be traced: those entries count, and
            learning rates are those for so many dimensions. Set by `for_mask`, for wrappers such as `masked`, which see
            to it that the others are zero in all members. `None`: all.
    """

    mask: Any = leaf(default=None, internal=True)

    def for_mask(self, mask: Any) -> Self:
        """Returns the strategy as it searches the entries of a mask alone."""
        return self.replace(mask=mask)

    def _num_dims(self, solution: Solution) -> int | jax.Array:
        """Returns the number of dimensions that are searched, at least one: with a mask, a traced number.

        It is of floating point, in the precision of the solution, so that what follows from it does not promote.
        """
        if self.mask is None:
            return num_dims(solution)
        dtype = common_dtype(*jax.tree.leaves(solution), jnp.float32)
        return jnp.maximum(sum(jnp.sum(m, dtype=dtype) for m in jax.tree.leaves(self.mask)), 1)
