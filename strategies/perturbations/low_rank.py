"""Low-rank perturbations: kernels plus products of thin factors, which share one matrix product across a population.

A kernel with R rows and C columns is perturbed by E = A B^T / sqrt(r), where A, `[R, r]`, and B, `[C, r]`, are standard
normal. The product of the inputs with the mean's kernel is then the same for all members. Each member adds only two
thin products.

Reference: Sarkar et al. 2025, "Evolution Strategies at the Hyperscale" (EGGROLL), arXiv 2511.16652.

The entries of E have mean zero, variance one and no correlation, but they are not Gaussian. The estimate keeps the
weights of Gaussian smoothing. By Stein's identity for A its expectation is E[grad f(mean + sigma E) B B^T / r]. This is
an average of gradients around the mean, with weights B B^T / r whose expectation is the identity. It tends to the
gradient of the Gaussian-smoothed fitness as r grows. It is exactly the gradient where the fitness is quadratic, and
elsewhere as sigma goes to 0.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Solution, at_least_float32, sharding
from zoo.core.noise import KeyWords, normal_rows, row_numbers
from zoo.core.promotion import common_dtype
from zoo.strategies.perturbations.base import (
    ImplicitPerturbation,
    Noise,
    Shared,
    dense_member,
    inner_product,
    positive_integer,
)


class Factors(NamedTuple):
    """The factors of a perturbation A B^T. A is already divided by the root of the rank."""

    left: jax.Array  # [n, *rows, rank]
    right: jax.Array  # [n, *columns, rank]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(ImplicitPerturbation):
    """Perturbations of low rank for every leaf that is larger than its factors; Gaussian ones for the other leaves.

    An array with more than two axes counts as a matrix: its first axes are the rows, the others the columns. The split
    is chosen to make the matrix as square as possible, with a preference for one axis against all others. This covers
    the kernels of convolutions and of attention heads, and stacked layers. Models are not changed: an operation on a
    kernel is split into its parts (`low_rank_array`). An operation that cannot be split gets the materialised kernel,
    with a warning.

    Attributes:
        rank: Rank of the perturbations, at least 1.

    References:
        Sarkar et al. 2025, arXiv 2511.16652.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        object.__setattr__(self, "rank", positive_integer(self.rank, "LowRank.rank"))

    def draw(self, key: jax.Array, solution: Solution, num_samples: int) -> Noise:
        """Returns noise of low rank, which is drawn once and stored."""
        draw = functools.partial(_draw_rows, like=self._numbers(solution))
        return self._noise(lambda rows: draw(KeyWords.of(key).key, rows), solution, row_numbers(num_samples))

    def draw_rows(self, key: jax.Array, solution: Solution, rows: jax.Array) -> Noise:
        """Returns the noise of the given rows, each drawn with its own key."""
        keys, draw = KeyWords.of_threefry(key), functools.partial(_draw_rows, like=self._numbers(solution))
        return self._noise(lambda words, rows: draw(keys.replace(words=words).key, rows), solution, keys.words, rows)

    def _noise(self, draw: Callable[..., Any], solution: Solution, *rows: jax.Array) -> Noise:
        """Returns the noise of rows. Each device draws the noise of its own rows."""
        if sharding.num_shards() > 1:
            draw = sharding.on_shards(draw, axes=[0] * len(rows), out_axis=0)
        root = math.sqrt(self.rank)

        def finish(x: jax.Array, z: Any) -> Any:
            return z._replace(left=z.left / root) if isinstance(z, Factors) and self.rank > 1 else z

        thin, structure = jax.tree.flatten(self._thin(solution))
        ends = np.cumsum([math.prod(x.shape) for x in thin])
        parts = jnp.split(draw(*rows), ends[:-1], axis=1)
        parts = [each.reshape(len(each), *x.shape).astype(x.dtype) for each, x in zip(parts, thin, strict=True)]
        factors = jax.tree.map(finish, solution, jax.tree.unflatten(structure, parts))
        return Noise(form=self, solution=solution, shared=None, rows=factors)

    def sample(self, shared: Any, row: Any, solution: Solution) -> Any:
        """Returns the noise of a row, which is already stored."""
        return row

    def member(self, mean: jax.Array, z: Any, scale: jax.Array, shared: Shared) -> Any:
        """Returns one leaf of a member: an array, or a `LowRankArray`."""
        if not isinstance(z, Factors):
            return dense_member(mean, z, scale, shared, self.dtype)
        from zoo.strategies.perturbations.low_rank_array import LowRankArray

        dtype = self.dtype or mean.dtype
        weight = scale if shared.weight is None else scale * shared.weight
        return LowRankArray(
            base=mean.astype(dtype),
            directions=None if shared.directions is None else _masked(shared.directions, shared.mask).astype(dtype),
            coefficients=None if shared.coordinates is None else (scale * shared.coordinates).astype(dtype),
            left=z.left.astype(dtype),  # the same in all members of a row, which then share products with it
            right=(weight.astype(z.right.dtype) * z.right).astype(dtype),
            mask=None if shared.mask is None else shared.mask.astype(dtype),
            num_columns=z.right.ndim - 1,
        )

    def contract(self, noise: Noise, weights: jax.Array) -> Solution:
        """Returns the weighted sum of the rows."""

        def contract(x: jax.Array, z: Any) -> jax.Array:
            dtype = at_least_float32(x.dtype)
            w = weights.astype(dtype)
            if not isinstance(z, Factors):
                return jnp.tensordot(w, z.astype(dtype), 1)
            left, right = (each.reshape(each.shape[0], -1, self.rank).astype(dtype) for each in z)
            return jnp.einsum("nar,nbr->ab", w[:, None, None] * left, right).reshape(x.shape)

        return jax.tree.map(contract, noise.solution, noise.rows)

    def inner_product(self, z: Any, direction: jax.Array) -> jax.Array:
        """Returns the inner product of a perturbation and an array."""
        if not isinstance(z, Factors):
            return inner_product(z, direction)
        dtype = at_least_float32(direction.dtype)
        left, right = (each.reshape(-1, self.rank).astype(dtype) for each in z)
        matrix = direction.reshape(len(left), len(right)).astype(dtype)
        return jnp.sum(left * jnp.matmul(matrix, right, precision=jax.lax.Precision.HIGHEST))

    def call(self, fn: Callable[..., Any], member: Solution, *args: Any) -> Any:
        """Returns `fn(member, *args)`, with operations on low-rank kernels split into their parts."""
        import quax

        from zoo.strategies.perturbations.low_rank_array import LowRankArray, dense

        leaves, structure = jax.tree.flatten((member, args), is_leaf=lambda x: isinstance(x, LowRankArray))
        structures = []

        # Leaf by leaf, because some nodes, for example of nnx, read the state of the trace when they are made, and so
        # have to be made inside the trace.
        def on_leaves(*leaves: Any) -> list[Any]:
            member, args = jax.tree.unflatten(structure, leaves)
            results, result_structure = jax.tree.flatten(fn(member, *args))
            structures.append(result_structure)
            return results

        results = quax.quaxify(on_leaves)(*leaves)
        return jax.tree.unflatten(structures[-1], map(dense, results))

    def _numbers(self, solution: Solution) -> jax.ShapeDtypeStruct:
        """Returns the shape of the numbers that a row draws: one array, which takes fewer kernels than many arrays."""
        thin = jax.tree.leaves(self._thin(solution))
        return jax.ShapeDtypeStruct((sum(math.prod(x.shape) for x in thin),), common_dtype(*thin))

    def _thin(self, solution: Solution) -> Any:
        """Returns the shapes of the arrays and the factors that a row draws."""

        def of_leaf(x: jax.Array) -> Any:
            num_rows = _num_row_axes(x.shape, self.rank)
            if num_rows is None:
                return jax.ShapeDtypeStruct(x.shape, x.dtype)
            sides: Any = [
                jax.ShapeDtypeStruct((*side, self.rank), x.dtype) for side in (x.shape[:num_rows], x.shape[num_rows:])
            ]
            return Factors(*sides)

        return jax.tree.map(of_leaf, solution)


@functools.partial(jax.jit, static_argnames="like")
def _draw_rows(key: jax.Array, rows: jax.Array, *, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns standard normals `[n, size]`, which the compiler has to store.

    Otherwise the compiler may fuse the arithmetic of the noise into each operation of the model that adds the noise to
    something, and repeat it for every entry of a batch.

    Args:
        key: One key for all rows, or `[n]`, one for each row.
        rows: `[n]` row numbers.
        like: Shape and dtype of a row.
    """
    if key.ndim == 0:
        drawn = normal_rows(key, like, rows)
    else:
        drawn = jax.vmap(lambda k, row: normal_rows(k, like, row[None])[0])(key, rows)

    def barrier(drawn: jax.Array) -> jax.Array:
        # The compiler for CPUs drops optimization barriers. It cannot know that this loop never runs: no number that is
        # drawn is that large.
        return jax.lax.while_loop(lambda z: jnp.max(z[:1, :1], initial=0) > 1e3, lambda z: jnp.minimum(z, 1e3), drawn)

    return jax.lax.platform_dependent(drawn, cpu=barrier, default=jax.lax.optimization_barrier)


def _masked(directions: jax.Array, mask: jax.Array | None) -> jax.Array:
    return directions if mask is None else jnp.where(mask[..., None], directions, 0)


@functools.lru_cache(maxsize=1024)
def _num_row_axes(shape: tuple[int, ...], rank: int) -> int | None:
    """Returns how many first axes are the rows of an array, or `None` if factors would be no smaller than the array."""

    def size(split: int) -> int:
        return rank * (math.prod(shape[:split]) + math.prod(shape[split:]))

    def cost(split: int) -> int:  # a convolution can only be split if one factor has the output axis alone
        return size(split) * (1 if split in (1, len(shape) - 1) else 3)

    best = min(range(1, len(shape)), key=cost, default=None)
    return None if best is None or size(best) >= math.prod(shape) else best
