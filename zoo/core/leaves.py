"""Leaves of a solution by their paths, such as `params/Dense_0/kernel`."""

import re
from typing import Any

import jax


def as_patterns(patterns: Any, name: str) -> tuple[str, ...]:
    """Returns a tuple of regular expressions for paths of leaves.

    Args:
        patterns: One regular expression, or several.
        name: The name of the setting, for messages.

    Raises:
        ValueError: If a pattern is not a valid regular expression.
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
    """Returns booleans in the structure of a solution: whether one of the patterns matches within the leaf's path.

    Args:
        patterns: Regular expressions.
        solution: A solution. Only its structure is used.
        name: The name of the setting, for messages.
        way_out: What to do to choose no leaf, for messages.

    Raises:
        ValueError: If there are patterns, but none matches any leaf.
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
    """Returns the path of a leaf as text, such as `params/Dense_0/kernel`. It is empty if the solution is one array."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
