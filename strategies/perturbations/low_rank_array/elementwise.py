"""Rules for operations that keep, scale or add to the values of a low-rank array."""

from typing import Any

import jax
import jax.numpy as jnp
import quax
from jax.extend.core.primitives import stop_gradient_p
from jaxtyping import ArrayLike

from zoo.strategies.perturbations.low_rank_array.array import LowRankArray, dense, fall_back, map_parts, replace


@quax.register(jax.lax.convert_element_type_p)
def _convert(x: LowRankArray, *, new_dtype: Any, **params: Any) -> Any:
    if not jnp.issubdtype(new_dtype, jnp.floating):
        return fall_back(jax.lax.convert_element_type_p, x, new_dtype=new_dtype, **params)
    return jax.tree.map(lambda part: part.astype(new_dtype), x)


@quax.register(jax.lax.copy_p)
@quax.register(stop_gradient_p)
def _copy(x: LowRankArray, **params: Any) -> Any:
    return x


@quax.register(jax.lax.neg_p)
def _negate(x: LowRankArray) -> Any:
    return map_parts(x, jnp.negative, jnp.negative, lambda b: b, on_mask=lambda m: m)


@quax.register(jax.lax.mul_p)
def _multiply(x: LowRankArray, y: ArrayLike, **params: Any) -> Any:
    if any(value is not None for value in params.values()):
        return fall_back(jax.lax.mul_p, x, y, **params)
    if jnp.size(y) == 1:
        y = jnp.reshape(y, ())
        return map_parts(x, lambda w: w * y, lambda a: a * y, lambda b: b, on_mask=lambda m: m)
    if jnp.broadcast_shapes(x.base.shape, jnp.shape(y)) != x.base.shape:
        return jnp.multiply(dense(x), y)  # here the array is no kernel: it scales a larger array
    y = jnp.broadcast_to(y, x.base.shape)
    mask = y if x.mask is None else x.mask * y
    scaled = map_parts(replace(x, mask=None), lambda w: w * y, lambda a: a, lambda b: b)
    return replace(scaled, mask=mask)


@quax.register(jax.lax.mul_p)
def _multiply_from_left(x: ArrayLike, y: LowRankArray, **params: Any) -> Any:
    return _multiply(y, x, **params)


@quax.register(jax.lax.div_p)
def _divide(x: LowRankArray, y: ArrayLike, **params: Any) -> Any:
    return _multiply(x, 1 / jnp.asarray(y), **params)


def _register_sum(primitive: Any) -> None:
    """Registers a sum, which materialises the array.

    A bias is added to an array that is at least as large as itself, and every member has that array in any case.
    """

    @quax.register(primitive)
    def _to_array(x: LowRankArray, y: ArrayLike, **params: Any) -> Any:
        return primitive.bind(dense(x), y, **params)

    @quax.register(primitive)
    def _of_array(x: ArrayLike, y: LowRankArray, **params: Any) -> Any:
        return primitive.bind(x, dense(y), **params)


_register_sum(jax.lax.add_p)
_register_sum(jax.lax.sub_p)
