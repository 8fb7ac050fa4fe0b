"""A covariance matrix and its eigendecomposition, which is renewed only when it is due."""

import jax
import jax.numpy as jnp


@jax.custom_batching.custom_vmap
def decompose_if(
    due: jax.Array, covariance: jax.Array, basis: jax.Array, scales: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns C, its eigenvectors and the square roots of its eigenvalues: renewed where due, else those given.

    A renewed C is exactly symmetric, and safely positive definite: round-off leaves eigenvalues as small as the largest
    times the precision at the mercy of chance, in float32 from a condition number of 8e6 on, so C is shifted by a
    multiple of the identity that keeps them above that.

    `vmap` would turn a `cond` into computing both sides in every generation. Runs that are batched over seeds are due
    together, so one `cond` serves them all.

    Args:
        due: [...] booleans. All arguments may have the same leading axes.
        covariance: [..., d, d]
        basis: [..., d, d] with the eigenvectors as columns.
        scales: [..., d]
    """

    def decompose() -> tuple[jax.Array, jax.Array, jax.Array]:
        symmetric = (covariance + jnp.swapaxes(covariance, -1, -2)) / 2
        values, vectors = jnp.linalg.eigh(symmetric)
        limits = jnp.finfo(values.dtype)
        floor = jnp.maximum(values[..., -1:] * limits.eps, limits.tiny)
        shift = jnp.maximum(floor - values[..., :1], 0)
        new_scales = jnp.sqrt(jnp.maximum(values + shift, limits.tiny))
        shifted = symmetric + shift[..., None] * jnp.eye(values.shape[-1], dtype=values.dtype)
        is_due = due[..., None, None]
        return (
            jnp.where(is_due, shifted, covariance),
            jnp.where(is_due, vectors, basis),
            jnp.where(due[..., None], new_scales, scales),
        )

    return jax.lax.cond(jnp.any(due), decompose, lambda: (covariance, basis, scales))


@decompose_if.def_vmap
def _decompose_batch(axis_size: int, in_batched: list[bool], *arguments: jax.Array):
    stacked = (
        a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
        for a, batched in zip(arguments, in_batched, strict=True)
    )
    return decompose_if(*stacked), (True, True, True)
