"""Random keys, as users give them and as JAX has them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_key(key: Any) -> jax.Array:
    """Returns a random key from a seed, a key, or a key of the older kind.

    Raises:
        TypeError: If it is none of them.
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and is_key(key):
        return key
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32:
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(f"Expected a random key, jax.random.key(seed), or a seed; got {key!r}.")


def is_key(value: Any) -> bool:
    """Whether a value is an array of typed random keys."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
