"""The rule for convolutions with a low-rank kernel."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import quax
from jaxtyping import ArrayLike

from zoo.strategies.perturbations.low_rank_array.array import LowRankArray, fall_back


@quax.register(jax.lax.conv_general_dilated_p)
def _convolve(x: ArrayLike, w: LowRankArray, *, dimension_numbers: Any, **params: Any) -> Any:
    """Multiplies each window by the factor of kernel and input channels, then by the factor of the output channels."""
    split = _split_kernel(w, dimension_numbers.rhs_spec)
    is_grouped = params["feature_group_count"] != 1 or params["batch_group_count"] != 1
    if split is None or is_grouped or w.mask is not None:
        return fall_back(jax.lax.conv_general_dilated_p, x, w, dimension_numbers=dimension_numbers, **params)
    convolve = functools.partial(jax.lax.conv_general_dilated_p.bind, dimension_numbers=dimension_numbers, **params)
    total = convolve(x, w.base)
    if w.directions is not None:
        products = jax.vmap(lambda d: convolve(x, d), in_axes=-1, out_axes=-1)(w.directions)
        total = total + products @ w.coefficients.astype(total.dtype)

    window, outputs = split  # [inputs, *window, rank], [outputs, rank]
    lhs, out = dimension_numbers.lhs_spec, dimension_numbers.out_spec
    products = jnp.tensordot(jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1])), window, 1)  # [batch, *image, *window, rank]
    inner = _sum_windows(products, window.shape[1:-1], params)  # [batch, *image, rank]
    outer = jnp.einsum("...z,oz->...o", inner, outputs.astype(inner.dtype))
    # From [batch, *image, outputs] to the order of axes in the call.
    axes = {out[0]: 0, out[1]: outer.ndim - 1, **{axis: 1 + i for i, axis in enumerate(out[2:])}}
    return total + jnp.transpose(outer, [axes[axis] for axis in range(outer.ndim)]).astype(total.dtype)


def _split_kernel(w: LowRankArray, spec: Sequence[int]) -> tuple[Any, Any] | None:
    """Returns the factors `[inputs, *window, rank]` and `[outputs, rank]`, or `None` if none has the outputs alone."""
    num_rows = w.base.ndim - w.num_columns
    factors = {
        frozenset(axis for axis in range(num_rows) if w.base.shape[axis] > 1): w.left,
        frozenset(axis for axis in range(num_rows, w.base.ndim) if w.base.shape[axis] > 1): w.right,
    }
    outputs = factors.pop(frozenset([spec[0]]), None)
    if outputs is None or len(factors) != 1:
        return None
    rest = jnp.reshape(next(iter(factors.values())), (*(n for i, n in enumerate(w.base.shape) if i != spec[0]), -1))
    position = {axis: i for i, axis in enumerate(axis for axis in range(w.base.ndim) if axis != spec[0])}
    window = jnp.transpose(rest, [*(position[axis] for axis in spec[1:]), rest.ndim - 1])
    return window, jnp.reshape(outputs, (w.base.shape[spec[0]], -1))


def _sum_windows(products: Any, window: Sequence[int], params: dict[str, Any]) -> Any:
    """Returns sum_s products[batch, stride * out + dilation * s, s, rank], with the image padded and dilated."""
    num_axes = len(window)
    padding = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    none = [(0, 0, 0)]
    padded = jax.lax.pad(products, jnp.zeros((), products.dtype), [*none, *padding, *none * (num_axes + 1)])
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    total = 0
    for place in itertools.product(*map(range, window)):
        cuts = []
        for axis in range(num_axes):
            start = place[axis] * dilations[axis]
            length = padded.shape[1 + axis] - (window[axis] - 1) * dilations[axis]
            cuts.append(slice(start, start + length, strides[axis]))
        total = total + padded[(slice(None), *cuts, *place)]
    return total
