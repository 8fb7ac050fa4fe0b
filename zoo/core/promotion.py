"""Promotion of ranks and dtypes under JAX's strict modes, `jax_numpy_rank_promotion` and `jax_numpy_dtype_promotion`.

Users may set these modes, so the zoo's code converts ranks and dtypes explicitly. Some libraries that it calls do not.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


@contextlib.contextmanager
def promotion_of_others() -> Iterator[None]:
    """Lets other libraries promote ranks and dtypes. Do not use it around the user's functions."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def common_dtype(*values: Any) -> Any:
    """Returns the dtype that arrays, dtypes and Python numbers promote to."""
    with promotion_of_others():
        return jnp.result_type(*values)


def promoted(*arrays: Any) -> list[jax.Array]:
    """Returns arrays converted to their common dtype. Half and single precision, for example, become single."""
    dtype = common_dtype(*arrays)
    return [jnp.asarray(x, dtype) for x in arrays]


def times(number: Any, x: jax.Array) -> jax.Array:
    """Returns a number times an array, which may have another dtype. `number` may also be an array of the same rank."""
    return jnp.multiply(*promoted(number, x))


def ravel(tree: Any) -> tuple[jax.Array, Any]:
    """Returns a pytree as a vector, and the inverse function. Like `ravel_pytree`, but leaves may differ in dtype."""
    with promotion_of_others():
        return ravel_pytree(tree)
