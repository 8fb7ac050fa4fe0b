"""JAX's strict modes, which users of a strategy or a problem may switch on for their own code."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def strict_modes() -> Iterator[None]:
    """Makes JAX raise where it would promote ranks or dtypes.

    Code that runs here spells out where ranks and dtypes differ: `mean[None] + sigma * z`, `x.astype(dtype)`. It then
    also runs for users who have set `jax_numpy_rank_promotion` to "raise" and `jax_numpy_dtype_promotion` to "strict".
    """
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield
