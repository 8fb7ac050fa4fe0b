"""Rules for products of a low-rank array with another array."""

from typing import Any

import jax
import jax.numpy as jnp
import quax
from jaxtyping import ArrayLike

from zoo.strategies.perturbations.low_rank_array.array import LowRankArray, dense, warn_once


@quax.register(jax.lax.dot_general_p)
def _dot_right(x: ArrayLike, w: LowRankArray, *, dimension_numbers: Any, **params: Any) -> Any:
    (contracted, own), batch = dimension_numbers
    return _dot(w, x, ((own, contracted), (batch[1], batch[0])), array_first=False, **params)


@quax.register(jax.lax.dot_general_p)
def _dot_left(w: LowRankArray, x: ArrayLike, *, dimension_numbers: Any, **params: Any) -> Any:
    return _dot(w, x, dimension_numbers, array_first=True, **params)


@quax.register(jax.lax.dot_general_p)
def _dot_both(v: LowRankArray, w: LowRankArray, *, dimension_numbers: Any, **params: Any) -> Any:
    warn_once(jax.lax.dot_general_p, w)
    return _dot_left(v, dense(w), dimension_numbers=dimension_numbers, **params)


def _dot(w: LowRankArray, x: Any, dimension_numbers: Any, *, array_first: bool, **params: Any) -> Any:
    """Returns the product with an array.

    `dimension_numbers` has the axes of `w` first. The result has its axes in the order of the call.
    """
    (own, other), (own_batch, other_batch) = dimension_numbers
    num_rows = w.base.ndim - w.num_columns

    def dot(matrix: Any) -> Any:
        if array_first:
            return jax.lax.dot_general(matrix, x, dimension_numbers, **params)
        return jax.lax.dot_general(x, matrix, ((other, own), (other_batch, own_batch)), **params)

    total = dot(w.base)
    if w.directions is not None:
        products = jax.vmap(dot, in_axes=-1, out_axes=-1)(w.directions)
        total = total + products @ w.coefficients.astype(total.dtype)
    near, far, start = (w.left, w.right, 0) if own and own[0] < num_rows else (w.right, w.left, num_rows)
    takes_side = not own_batch and sorted(own) == list(range(start, start + near.ndim - 1))
    if w.mask is not None and takes_side:
        product = _column_by_column(x, near, far, start, w.mask, dimension_numbers, array_first=array_first)
        return total + product.astype(total.dtype)
    if w.mask is not None:
        warn_once(jax.lax.dot_general_p, w)
        return total + dot((jnp.tensordot(w.left, w.right, (-1, -1)) * w.mask).astype(w.base.dtype))

    # Letters for einsum: one for each axis of x, one for each axis of w that is not an axis of x too, and z for the
    # rank.
    letters = iter("abcdefghijklmnopqrstuvwxy")
    of_x = [next(letters) for _ in range(jnp.ndim(x))]
    of_w = [next(letters) for _ in range(w.base.ndim)]
    for mine, theirs in zip((*own, *own_batch), (*other, *other_batch), strict=True):
        of_w[mine] = of_x[theirs]
    shared = [of_x[axis] for axis in other_batch]
    rest_of_x = [c for i, c in enumerate(of_x) if i not in (*other, *other_batch)]
    rest_of_w = [c for i, c in enumerate(of_w) if i not in (*own, *own_batch)]
    result = [*shared, *rest_of_w, *rest_of_x] if array_first else [*shared, *rest_of_x, *rest_of_w]

    # The first factor is the one that contracts more axes of x.
    first, second = (of_w[:num_rows], w.left), (of_w[num_rows:], w.right)
    if sum(axis >= num_rows for axis in own) > sum(axis < num_rows for axis in own):
        first, second = second, first
    contracted = {of_x[axis] for axis in other}
    middle = [c for c in dict.fromkeys([*of_x, *first[0]]) if c not in contracted or c in second[0]]
    options = {name: params[name] for name in ("precision", "preferred_element_type") if name in params}
    inner = jnp.einsum(f"{''.join(of_x)},{''.join(first[0])}z->{''.join(middle)}z", x, first[1], **options)
    inner = inner.astype(second[1].dtype)
    outer = f"{''.join(middle)}z,{''.join(second[0])}z->{''.join(result)}"
    return total + jnp.einsum(outer, inner, second[1], **options).astype(total.dtype)


def _column_by_column(
    x: Any, near: Any, far: Any, start: int, mask: Any, dimension_numbers: Any, *, array_first: bool
) -> Any:
    """Returns the product of an array with mask * A B^T, as a sum over the columns of A and B.

    Args:
        x: The array.
        near: The factor whose axes are contracted with the array.
        far: The other factor.
        start: The first of the contracted axes in the product.
        mask: The mask.
        dimension_numbers: As in `_dot`.
        array_first: As in `_dot`.
    """
    (own, other), batch = dimension_numbers
    # The places in x of the axes of the factor.
    places = [other[own.index(axis)] for axis in range(start, start + near.ndim - 1)]
    order = sorted(range(len(places)), key=places.__getitem__)
    rest = [axis for axis in range(jnp.ndim(x)) if axis not in places]
    total = 0
    for k in range(near.shape[-1]):
        scaled = x * jnp.expand_dims(jnp.transpose(near[..., k], order), rest).astype(x.dtype)
        factor = far[..., k]
        if array_first:
            factor = jnp.expand_dims(factor, [factor.ndim + i for i in range(len(rest))])
            product = jax.lax.dot_general(mask.astype(x.dtype), scaled, dimension_numbers)
        else:
            product = jax.lax.dot_general(scaled, mask.astype(x.dtype), ((other, own), (batch[1], batch[0])))
            factor = jnp.expand_dims(factor, list(range(product.ndim - factor.ndim)))
        total = total + product * factor
    return total
