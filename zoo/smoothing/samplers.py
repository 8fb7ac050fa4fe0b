"""The samplers of `smooth`: independent normal, orthogonal and Sobol noise."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.noise import normal_like
from zoo.core.promotion import common_dtype


def draw(key: jax.Array, *, sampler: str, space: list[jax.ShapeDtypeStruct], num: int) -> list[jax.Array]:
    """Returns `num` draws from N(0, I), each leaf `[num, *leaf.shape]`."""
    if sampler == "normal":
        return normal_like(key, space, num_samples=num)
    sizes = [math.prod(leaf.shape) for leaf in space]
    dtype = common_dtype(*(leaf.dtype for leaf in space))
    flat = (_orthogonal if sampler == "orthogonal" else _sobol)(key, num, sum(sizes), dtype)
    parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(num, *leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, space, strict=True)]


def _orthogonal(key: jax.Array, num: int, dim: int, dtype: Any) -> jax.Array:
    """Returns normal noise `[num, dim]`, in blocks of orthogonal rows."""
    block = min(dim, num)
    columns = jax.random.normal(key, (-(-num // block), dim, block), dtype)
    directions, triangle = jnp.linalg.qr(columns)
    # With a positive diagonal the factor Q is Haar distributed (Mezzadri 2007). Q depends only on the directions of the
    # columns, which are independent of their lengths. So the lengths can be used again.
    signs = jnp.where(jnp.diagonal(triangle, axis1=1, axis2=2) < 0, -1, 1).astype(dtype)
    rows = directions * (signs * jnp.linalg.norm(columns, axis=1))[:, None, :]
    return jnp.swapaxes(rows, 1, 2).reshape(-1, dim)[:num]


def _sobol(key: jax.Array, num: int, dim: int, dtype: Any) -> jax.Array:
    """Returns normal noise `[num, dim]` from Sobol points with a random digital shift."""
    shift = jax.random.bits(key, (dim,), jnp.uint32)
    bits = jnp.asarray(_sobol_points(num, dim)) ^ shift[None]
    # The centres of the cells are exact in this precision, never 0 or 1, and symmetric.
    num_bits = 23 if dtype == jnp.float32 else 32
    unit = ((bits >> (32 - num_bits)).astype(dtype) + 0.5) * 2.0**-num_bits
    return jax.scipy.special.ndtri(unit)


@functools.lru_cache(maxsize=32)
def _sobol_points(num: int, dim: int) -> np.ndarray:
    """Returns `[num, dim]` scrambled Sobol points as 32-bit fractions."""
    from scipy.stats import qmc

    if dim > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"zoo.smooth(sampler='sobol') takes at most {qmc.Sobol.MAXDIM} dimensions, got {dim}. Use "
            "sampler='orthogonal', or a subspace."
        )
    engine = qmc.Sobol(dim, bits=32, seed=0)  # pyright: ignore[reportCallIssue] # named rng since SciPy 1.15
    points = engine.random_base2((num - 1).bit_length())[:num]
    return (points * 2.0**32).astype(np.uint32)
