"""A covariance matrix and its eigendecomposition, which is computed again only when it is due."""

import jax
import jax.numpy as jnp


def decompose(covariance: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns C, its eigenvectors as columns, and the square roots of its eigenvalues.

    The C returned is exactly symmetric, and safely positive definite. Rounding makes eigenvalues random that are as
    small as the largest one times the precision, in float32 from a condition number of 8e6 on. So C is shifted by a
    multiple of the identity that keeps all eigenvalues above that.

    Args:
        covariance: [..., d, d]
    """
    symmetric = (covariance + jnp.swapaxes(covariance, -1, -2)) / 2
    values, vectors = jnp.linalg.eigh(symmetric)
    limits = jnp.finfo(values.dtype)
    floor = jnp.maximum(values[..., -1:] * limits.eps, limits.tiny)
    shift = jnp.maximum(floor - values[..., :1], 0)
    scales = jnp.sqrt(jnp.maximum(values + shift, limits.tiny))
    identity = jnp.eye(values.shape[-1], dtype=values.dtype)
    return symmetric + shift[..., None] * jnp.broadcast_to(identity, symmetric.shape), vectors, scales


@jax.custom_batching.custom_vmap
def decompose_if(
    due: jax.Array, covariance: jax.Array, basis: jax.Array, scales: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns what `decompose` returns where it is due, and the given arrays elsewhere.

    Under `vmap`, a `cond` would compute both branches in every generation. Runs that are batched over seeds are due
    together, so that one `cond` serves them all.

    Args:
        due: [...] booleans. All arguments may have the same leading axes.
        covariance: [..., d, d]
        basis: [..., d, d] with the eigenvectors as columns.
        scales: [..., d]
    """
    given = (covariance, basis, scales)

    def renew() -> tuple[jax.Array, jax.Array, jax.Array]:
        is_due = [due[..., None, None], due[..., None, None], due[..., None]]
        pairs = zip(is_due, decompose(covariance), given, strict=True)
        new_covariance, new_basis, new_scales = (jnp.where(*pair) for pair in pairs)
        return new_covariance, new_basis, new_scales

    return jax.lax.cond(jnp.any(due), renew, lambda: given)


@decompose_if.def_vmap
def _decompose_batch(axis_size: int, in_batched: list[bool], *arguments: jax.Array):
    stacked = (
        a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
        for a, batched in zip(arguments, in_batched, strict=True)
    )
    return decompose_if(*stacked), (True, True, True)
