"""Gaussian noise in the structure of a solution."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p

_LARGE_LEAF = 256
_MANY_NUMBERS = 2**16


def normal_like(key: jax.Array, solution: Any, *, num_samples: int) -> Any:
    """Returns standard normal noise, each leaf `[num_samples, *leaf.shape]` in the leaf's dtype."""
    return _normal_rows(key, solution, jnp.arange(num_samples, dtype=jnp.uint32))


def renew_rows(key: jax.Array, noise: Any, is_new: jax.Array) -> Any:
    """Returns the noise with some of its rows drawn afresh; where there are many numbers, a held row costs nothing.

    A new row is the one that `normal_like` draws there with the same key.

    Args:
        key: JAX random key.
        noise: `[num_samples, ...]` in the structure of a solution.
        is_new: `[num_samples]` booleans: which rows to draw.
    """
    solution = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), noise)

    def draw_all(key: jax.Array, noise: Any, is_new: jax.Array) -> Any:
        new = normal_like(key, solution, num_samples=is_new.shape[0])
        return jax.tree.map(lambda n, o: jnp.where(is_new.reshape(-1, *[1] * (o.ndim - 1)), n, o), new, noise)

    @jax.custom_batching.sequential_vmap  # otherwise a batch of loops copies all of the noise in every turn
    def draw_new(key: jax.Array, noise: Any, is_new: jax.Array) -> Any:
        order = jnp.argsort(~is_new, stable=True).astype(jnp.uint32)

        def draw_one(i: jax.Array, noise: Any) -> Any:
            row = _normal_rows(key, solution, order[i][None])
            return jax.tree.map(lambda x, r: jax.lax.dynamic_update_slice_in_dim(x, r, order[i], 0), noise, row)

        return jax.lax.fori_loop(0, jnp.sum(is_new), draw_one, noise)

    leaves = jax.tree.leaves(noise)
    if sum(leaf.size for leaf in leaves) < _MANY_NUMBERS or not all(_counts_rows(key, leaf.dtype) for leaf in leaves):
        return draw_all(key, noise, is_new)
    # An accelerator draws faster than it waits for a loop whose length depends on data.
    return jax.lax.platform_dependent(key, noise, is_new, cpu=draw_new, default=draw_all)


def _normal_rows(key: jax.Array, solution: Any, rows: jax.Array) -> Any:
    """Returns rows of a draw, each leaf `[len(rows), *leaf.shape]`; a row depends on the key and its number alone."""
    leaves, structure = jax.tree.flatten(solution)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    # Small leaves are drawn together: a draw costs many small kernels, and much time to compile.
    small = [size < _LARGE_LEAF and leaf.dtype == leaves[0].dtype for size, leaf in zip(sizes, leaves, strict=True)]
    key_small, *keys = jax.random.split(key, 1 + small.count(False))
    num_small = sum(size for size, is_small in zip(sizes, small, strict=True) if is_small)
    pool = _draw_rows(key_small, rows, num_small, leaves[0].dtype)
    noise, position = [], 0
    for leaf, size, is_small in zip(leaves, sizes, small, strict=True):
        if is_small:
            flat = jax.lax.slice_in_dim(pool, position, position + size, axis=1)
            position += size
        else:
            flat = _draw_rows(keys.pop(), rows, size, leaf.dtype)
        noise.append(flat.reshape(len(rows), *leaf.shape))
    return jax.tree.unflatten(structure, noise)


def _draw_rows(key: jax.Array, rows: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Returns standard normals `[len(rows), size]`.

    One block of Threefry yields 64 bits from a 64-bit counter (Salmon et al. 2011), of which `jax.random` keeps 32.
    Here row and column are the counter and all bits are used, which halves the cost. Other generators and precisions go
    through `jax.random`, which draws all rows or none.
    """
    if not _counts_rows(key, dtype):
        return jax.random.normal(key, (len(rows), size), dtype)
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    num_blocks = -(-size // 2)
    counter = jnp.broadcast_arrays(rows[:, None], jnp.arange(num_blocks, dtype=jnp.uint32)[None])
    bits = jnp.concatenate(threefry2x32_p.bind(words[0], words[1], *counter), axis=1)[:, :size]
    # 23 random bits as the mantissa of a number in [1, 2), from there to (-1, 1), as `jax.random.normal` does.
    unit = jax.lax.bitcast_convert_type((bits >> 9) | np.uint32(0x3F800000), jnp.float32) - 1
    low = np.nextafter(np.float32(-1), np.float32(0))
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(jnp.maximum(low, unit * (1 - low) + low))


def _counts_rows(key: jax.Array, dtype: Any) -> bool:
    """Whether rows can be drawn one by one."""
    return dtype == jnp.float32 and jax.random.key_impl(key) == "threefry2x32"


def uniform_like(key: jax.Array, values: Any) -> Any:
    """Returns independent uniform numbers in [0, 1), in the structure, the shapes and the dtypes of the values."""
    leaves, structure = jax.tree.flatten(values)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.uniform(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


def antithetic_pairs(mean: Any, sigma: jax.Array, noise: Any) -> Any:
    """Returns the population mean ± sigma * noise: first all members with plus, then all with minus.

    Args:
        mean: A solution.
        sigma: Scalar, or `[num_pairs]`.
        noise: `[num_pairs, ...]` in the structure of the solution.
    """

    def pairs(m: jax.Array, z: jax.Array) -> jax.Array:
        scale = sigma.reshape(-1, *[1] * m.ndim) if sigma.ndim else sigma
        step = scale.astype(m.dtype) * z
        return jnp.concatenate([m + step, m - step])

    return jax.tree.map(pairs, mean, noise)


def weighted_sum(weights: jax.Array, population: Any) -> Any:
    """Returns the sum of the members times their weights, `[population_size]`, in the structure of one solution."""

    def contract(leaf: jax.Array) -> jax.Array:
        flat = leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:]))
        return (weights.astype(leaf.dtype) @ flat).reshape(leaf.shape[1:])

    return jax.tree.map(contract, population)


def clip_std(std: jax.Array) -> jax.Array:
    """Keeps a standard deviation where it can be divided by and squared without under- or overflow."""
    limits = jnp.finfo(std.dtype)
    return jnp.clip(std, float(limits.tiny) ** 0.5, float(limits.max) ** 0.5)
