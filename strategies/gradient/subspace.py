"""What strategies share that search a low-dimensional subspace harder than the rest: bases, sampling, estimate.

A subspace is given by k directions, which are never copied into a matrix. Only their k x k Gram matrix is computed,
leaf by leaf. Its eigenvectors say how the directions combine to an orthonormal basis.
"""

import abc
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Groups, Solution, State, at_least_float32, num_dims, static
from zoo.strategies.gradient.base import GradientStrategy
from zoo.strategies.perturbations.base import Noise
from zoo.strategies.shaping import Shaping

_PRECISION = jax.lax.Precision.HIGHEST  # a vector minus its projection must not be mere rounding


class Basis(NamedTuple):
    """An orthonormal basis of the span of k directions.

    Attributes:
        directions: `[k, ...]` in the structure of a solution.
        coefficients: `[k, k]`: basis vector j is sum_i coefficients[j, i] directions[i]. A row is zero where the
            directions span fewer than k dimensions.
        rank: `[]`: how many rows are not zero.
    """

    directions: Solution
    coefficients: jax.Array
    rank: jax.Array

    def combine(self, coordinates: jax.Array) -> Solution:
        """Returns the vectors with the given coordinates, `[..., k]`, in the structure of a solution."""
        weights = jnp.matmul(coordinates, self.coefficients, precision=_PRECISION)
        return jax.tree.map(
            lambda d: jnp.tensordot(weights.astype(d.dtype), d, 1, precision=_PRECISION), self.directions
        )

    def coordinates(self, vectors: Solution) -> jax.Array:
        """Returns the coordinates `[n, k]` of the projections of n vectors, leaves `[n, ...]`, on the subspace."""
        return jnp.matmul(inner_products(vectors, self.directions), self.coefficients.T, precision=_PRECISION)

    def only_if(self, condition: jax.Array) -> "Basis":
        """Returns the basis if a condition holds, else an empty basis."""
        return self._replace(
            coefficients=jnp.where(condition, self.coefficients, 0), rank=jnp.where(condition, self.rank, 0)
        )

    def squared_entries(self) -> Solution:
        """Returns the diagonal of the projection on the subspace, in the structure of a solution."""
        vectors = self.combine(jnp.eye(len(self.coefficients), dtype=self.coefficients.dtype))
        return jax.tree.map(lambda v: jnp.sum(v**2, axis=0), vectors)


def orthonormal_basis(directions: Solution, *, explained: float | jax.Array = 1.0) -> Basis:
    """Returns an orthonormal basis of the span of directions, `[k, ...]`.

    A direction that is zero or repeated adds no basis vector.

    Args:
        directions: `[k, ...]` in the structure of a solution.
        explained: Fraction of the sum of squares at which to stop. Principal directions are kept, largest first, until
            they have it.
    """
    gram = inner_products(directions, directions)
    values, vectors = jnp.linalg.eigh(gram)  # ascending
    largest = values[-1]
    # Rounding leaves the null space with eigenvalues of about eps. Basis vectors in it would be noise, and those near
    # it would not be orthonormal.
    tolerance = 100 * len(values) * jnp.finfo(values.dtype).eps
    kept = (values > tolerance * largest) & (largest > 0)
    above = (jnp.cumsum(values[::-1])[::-1] - values) / jnp.where(largest > 0, jnp.sum(jnp.maximum(values, 0)), 1)
    kept &= above < explained
    scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
    return Basis(directions, scale[:, None] * vectors.T, jnp.sum(kept))


def inner_products(one: Solution | Noise, other: Solution) -> jax.Array:
    """Returns the inner products `[n, m]` of vectors with leaves `[n, ...]` and `[m, ...]`, at least in float32.

    The first vectors may be noise that is not stored.
    """
    if isinstance(one, Noise):
        return one.inner_products(other)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        dtype = at_least_float32(x.dtype)
        x, y = (z.reshape(z.shape[0], -1).astype(dtype) for z in (x, y))
        return jnp.matmul(x, y.T, precision=_PRECISION)

    return sum(jax.tree.leaves(jax.tree.map(product, one, other)))  # pyright: ignore[reportReturnType]


def combine(noise: Any, weights: jax.Array, basis: Basis, coordinates: jax.Array) -> Any:
    """Returns the vectors weights_i z_i plus the vectors with coordinates `[n, k]` in a subspace.

    Args:
        noise: z, `[n, ...]` in the structure of a solution, or noise that is not stored.
        weights: `[n]`, or a scalar.
        basis: The subspace.
        coordinates: `[n, k]`, in the basis.
    """
    if isinstance(noise, Noise):
        coefficients = jnp.matmul(coordinates, basis.coefficients, precision=_PRECISION)
        return noise.combine(weights, coefficients, basis.directions)

    def add(z: jax.Array, u: jax.Array) -> jax.Array:
        w = weights.reshape(-1, *[1] * (z.ndim - 1)) if weights.ndim else weights
        return w.astype(z.dtype) * z + u.astype(z.dtype)

    return jax.tree.map(add, noise, basis.combine(coordinates))


def store(directions: Solution, direction: Solution, index: jax.Array) -> Solution:
    """Returns the directions with number `index` modulo k replaced by another one."""

    def put(all: jax.Array, one: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(all, one.astype(all.dtype), index % all.shape[0], 0)

    return jax.tree.map(put, directions, direction)


def no_directions(solution: Solution, num_directions: int) -> Solution:
    """Returns directions that are all zero."""
    return jax.tree.map(lambda x: jnp.zeros((num_directions, *x.shape), x.dtype), solution)


class SubspaceStrategy(GradientStrategy):
    """Base of strategies that sample antithetic pairs with regard to a subspace, and subtract the fitness within pairs.

    The estimate is as in OpenAI-ES, sum_i eps_i (f(m + eps_i) - f(m - eps_i)) / (2 sigma^2 num_pairs).

    Attributes:
        subspace_dims: Number of directions that are kept, at least 1: the largest rank of the subspace.
    """

    shaping: str | Shaping = static(default="none")
    subspace_dims: int = static(default=1, at_least=1)

    @property
    def groups(self) -> Groups:
        """The groups: antithetic pairs if fitness is only subtracted, one group if all members are compared."""
        return Groups.of(self._fixed_size, 2) if self.shaping == "none" else super().groups

    @abc.abstractmethod
    def basis(self, state: State) -> Basis:
        """Returns the subspace that the next population is drawn from, or that the last one was drawn from."""


class EllipsoidStrategy(SubspaceStrategy):
    """Base of strategies that sample N(0, sigma^2 (alpha/n I + (1 - alpha)/k U U^T)) in n dimensions.

    The columns of U are an orthonormal basis, and k is its actual rank. While k is zero, alpha counts as one. The trace
    of the covariance is always sigma^2.

    Attributes:
        sigma: Length of a perturbation, in the units of the solution, above 0. Its square is the trace of the search
            covariance, so a perturbation of a single parameter is of the order sigma / sqrt(n). A problem's suggestion
            is per parameter, and is converted.
    """

    @classmethod
    def with_suggestions(
        cls, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Solution
    ) -> dict[str, Any]:
        """Returns settings, completed by the suggested ones; sigma becomes the length of the same perturbation."""
        if "sigma" in suggestions:
            suggestions = {**suggestions, "sigma": suggestions["sigma"] * math.sqrt(num_dims(solution))}
        return super().with_suggestions(settings, suggestions, solution)

    def sigma_at(self, state: State) -> jax.Array:
        """Returns the length of a perturbation; where a mask leaves fewer entries, the length of its part in them."""
        sigma = super().sigma_at(state)
        return sigma * jnp.sqrt(self.space.num_dims(state.descent.mean) / num_dims(state.descent.mean))

    @abc.abstractmethod
    def alpha_at(self, state: State) -> jax.Array:
        """Returns the weight of the whole space in the search covariance, in [0, 1], for when there is a subspace."""

    def std(self, state: State) -> Solution:
        """Returns the standard deviation per parameter: the root of the diagonal of the search covariance."""
        basis = self.basis(state)
        whole, inside = self._variances(state, basis.rank)

        def std(m: jax.Array, u: jax.Array) -> jax.Array:
            return (self.sigma_at(state) * jnp.sqrt(whole + inside * u.astype(inside.dtype))).astype(m.dtype)

        return jax.tree.map(std, state.descent.mean, basis.squared_entries())

    def _variances(self, state: State, rank: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the variance of a perturbation over sigma^2 in any direction, and what a basis vector adds to it."""
        alpha = jnp.where(rank > 0, self.alpha_at(state), 1.0)
        return alpha / self.space.num_dims(state.descent.mean), (1 - alpha) / jnp.maximum(rank, 1).astype(alpha.dtype)

    def draw_around(self, key: jax.Array, state: State, basis: Basis) -> Any:
        """Returns perturbations over sigma, `[num_pairs, ...]` in the structure of a solution."""
        key_whole, key_inside = jax.random.split(key)
        num_pairs = self._num_members(state.descent.mean) // 2
        whole, inside = self._variances(state, basis.rank)
        normals = jax.random.normal(key_inside, (num_pairs, self.subspace_dims), basis.coefficients.dtype)
        noise = self.draw(key_whole, state)
        return combine(noise, jnp.sqrt(whole), basis, jnp.sqrt(inside) * normals)
