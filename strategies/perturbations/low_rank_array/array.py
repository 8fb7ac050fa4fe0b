"""The low-rank array, and what its rules have in common."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import quax
from jax.core import ShapedArray

_warned: set[str] = set()


class LowRankArray(quax.ArrayValue):
    """base + sum_j c_j D_j + mask * (A B^T), where the last axes of the array are the columns of the product.

    Attributes:
        base: `[*rows, *columns]`, the array that members share.
        directions: `[*rows, *columns, k]` further shared arrays D_j, or `None`.
        coefficients: `[k]` their factors c_j, or `None`.
        left: `[*rows, rank]`, A.
        right: `[*columns, rank]`, B.
        mask: `[*rows, *columns]` factor of the product, or `None`.
        num_columns: How many of the last axes are columns.
    """

    base: Any
    directions: Any
    coefficients: Any
    left: Any
    right: Any
    mask: Any
    num_columns: int = eqx.field(static=True)

    def aval(self) -> ShapedArray:
        """Returns shape and dtype."""
        return ShapedArray(self.base.shape, self.base.dtype)

    def materialise(self) -> jax.Array:
        """Returns the full array."""
        product = jnp.tensordot(self.left, self.right, (-1, -1))
        if self.mask is not None:
            product = product * self.mask
        total = self.base + product
        return total if self.directions is None else total + self.directions @ self.coefficients

    @staticmethod
    def default(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
        """Applies an operation without a rule to the materialised array."""
        warn_once(primitive, next(x for x in values if isinstance(x, LowRankArray)))
        return primitive.bind(*(dense(x) for x in values), **params)


def warn_once(primitive: Any, value: LowRankArray) -> None:
    """Warns that an operation has no rule for an array, only the first time."""
    if str(primitive) not in _warned:
        _warned.add(str(primitive))
        warnings.warn(
            f"The operation {primitive!s} has no low-rank rule for an array of shape {tuple(value.base.shape)} as used "
            "here, so the array is materialised for every member of a batch. The result is right, but slow.",
            stacklevel=2,
        )


def dense(x: Any) -> Any:
    """Returns a low-rank array as an ordinary one; returns anything else unchanged."""
    return LowRankArray.materialise(x) if isinstance(x, LowRankArray) else x


def fall_back(primitive: Any, *values: Any, **params: Any) -> Any:
    """Applies an operation to the materialised arrays, for a rule that cannot split the operation."""
    return LowRankArray.default(primitive, values, params)


def replace(x: LowRankArray, **updates: Any) -> LowRankArray:
    """Returns the array with some of its parts replaced."""
    fields = ("base", "directions", "coefficients", "left", "right", "mask", "num_columns")
    return LowRankArray(**{name: updates.get(name, getattr(x, name)) for name in fields})


def map_parts(
    x: LowRankArray,
    on_array: Callable[[Any], Any],
    on_left: Callable[[Any], Any],
    on_right: Callable[[Any], Any],
    *,
    on_mask: Callable[[Any], Any] | None = None,
    swap: bool = False,
    num_columns: int | None = None,
) -> LowRankArray:
    """Returns the array with a linear operation applied to each of its parts.

    Args:
        x: The array.
        on_array: The operation on an array of this shape.
        on_left: The operation on A.
        on_right: The operation on B.
        on_mask: The operation on the mask. Defaults to `on_array`.
        swap: Whether rows and columns change places.
        num_columns: How many axes are columns afterwards. Defaults to the number before.
    """
    left, right = on_left(x.left), on_right(x.right)
    directions = None if x.directions is None else jax.vmap(on_array, in_axes=-1, out_axes=-1)(x.directions)
    base = on_array(x.base)
    return LowRankArray(
        base=base,
        directions=directions,
        coefficients=x.coefficients,
        left=right if swap else left,
        right=left if swap else right,
        mask=None if x.mask is None else (on_mask or on_array)(x.mask),
        num_columns=x.num_columns if num_columns is None else num_columns,
    )
