"""Gaussian noise in the structure of a solution."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p

from zoo.core import sharding
from zoo.core.population import ImplicitPopulation
from zoo.core.settings import PytreeDataclass, leaf, static
from zoo.core.vectors import at_least_float32

_LARGE_LEAF = 256
_MANY_NUMBERS = 2**16


def normal_like(key: jax.Array, solution: Any, *, num_samples: int) -> Any:
    """Returns standard normal noise, each leaf `[num_samples, *leaf.shape]` in the leaf's dtype."""
    return normal_rows(key, solution, row_numbers(num_samples))


def row_numbers(num_samples: int) -> jax.Array:
    """Returns the row numbers 0 to `num_samples` - 1 of a draw."""
    return jnp.arange(num_samples, dtype=jnp.uint32)


class KeyWords(PytreeDataclass):
    """A random key as plain numbers, so that it can be stored, selected and saved.

    Attributes:
        words: `[..., num_words]` unsigned integers.
        impl: The name of the generator.
    """

    words: Any = leaf()
    impl: str = static()

    @classmethod
    def of(cls, key: jax.Array) -> "KeyWords":
        """Returns the words of a key, or of an array of keys."""
        words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        return cls(words=words, impl=str(jax.random.key_impl(key)))

    @classmethod
    def of_threefry(cls, key: jax.Array) -> "KeyWords":
        """Returns the words of a threefry key. With it, rows can be drawn in any order and in any batches.

        Raises:
            ValueError: If the key is of another generator. Under `vmap`, other generators use one key for all rows.
        """
        words = cls.of(key)
        if "threefry" not in words.impl:
            raise ValueError(
                "Noise that is drawn row by row needs keys of threefry, jax.random.key(seed, impl='threefry2x32'), got "
                f"one of {words.impl}. Populations of stacked arrays on one device take any key."
            )
        return words

    @property
    def key(self) -> jax.Array:
        """The key."""
        return jax.random.wrap_key_data(self.words, impl=self.impl)


def renew_rows(key: jax.Array, noise: Any, is_new: jax.Array) -> Any:
    """Returns the noise with some rows drawn again. In large noise, the rows that are kept cost nothing.

    A new row equals the row that `normal_like` draws at that place with the same key.

    Args:
        key: JAX random key.
        noise: In the structure of a solution, leaves `[num_samples, ...]`.
        is_new: `[num_samples]` booleans: which rows to draw.
    """
    solution = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), noise)

    def draw_all(key: jax.Array, noise: Any, is_new: jax.Array) -> Any:
        new = normal_like(key, solution, num_samples=is_new.shape[0])
        return jax.tree.map(lambda n, o: jnp.where(is_new.reshape(-1, *[1] * (o.ndim - 1)), n, o), new, noise)

    @jax.custom_batching.sequential_vmap  # without it, batched loops copy all noise in each iteration
    def draw_new(key: jax.Array, noise: Any, is_new: jax.Array) -> Any:
        order = jnp.argsort(~is_new, stable=True).astype(jnp.uint32)

        def draw_one(i: jax.Array, noise: Any) -> Any:
            row = normal_rows(key, solution, order[i][None])
            return jax.tree.map(lambda x, r: jax.lax.dynamic_update_slice_in_dim(x, r, order[i], 0), noise, row)

        return jax.lax.fori_loop(0, jnp.sum(is_new), draw_one, noise)

    leaves = jax.tree.leaves(noise)
    if sum(x.size for x in leaves) < _MANY_NUMBERS or not all(_counts_rows(key, x.dtype) for x in leaves):
        return draw_all(key, noise, is_new)
    # An accelerator draws all rows faster than it runs a loop whose length depends on data.
    return jax.lax.platform_dependent(key, noise, is_new, cpu=draw_new, default=draw_all)


def normal_rows(key: jax.Array, solution: Any, rows: jax.Array) -> Any:
    """Returns rows of a draw, each leaf `[len(rows), *leaf.shape]`. A row depends only on the key and its row number.

    Under `vmap` this holds only for keys of threefry, JAX's default generator.
    """
    leaves, structure = jax.tree.flatten(solution)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    # Draws small leaves together, because each draw takes many small kernels and much compile time.
    small = [size < _LARGE_LEAF and leaf.dtype == leaves[0].dtype for size, leaf in zip(sizes, leaves, strict=True)]
    key_small, *keys = jax.random.split(key, 1 + small.count(False))
    num_small = sum(size for size, is_small in zip(sizes, small, strict=True) if is_small)
    pool = _draw_rows(key_small, rows, num_small, leaves[0].dtype)
    noise, position = [], 0
    for each, size, is_small in zip(leaves, sizes, small, strict=True):
        if is_small:
            flat = jax.lax.slice_in_dim(pool, position, position + size, axis=1)
            position += size
        else:
            flat = _draw_rows(keys.pop(), rows, size, each.dtype)
        noise.append(flat.reshape(len(rows), *each.shape))
    return jax.tree.unflatten(structure, noise)


def _draw_rows(key: jax.Array, rows: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Returns standard normals `[len(rows), size]`.

    One block of Threefry yields 64 bits from a 64-bit counter (Salmon et al. 2011). `jax.random` keeps 32 of them. This
    function uses row and column as the counter and keeps all bits, which halves the cost. With other generators and
    precisions it calls `jax.random` with one key per row.
    """
    if not _counts_rows(key, dtype):
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
        return jax.vmap(lambda k: jax.random.normal(k, (size,), dtype))(keys)
    words = KeyWords.of(key).words
    num_blocks = -(-size // 2)
    columns = jnp.arange(num_blocks, dtype=jnp.uint32)[None]
    # The primitive needs counters of equal shape, even if `vmap` added an axis to only some of these arrays.
    same = (rows[:, None] ^ rows[:, None]) ^ (words[0] ^ words[0])
    counter = jnp.broadcast_arrays(rows[:, None] ^ same, columns ^ same)
    bits = jnp.concatenate(threefry2x32_p.bind(words[0], words[1], *counter), axis=1)[:, :size]
    # Like `jax.random.normal`: 23 random bits are the mantissa of a number in [1, 2), which is mapped to (-1, 1).
    unit = jax.lax.bitcast_convert_type((bits >> 9) | np.uint32(0x3F800000), jnp.float32) - 1
    low = np.nextafter(np.float32(-1), np.float32(0))
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(jnp.maximum(low, unit * (1 - low) + low))


def _counts_rows(key: jax.Array, dtype: Any) -> bool:
    """Whether row and column can be the counter of the generator: threefry in single precision."""
    return dtype == jnp.float32 and jax.random.key_impl(key) == "threefry2x32"


def uniform_like(key: jax.Array, values: Any) -> Any:
    """Returns independent uniform numbers in [0, 1), in the structure, the shapes and the dtypes of the values."""
    leaves, structure = jax.tree.flatten(values)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.uniform(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


def weighted_sum(weights: jax.Array, population: Any, like: Any = None) -> Any:
    """Returns the weighted sum of the members, in the structure of one solution.

    For an `ImplicitPopulation` it is the weighted sum of the deviations from the mean. Both are equal if the weights
    sum to zero.

    Args:
        weights: `[population_size]`.
        population: The population. Members in half precision are summed in single precision.
        like: A solution that gives the dtypes of the sum. Defaults to the dtypes of the members.
    """
    if isinstance(population, ImplicitPopulation):
        return population.weighted_sum(weights)

    def contract(weights: jax.Array, population: Any) -> Any:
        return jax.tree.map(functools.partial(_contract, weights), population, population if like is None else like)

    if sharding.num_shards() > 1:
        contract = sharding.on_shards(contract, axes=(0, 0), out_axis=None)
    return contract(weights, population)


def _contract(weights: jax.Array, members: jax.Array, like: jax.Array) -> jax.Array:
    flat = members.reshape(members.shape[0], math.prod(members.shape[1:]))
    dtype = at_least_float32(members.dtype)
    rounded = weights.astype(members.dtype)
    if dtype == members.dtype:
        total = jnp.dot(rounded, flat)
    else:  # adds the rounding errors of the weights, so that weights that sum to zero still do
        rest = (weights - rounded.astype(weights.dtype)).astype(members.dtype)
        total = jnp.sum(jnp.dot(jnp.stack([rounded, rest]), flat, preferred_element_type=dtype), axis=0)
    return total.reshape(members.shape[1:]).astype(like.dtype)


def clip_std(std: jax.Array) -> jax.Array:
    """Clips a standard deviation to a range in which its square and its reciprocal neither under- nor overflow."""
    limits = jnp.finfo(std.dtype)
    return jnp.clip(std, float(limits.tiny) ** 0.5, float(limits.max) ** 0.5)
