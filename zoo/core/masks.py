"""Pruning: masks in the structure of a solution, and the global threshold that decides what they keep."""

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
    """Returns which leaves are pruned: Python booleans in the structure of a solution.

    Those with two axes or more are, as the others of a network are its biases and scales; but for those called so, with
    the last part of their path `bias` or `scale`. Where that leaves none, as in a solution that is a vector, all are.

    Args:
        solution: A solution, of which only structure and shapes are used.
        exclude: Regular expressions; leaves in whose path, such as `params/Dense_0/kernel`, one is found are never
            pruned.
        name: What to call `exclude` in messages.

    Raises:
        ValueError: If an expression is none or is found nowhere, or nothing is left to prune.
    """
    excluded = find_leaves(as_patterns(exclude, name), solution, name, way_out="leave it out")
    is_kernel = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.ndim(x) >= 2 and leaf_name(path).rpartition("/")[2] not in ("bias", "scale"), solution
    )
    has_kernel = any(jax.tree.leaves(is_kernel))
    chosen = jax.tree.map(lambda kernel, out: not out and (kernel or not has_kernel), is_kernel, excluded)
    if not any(jax.tree.leaves(chosen)):
        raise ValueError(
            f"{name} {exclude!r} leaves nothing to prune: biases never are. Let it be found in fewer leaves."
        )
    return chosen


def full_mask(solution: Solution) -> Mask:
    """Returns the mask that keeps every weight."""
    return jax.tree.map(lambda x: jnp.ones(jnp.shape(x), bool), solution)


def apply_mask(mask: Mask | None, values: Any) -> Any:
    """Returns values with zeros where the mask is false.

    Args:
        mask: A mask; `None` keeps everything.
        values: In the structure of a solution; leaves may have further leading axes, such as one of members. Or a
            population that is not stored.
    """
    if mask is None:
        return values
    if isinstance(values, ImplicitPopulation):
        return values.masked(mask)
    return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros((), x.dtype)), mask, values)


def keep_best(scores: Any, mask: Mask, num_kept: jax.Array | int, prunable: Any) -> Mask:
    """Returns the mask that keeps of the prunable weights those with the highest scores, over all leaves at once.

    Exactly that many are kept: of equal scores the ones that come first go first. NaN is the lowest score.

    Args:
        scores: Numbers in the structure of a solution.
        mask: Which weights there are: no others are kept.
        num_kept: How many to keep, at most as many as there are; may be traced.
        prunable: `prunable_leaves`; the other leaves stay as they are.
    """
    leaves, structure = jax.tree.flatten(mask)
    chosen = [i for i, is_chosen in enumerate(jax.tree.leaves(prunable)) if is_chosen]
    all_scores = jax.tree.leaves(scores)
    flat_mask = jnp.concatenate([leaves[i].ravel() for i in chosen])
    flat_scores = jnp.concatenate(promoted(*(all_scores[i].ravel() for i in chosen)))
    flat_scores = jnp.where(jnp.isnan(flat_scores), -jnp.inf, flat_scores)
    order = jnp.lexsort((flat_scores, flat_mask))  # what is gone first, then the survivors from the lowest score on
    size = flat_mask.shape[0]
    is_best = jnp.arange(size, dtype=jnp.int32) >= size - jnp.asarray(num_kept, jnp.int32)
    kept = jnp.zeros(size, bool).at[order].set(is_best, unique_indices=True) & flat_mask
    parts = jnp.split(kept, np.cumsum([leaves[i].size for i in chosen])[:-1])
    for i, part in zip(chosen, parts, strict=True):
        leaves[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def num_surviving(mask: Mask, prunable: Any) -> jax.Array:
    """Returns how many of the prunable weights a mask keeps."""
    counts = jax.tree.map(lambda m, is_chosen: jnp.sum(m, dtype=jnp.int32) if is_chosen else 0, mask, prunable)
    return jnp.asarray(sum(jax.tree.leaves(counts)))


def num_prunable(solution: Solution, prunable: Any) -> int:
    """Returns how many weights could be pruned."""
    sizes = jax.tree.map(lambda x, is_chosen: int(np.prod(jnp.shape(x))) if is_chosen else 0, solution, prunable)
    return sum(jax.tree.leaves(sizes))


def kept_fraction(mask: Mask, prunable: Any) -> float:
    """Returns the fraction of the prunable weights that a mask, which is known, keeps."""
    return int(num_surviving(mask, prunable)) / num_prunable(mask, prunable)
