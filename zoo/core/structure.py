"""Fits settings to the structure of a solution, and names the first leaf that does not fit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.leaves import leaf_name

_MAX_NAMES = 5  # in a message


def fit_structure(name: str, given: Any, solution: Any, *, exact: bool = False, like: str = "the solution") -> Any:
    """Returns the value of a setting in the structure of a solution.

    A list of numbers becomes an array wherever the solution has an array. Where the solution has `None`, the result has
    `None` too: `frozen`, for example, hides a frozen leaf from its base in this way.

    Args:
        name: The name of the setting, for messages.
        given: The value of the setting.
        solution: A solution. Only its structure and shapes are used.
        exact: Whether the value must have arrays of exactly the solution's shapes. Otherwise lists are valid too, and
            shapes may broadcast.
        like: What to call the solution in messages.

    Raises:
        ValueError: If the value does not fit. The message names the first leaf that does not fit.
    """

    def fit(path: tuple[Any, ...], value: Any, x: Any) -> Any:
        place = f" in {leaf_name(path)}" if path else ""
        if _is_leaf(x):
            array = value if exact else _as_array(value)
            if _is_leaf(array) and _fits(np.shape(array), np.shape(x), exact):
                return array
            rule, got = "have the shapes of" if exact else "broadcast to", _described(array).removeprefix("shape ")
            advice = " Make it an array, as by np.asarray." if exact and isinstance(value, (list, tuple)) else ""
            raise ValueError(f"{name} must {rule} {like}: expected shape {np.shape(x)}{place}, got {got}.{advice}")
        if x is None and not exact:
            return None
        (wanted, structure), (found, found_structure) = _children(x), _children(value)
        if found_structure != structure:
            difference = _difference(path, value, x)
            raise ValueError(f"{name} must have the structure of {like}: {difference}.")
        values = [fit((*path, *step), v, w) for (step, v), (_, w) in zip(found, wanted, strict=True)]
        return jax.tree.unflatten(structure, values)

    return fit((), given, solution)


def _children(tree: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Returns the children of the root with their paths, and the structure in which these children are leaves."""
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)


def _fits(shape: tuple[int, ...], expected: tuple[int, ...], exact: bool) -> bool:
    try:
        return shape == expected or (not exact and np.broadcast_shapes(shape, expected) == expected)
    except ValueError:
        return False


def _as_array(value: Any) -> Any:
    """Returns a list or tuple of numbers as an array, and anything else as it is."""
    if type(value) not in (list, tuple):
        return value
    # NumPy keeps known values known under `jit`, but cannot hold traced ones.
    is_traced = any(isinstance(x, jax.Array) for x in jax.tree.leaves(value))
    try:
        array = (jnp if is_traced else np).asarray(value)
    except (ValueError, TypeError):  # rows of different lengths, or anything but numbers
        return value
    is_numbers = jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool
    return array if is_numbers else value


def _difference(path: tuple[Any, ...], value: Any, x: Any) -> str:
    """Returns in words how a node of a value differs from the node of a solution at the same path."""
    found, wanted = ({leaf_name((*path, *step)): child for step, child in _children(tree)[0]} for tree in (value, x))
    place = f" in {leaf_name(path)}" if path else ""
    if type(value) is not type(x) or found.keys() == wanted.keys():
        return f"expected {_described(x)}{place}, got {_described(value)}"
    for name, child in wanted.items():
        if name not in found:
            return f"expected {_described(child)} in {name}, got {_names(found)}"
    name = next(name for name in found if name not in wanted)
    return f"expected {_names(wanted)}, got {_described(found[name])} in {name}"


def _is_leaf(tree: Any) -> bool:
    return jax.tree_util.all_leaves([tree])


def _described(tree: Any) -> str:
    if tree is None:
        return "None"
    return f"shape {np.shape(tree)}" if _is_leaf(tree) else f"a {type(tree).__name__}"


def _names(children: Any) -> str:
    names = list(children)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"only {', '.join(names[:_MAX_NAMES])}{more}" if names else "nothing"
