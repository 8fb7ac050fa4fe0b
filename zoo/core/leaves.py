"""Leaves of a solution by their paths, such as `params/Dense_0/kernel`."""

import re
from typing import Any

import jax


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


def find_leaves(patterns: tuple[str, ...], solution: Any, name: str, *, way_out: str) -> Any:
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
