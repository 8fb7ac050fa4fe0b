"""JAX's strict modes of promotion, `jax_numpy_rank_promotion` and `jax_numpy_dtype_promotion`, which users may set.

The zoo works in them: it spells out where ranks and dtypes differ. Not all that it calls of other libraries does.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


@contextlib.contextmanager
def promotion_of_others() -> Iterator[None]:
    """Lets code of other libraries promote ranks and dtypes as it was written to; not for functions of the user."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def common_dtype(*values: Any) -> Any:
    """Returns the dtype that arrays, dtypes and Python numbers are promoted to together."""
    with promotion_of_others():
        return jnp.result_type(*values)


def promoted(*arrays: Any) -> list[jax.Array]:
    """Returns arrays in the dtype that they have in common, such as single precision of half and single."""
    dtype = common_dtype(*arrays)
    return [jnp.asarray(x, dtype) for x in arrays]


def times(number: Any, x: jax.Array) -> jax.Array:
    """Returns a number, or numbers of the same rank, times an array of perhaps another dtype."""
    return jnp.multiply(*promoted(number, x))


def ravel(tree: Any) -> tuple[jax.Array, Any]:
    """Returns a pytree as a vector, and the function back; `ravel_pytree`, whose leaves may differ in dtype."""
    with promotion_of_others():
        return ravel_pytree(tree)
