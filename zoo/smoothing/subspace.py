"""The subspace that `smooth` perturbs in: checks of its directions, its basis, and its noise as perturbations of x."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.structure import fit_structure


def check_subspace(subspace: Any, structure: Any, x: list[jax.Array], size: int | None) -> list[jax.Array] | None:
    """Returns the directions as a flat list, each `[k, ...]`.

    Raises:
        ValueError: If structure or shapes do not fit x.
    """
    if subspace is None:
        return None
    first: Any = next(iter(jax.tree.leaves(subspace)), None)
    num = np.shape(first)[0] if np.ndim(first) else 1
    if num == 0:
        raise ValueError("zoo.smooth: subspace has no directions. Give at least one, or leave it out.")
    shapes = [(num, *(leaf.shape if size is None else leaf.shape[1:])) for leaf in x]
    expected = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes])
    like = f"x{'' if size is None else ' (of one example)'}, with a leading axis of directions"
    fitted = fit_structure("zoo.smooth: subspace", subspace, expected, exact=True, like=like)
    return [jnp.asarray(leaf) for leaf in jax.tree.leaves(fitted)]


def orthonormal_basis(directions: list[jax.Array] | None, dtype: Any) -> list[jax.Array] | None:
    """Returns an orthonormal basis of the subspace, each leaf `[k, ...]`. Redundant directions become zeros."""
    if directions is None:
        return None
    leaves = [leaf.astype(dtype) for leaf in directions]
    num = leaves[0].shape[0]
    rows = jnp.concatenate([leaf.reshape(num, -1) for leaf in leaves], axis=1)
    with jax.default_matmul_precision("highest"):
        norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / jnp.where(norms > 0, norms, 1)
        for tolerance in (10 * num * float(jnp.finfo(dtype).eps), 0.5):  # the second pass only improves precision
            values, vectors = jnp.linalg.eigh(rows @ rows.T)
            kept = values > tolerance * jnp.maximum(values[-1], jnp.finfo(dtype).tiny)
            scale = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1)), 0)
            rows = (vectors * scale[None]).T @ rows
    cuts = np.cumsum([math.prod(leaf.shape[1:]) for leaf in leaves])[:-1]
    return [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(rows, cuts, axis=1), leaves, strict=True)]


def span(noise: list[jax.Array], basis: list[jax.Array] | None) -> list[jax.Array]:
    """Returns noise as perturbations of x, each leaf `[*lead, ...]`."""
    if basis is None:
        return noise
    (coefficients,) = noise
    return [jnp.tensordot(coefficients, b, 1, precision=jax.lax.Precision.HIGHEST) for b in basis]
