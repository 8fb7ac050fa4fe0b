"""Converts the keys and seeds that users give into JAX's random keys."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.checks import is_whole, shown


def as_key(key: Any, name: str = "key", *, takes_seeds: bool = True) -> jax.Array:
    """Returns one random key, given as a seed, a key, or a raw key.

    Args:
        key: A whole number, `jax.random.key(seed)`, or `jax.random.PRNGKey(seed)`.
        name: The name of the argument, for messages.
        takes_seeds: Whether a seed is valid. It is not where a caller would pass the same seed in every generation.

    Raises:
        TypeError: If `key` is not one of these.
        ValueError: If the seed is out of range, or `key` is an array of keys.
    """
    if takes_seeds and is_whole(key):
        return jax.random.key(check_seed(key, name))
    if is_key(key):
        if key.shape:
            raise ValueError(
                f"{name} must be one random key, got an array of keys of shape {key.shape}. Pass one of them; "
                "zoo.benchmark(num_seeds=...) runs several seeds."
            )
        return key
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32:
        expected = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
        if key.shape != expected:
            raise ValueError(
                f"{name} must be one random key; raw keys of this generator have shape {expected}, got {key.shape}. "
                "Pass one key of the array, or name its generator: jax.random.wrap_key_data(key, impl='rbg')."
            )
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(
        f"{name} must be a random key, jax.random.key(seed){', or a seed' * takes_seeds}, got {shown(key)}."
    )


def check_seed(seed: Any, name: str) -> int:
    """Returns a seed as an integer.

    JAX keeps only 32 bits of a seed unless double precision is on. Two larger seeds could silently be the same.

    Args:
        seed: A whole number.
        name: The name of the argument, for messages.

    Raises:
        TypeError: If the seed is not a whole number.
        ValueError: If the seed is out of range.
    """
    if not is_whole(seed):
        raise TypeError(f"{name} must be a seed, a whole number, got {shown(seed)}.")
    bits = 63 if jax.config.jax_enable_x64 else 32  # pyright: ignore[reportAttributeAccessIssue]
    if not 0 <= seed < 2**bits:
        raise ValueError(f"{name} must be a seed from 0 to 2**{bits} - 1, got {shown(seed)}.")
    return operator.index(seed)


def is_key(value: Any) -> bool:
    """Whether a value is an array of typed random keys."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
