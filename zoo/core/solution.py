"""A solution: a pytree of floating-point arrays, in the user's own structure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Solution = Any
"""A pytree of floating-point arrays, in the user's own structure."""


def check_solution(solution: Solution) -> Solution:
    """Returns the solution as JAX arrays of fixed dtype, or says what is wrong with it.

    Raises:
        TypeError: If a leaf is not a floating-point array.
        ValueError: If there is nothing to optimise.
    """
    leaves = jax.tree_util.tree_leaves_with_path(solution)
    if not leaves:
        raise ValueError("The solution is an empty pytree: there is nothing to optimise. Expected arrays of floats.")
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and isinstance(leaf, float):
            continue
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            name = jax.tree_util.keystr(path) or "the solution"
            raise TypeError(
                f"Solutions are pytrees of floating-point arrays, but {name} is "
                f"{type(leaf).__name__ if dtype is None else dtype}. Convert it (x.astype(float)), or keep what is "
                "not optimised out of the solution."
            )
    if num_dims(solution) == 0:
        raise ValueError(f"The solution has no entries: its arrays have shapes {[x.shape for _, x in leaves]}.")
    # An explicit dtype drops the weak type of Python floats, which would otherwise change under a scan.
    return jax.tree.map(lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x))), solution)


def num_dims(solution: Solution) -> int:
    """Returns the number of parameters of a solution."""
    return sum(int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(solution))
