"""A solution: a pytree of floating-point arrays, in the user's own structure."""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from zoo.core.structure import fit_structure

Solution = Any
"""A pytree of floating-point arrays, in the user's own structure."""


def check_solution(solution: Solution, name: str = "the solution") -> Solution:
    """Returns the solution as JAX arrays of fixed dtype.

    Args:
        solution: The solution.
        name: The name of the solution, for messages.

    Raises:
        TypeError: If a leaf is not a floating-point array.
        ValueError: If the solution has no leaves or no entries.
    """
    leaves = jax.tree_util.tree_leaves_with_path(solution)
    if not leaves:
        raise ValueError(f"Expected arrays of floats, but {name} is an empty pytree: there is nothing to optimise.")
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and isinstance(leaf, float):
            continue
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"Solutions are pytrees of floating-point arrays, but {_leaf_name(path, name)} is "
                f"{type(leaf).__name__ if dtype is None else dtype}. Convert it (x.astype(float)), or leave "
                "what is not optimised out of the solution."
            )
    if num_dims(solution) == 0:
        raise ValueError(f"Expected numbers, but {name} has no entries: {[x.shape for _, x in leaves]} are the shapes.")
    # An explicit dtype drops the weak type of Python floats. Otherwise their type would change inside a scan.
    return jax.tree.map(lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(jnp.result_type(x))), solution)


def check_start(solution: Solution, like: Solution = None, name: str = "solution") -> Solution:
    """Returns a solution that a user gave, like `check_solution`, and also checks its values, structure and shapes.

    Values are checked only if they are known. Under `jit` they are not.

    Args:
        solution: The solution.
        like: A solution of the problem. Only its structure and shapes are used. With `None`, any structure is valid.
        name: The name of the solution, for messages.

    Raises:
        TypeError: If a leaf is not a floating-point array.
        ValueError: If the solution has no entries, has an entry that is NaN or infinite, or does not fit `like`.
    """
    checked = check_solution(solution, "the solution" if name == "solution" else name)
    if like is not None:
        fit_structure(name, checked, like, exact=True, like="the problem's solution")
    check_finite(checked, name)
    return checked


def check_finite(solution: Solution, name: str) -> None:
    """Raises a `ValueError` that names the first leaf that is not finite. Skips leaves with unknown values."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(solution):
        if isinstance(leaf, Tracer) or not leaf.is_fully_addressable:
            continue
        values = jax.device_get(leaf)
        num_bad = values.size - np.count_nonzero(np.isfinite(values))
        if num_bad:
            raise ValueError(
                f"{name} must be finite, but {num_bad} of {values.size} entries of {_leaf_name(path)} are NaN or "
                "infinite. Start from finite numbers."
            )


def _leaf_name(path: Any, of_array: str = "the array") -> str:
    return jax.tree_util.keystr(path) or of_array


def start_or_initialiser(solution: Solution | Callable[[jax.Array], Solution]) -> dict[str, Any]:
    """Returns a dictionary with `init_fn` if the argument is a function from a key to a solution, else with `solution`.

    A pytree that holds arrays is a solution even if it is callable, such as a module.

    Raises:
        TypeError: If the argument is neither, or if it could be both.
        ValueError: If the solution has no entries, or is not finite.
    """
    return {"init_fn": solution} if _is_initialiser(solution) else {"solution": check_start(solution)}


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, type)


def _is_initialiser(solution: Any) -> bool:
    if not callable(solution):
        return False
    # Methods of Equinox modules are pytrees themselves. Jitted functions have `__wrapped__`.
    if isinstance(solution, _FUNCTIONS) or hasattr(solution, "__func__") or hasattr(solution, "__wrapped__"):
        return True
    if any(map(_is_floats, jax.tree.leaves(solution))):
        return False
    attributes = getattr(solution, "__dict__", {})
    if dataclasses.is_dataclass(solution) or any(map(_is_floats, jax.tree.leaves(attributes))):
        raise TypeError(
            f"A {type(solution).__name__} can be called, so it could be a solution or a function from a random key to "
            "a solution. For a solution, pass a pytree of arrays, such as the variables of a Flax module, or register "
            "the class with JAX. For a function, wrap it: lambda key: module(key)."
        )
    return True


def _is_floats(value: Any) -> bool:
    return isinstance(value, (float, np.ndarray, np.generic, jax.Array))


def num_dims(solution: Solution) -> int:
    """Returns the number of parameters of a solution."""
    return sum(int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(solution))
