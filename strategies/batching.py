"""A condition that stays a condition when runs are batched over seeds."""

import jax
import jax.numpy as jnp


@jax.custom_batching.custom_vmap
def any_in_batch(flag: jax.Array) -> jax.Array:
    """Returns whether a scalar flag is true for any run of the batch.

    The result is not batched, so that a `cond` on it stays a `cond` under `vmap`. On a batched flag, both branches
    would be computed in every generation.
    """
    return flag


@any_in_batch.def_vmap
def _any_in_batch_rule(axis_size: int, in_batched: list[bool], flag: jax.Array) -> tuple[jax.Array, bool]:
    return any_in_batch(jnp.any(flag)), False
