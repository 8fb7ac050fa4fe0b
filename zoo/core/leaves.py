"""Leaves of a solution by their paths, such as `params/Dense_0/kernel`, and settings in the structure of a solution."""

import re
from typing import Any

import jax
import numpy as np

from zoo.core.solution import Solution


def as_patterns(patterns: Any, name: str) -> tuple[str, ...]:
    """Returns regular expressions for paths of leaves, given as one or several under the setting of that name.

    Raises:
        ValueError: If they are none.
    """
    try:
        patterns = (patterns,) if isinstance(patterns, str) else patterns
        for pattern in patterns:
            re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"{name} must be regular expressions for paths such as 'params/Dense_0/kernel', got {patterns!r}: {error}."
        ) from None
    return tuple(patterns)


def find_leaves(patterns: tuple[str, ...], solution: Solution, name: str, *, way_out: str) -> Any:
    """Returns which leaves have a path in which one of the patterns is found: booleans in the solution's structure.

    Args:
        patterns: Regular expressions.
        solution: A solution, of which only the structure is used.
        name: Of the setting, for messages.
        way_out: What to do if none was to be found, for messages.

    Raises:
        ValueError: If there are patterns, and none is found anywhere.
    """
    chosen = jax.tree_util.tree_map_with_path(
        lambda path, _: any(re.search(pattern, leaf_name(path)) for pattern in patterns), solution
    )
    if patterns and not any(jax.tree.leaves(chosen)):
        names = [
            leaf_name(path) or "(a single array, whose path is empty)"
            for path, _ in jax.tree_util.tree_leaves_with_path(solution)
        ]
        shown = repr(patterns[0] if len(patterns) == 1 else patterns)
        raise ValueError(
            f"{name} {shown} is found in no leaf of the solution: {', '.join(names)}. Name at least one of them, or "
            f"{way_out}."
        )
    return chosen


def leaf_name(path: Any) -> str:
    """Returns the path of a leaf as text: `params/Dense_0/kernel`; empty for a solution that is a single array."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_structure(name: str, given: Any, solution: Solution, *, broadcasts: bool = True) -> None:
    """Raises a `ValueError` if a setting of that name does not fit the structure and the shapes of the solution.

    Args:
        name: Of the setting.
        given: Its value.
        solution: A solution, of which only structure and shapes are used.
        broadcasts: Whether shapes that broadcast to those of the solution will do.
    """
    if jax.tree.structure(given) != jax.tree.structure(solution):
        raise ValueError(
            f"{name} must have the structure of the solution, {jax.tree.structure(solution)}, got "
            f"{jax.tree.structure(given)}."
        )
    for (path, x), value in zip(jax.tree_util.tree_leaves_with_path(solution), jax.tree.leaves(given), strict=True):
        shapes = np.shape(value), np.shape(x)
        try:
            fits = shapes[0] == shapes[1] or (broadcasts and np.broadcast_shapes(*shapes) == shapes[1])
        except ValueError:
            fits = False
        if not fits:
            fit = "broadcast to" if broadcasts else "have the shapes of"
            raise ValueError(
                f"{name} must {fit} the solution: expected shape {shapes[1]} in {leaf_name(path) or 'the solution'}, "
                f"got {shapes[0]}."
            )
