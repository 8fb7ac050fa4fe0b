"""Rules for operations that move or select the entries of a low-rank array."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import quax
from jaxtyping import ArrayLike

from zoo.strategies.perturbations.low_rank_array.array import LowRankArray, dense, fall_back, map_parts


@quax.register(jax.lax.transpose_p)
def _transpose(x: LowRankArray, *, permutation: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns
    for swap, first in ((False, num_rows), (True, x.num_columns)):
        front, back = permutation[:first], permutation[first:]
        rows, columns = (back, front) if swap else (front, back)
        if all(axis < num_rows for axis in rows) and all(axis >= num_rows for axis in columns):
            return map_parts(
                x,
                lambda w: jnp.transpose(w, permutation),
                lambda a, rows=rows: jnp.transpose(a, (*rows, num_rows)),
                lambda b, columns=columns: jnp.transpose(b, (*(c - num_rows for c in columns), x.num_columns)),
                swap=swap,
                num_columns=num_rows if swap else x.num_columns,
            )
    return fall_back(jax.lax.transpose_p, x, permutation=permutation)


@quax.register(jax.lax.reshape_p)
def _reshape(x: LowRankArray, *, new_sizes: Any, dimensions: Any, **params: Any) -> Any:
    num_rows = math.prod(x.left.shape[:-1])
    for split in range(len(new_sizes) + 1):
        if dimensions is None and math.prod(new_sizes[:split]) == num_rows:
            return map_parts(
                x,
                lambda w: jnp.reshape(w, new_sizes),
                lambda a, split=split: jnp.reshape(a, (*new_sizes[:split], a.shape[-1])),
                lambda b, split=split: jnp.reshape(b, (*new_sizes[split:], b.shape[-1])),
                num_columns=len(new_sizes) - split,
            )
    return fall_back(jax.lax.reshape_p, x, new_sizes=new_sizes, dimensions=dimensions, **params)


@quax.register(jax.lax.broadcast_in_dim_p)
def _broadcast(x: LowRankArray, *sizes: ArrayLike, shape: Any, **params: Any) -> Any:
    if sizes or math.prod(shape) != x.base.size:
        return fall_back(jax.lax.broadcast_in_dim_p, x, *sizes, shape=shape, **params)
    return _reshape(x, new_sizes=shape, dimensions=None, sharding=None)  # new axes of size one


@quax.register(jax.lax.squeeze_p)
def _squeeze(x: LowRankArray, *, dimensions: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns
    rows = [axis for axis in dimensions if axis < num_rows]
    columns = [axis - num_rows for axis in dimensions if axis >= num_rows]
    squeezed = map_parts(
        x,
        lambda w: jnp.squeeze(w, dimensions),
        lambda a: jnp.squeeze(a, rows),
        lambda b: jnp.squeeze(b, columns),
        num_columns=x.num_columns - len(columns),
    )
    is_matrix = len(rows) < num_rows and len(columns) < x.num_columns
    return squeezed if is_matrix else dense(squeezed)


@quax.register(jax.lax.slice_p)
def _slice(x: LowRankArray, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns
    limits = list(zip(start_indices, limit_indices, strides or (1,) * x.base.ndim, strict=True))

    def cut(array: Any, limits: list[tuple[int, int, int]]) -> Any:
        return array[tuple(slice(*each) for each in limits)]

    return map_parts(
        x, lambda w: cut(w, limits), lambda a: cut(a, limits[:num_rows]), lambda b: cut(b, limits[num_rows:])
    )


@quax.register(jax.lax.dynamic_slice_p)
def _dynamic_slice(x: LowRankArray, *indices: ArrayLike, slice_sizes: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns

    def cut(factor: Any, axes: slice) -> Any:
        return jax.lax.dynamic_slice(
            factor, (*indices[axes], jnp.zeros_like(indices[0])), (*slice_sizes[axes], factor.shape[-1])
        )

    return map_parts(
        x,
        lambda w: jax.lax.dynamic_slice(w, indices, slice_sizes),
        lambda a: cut(a, slice(num_rows)),
        lambda b: cut(b, slice(num_rows, None)),
    )


@quax.register(jax.lax.gather_p)
def _gather(x: LowRankArray, indices: ArrayLike, *, dimension_numbers: Any, slice_sizes: Any, **params: Any) -> Any:
    """Looks up parts of the factors. The result, as of an embedding, is no kernel but an input: an ordinary array."""
    numbers, num_rows, num_batch = dimension_numbers, x.base.ndim - x.num_columns, jnp.ndim(indices) - 1
    if numbers.operand_batching_dims:
        return fall_back(jax.lax.gather_p, x, indices, dimension_numbers=numbers, slice_sizes=slice_sizes, **params)
    kept = [axis for axis in range(x.base.ndim) if axis not in numbers.collapsed_slice_dims]
    # An index out of bounds is also out of bounds in the base, whose lookup fills it. The others add zero.
    add_nothing = {**params, "fill_value": 0, "unique_indices": False, "indices_are_sorted": False}

    def gather(array: Any, **params: Any) -> Any:
        return jax.lax.gather_p.bind(array, indices, dimension_numbers=numbers, slice_sizes=slice_sizes, **params)

    def of_factor(factor: Any, first: int) -> Any:
        """Returns `[*batch, *kept axes, rank]` of a factor. Its first axis is the axis `first` of the array."""
        axes = range(first, first + factor.ndim - 1)
        looked_up = [i for i, axis in enumerate(numbers.start_index_map) if axis in axes]
        num_kept = sum(axis in kept for axis in axes)
        return jax.lax.gather_p.bind(
            factor,
            jnp.asarray(indices)[..., looked_up],
            dimension_numbers=numbers._replace(
                offset_dims=tuple(range(num_batch, num_batch + num_kept + 1)),
                collapsed_slice_dims=tuple(axis - first for axis in axes if axis not in kept),
                start_index_map=tuple(numbers.start_index_map[i] - first for i in looked_up),
            ),
            slice_sizes=(*(slice_sizes[axis] for axis in axes), factor.shape[-1]),
            **add_nothing,
        )

    letters = "abcdefghijklmnopqrstuvwxy"
    batch, own = iter(letters[:num_batch]), iter(letters[num_batch:])
    offset = {axis: next(own) for axis in kept}
    rows = "".join(offset[axis] for axis in kept if axis < num_rows)
    columns = "".join(offset[axis] for axis in kept if axis >= num_rows)
    found = iter(offset.values())
    result = "".join(next(found if i in numbers.offset_dims else batch) for i in range(num_batch + len(kept)))
    left, right, batch = of_factor(x.left, 0), of_factor(x.right, num_rows), letters[:num_batch]
    product = jnp.einsum(f"{batch}{rows}z,{batch}{columns}z->{result}", left, right)
    total = gather(x.base, **params) + (product if x.mask is None else product * gather(x.mask, **add_nothing))
    if x.directions is None:
        return total
    return total + jax.vmap(lambda d: gather(d, **add_nothing), in_axes=-1, out_axes=-1)(x.directions) @ x.coefficients
