"""Pruning: masks in the structure of a solution, and the global threshold that selects the weights to keep."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core.leaves import as_patterns, find_leaves, leaf_name
from zoo.core.population import ImplicitPopulation
from zoo.core.promotion import promoted
from zoo.core.solution import Solution

Mask = Any
"""Booleans in the structure and the shapes of a solution, true where a weight is kept."""


def prunable_leaves(solution: Solution, exclude: str | tuple[str, ...] = (), *, name: str = "exclude") -> Any:
    """Returns which leaves are pruned, as Python booleans in the structure of a solution.

    Prunes every leaf with at least two axes, except leaves named `bias` or `scale` (the last part of the path). If the
    solution has no such leaf, for example because it is a vector, prunes all leaves.

    Args:
        solution: A solution. Only its structure and shapes are used.
        exclude: Regular expressions. A leaf is never pruned if one of them matches within its path, such as
            `params/Dense_0/kernel`.
        name: The name of `exclude` in messages.

    Raises:
        ValueError: If a pattern is not a valid regular expression or matches no leaf, or if no leaf is left to prune.
    """
    excluded = find_leaves(as_patterns(exclude, name), solution, name, way_out="leave it out")
    is_kernel = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.ndim(x) >= 2 and leaf_name(path).rpartition("/")[2] not in ("bias", "scale"), solution
    )
    has_kernel = any(jax.tree.leaves(is_kernel))
    chosen = jax.tree.map(lambda kernel, out: not out and (kernel or not has_kernel), is_kernel, excluded)
    if not any(jax.tree.leaves(chosen)):
        raise ValueError(
            f"{name} {exclude!r} matches every prunable leaf (biases are never pruned). Use a narrower pattern."
        )
    return chosen


def full_mask(solution: Solution) -> Mask:
    """Returns the mask that keeps every weight."""
    return jax.tree.map(lambda x: jnp.ones(jnp.shape(x), bool), solution)


def apply_mask(mask: Mask | None, values: Any) -> Any:
    """Returns values with zeros where the mask is false.

    Args:
        mask: A mask. `None` keeps everything.
        values: Arrays in the structure of a solution, which may have further leading axes, such as one for members. Or
            an `ImplicitPopulation`.
    """
    if mask is None:
        return values
    if isinstance(values, ImplicitPopulation):
        return values.masked(mask)
    return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros((), x.dtype)), mask, values)


def keep_best(scores: Any, mask: Mask, num_kept: jax.Array | int, prunable: Any) -> Mask:
    """Returns the mask that keeps the prunable weights with the highest scores, over all leaves at once.

    Keeps exactly `num_kept` weights. Among equal scores, earlier weights are pruned first. NaN is the lowest score.

    Args:
        scores: Numbers in the structure of a solution.
        mask: The weights that are left. Only these can be kept.
        num_kept: How many weights to keep, at most the number that `mask` keeps in prunable leaves. May be traced.
        prunable: The result of `prunable_leaves`. The mask of other leaves does not change.
    """
    leaves, structure = jax.tree.flatten(mask)
    chosen = [i for i, is_chosen in enumerate(jax.tree.leaves(prunable)) if is_chosen]
    all_scores = jax.tree.leaves(scores)
    flat_mask = jnp.concatenate([leaves[i].ravel() for i in chosen])
    flat_scores = jnp.concatenate(promoted(*(all_scores[i].ravel() for i in chosen)))
    flat_scores = jnp.where(jnp.isnan(flat_scores), -jnp.inf, flat_scores)
    order = jnp.lexsort((flat_scores, flat_mask))  # pruned weights first, then the others by ascending score
    size = flat_mask.shape[0]
    is_best = jnp.arange(size, dtype=jnp.int32) >= size - jnp.asarray(num_kept, jnp.int32)
    kept = jnp.zeros(size, bool).at[order].set(is_best, unique_indices=True) & flat_mask
    parts = jnp.split(kept, np.cumsum([leaves[i].size for i in chosen])[:-1])
    for i, part in zip(chosen, parts, strict=True):
        leaves[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def num_surviving(mask: Mask, prunable: Any) -> jax.Array:
    """Returns the number of prunable weights that a mask keeps."""
    counts = jax.tree.map(lambda m, is_chosen: jnp.sum(m, dtype=jnp.int32) if is_chosen else 0, mask, prunable)
    return jnp.asarray(sum(jax.tree.leaves(counts)))


def num_prunable(solution: Solution, prunable: Any) -> int:
    """Returns the number of weights in prunable leaves."""
    sizes = jax.tree.map(lambda x, is_chosen: int(np.prod(jnp.shape(x))) if is_chosen else 0, solution, prunable)
    return sum(jax.tree.leaves(sizes))


def kept_fraction(mask: Mask, prunable: Any) -> float:
    """Returns the fraction of the prunable weights that a mask keeps. The mask must not be traced."""
    return int(num_surviving(mask, prunable)) / num_prunable(mask, prunable)
