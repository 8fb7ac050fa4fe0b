"""LM-MA-ES: MA-ES whose matrix is a product of m rank-one updates, in O(d log d) time and memory.

Evolution paths that fade at different speeds are kept as m direction vectors. A member is mean + sigma P z, where each
direction stretches z in turn. The step size follows the length of another path.

Reference: Loshchilov, Glasmachers, Beyer 2019, "Large Scale Black-Box Optimization by Limited-Memory Matrix
Adaptation", arXiv 1705.06693, Algorithm 1. There

    P = P_m ... P_1,    P_i = (1 - c_d,i) I + c_d,i m_i m_i^T,

and the P_i are applied one by one. Here they are written out: the direction P z is a (z + sum_i g_i r_i m_i), where a
is the product of the 1 - c_d,i, g_i = c_d,i / (1 - c_d,i), and r solves the unit lower triangular system

    r_i - sum_{j < i} (m_i . m_j) g_j r_j = m_i . z.

With the matrix K of the m_i . m_j, z can be eliminated from both. This gives an upper triangular system for the
inverse, with which `tell` recovers what was sampled from the members themselves.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Evaluation, Population, Solution, Surrogate, clip_std, normal_like, static
from zoo.strategies.distribution import scalars
from zoo.strategies.distribution.base import (
    DistributionStrategy,
    accumulate,
    default_parameters,
    flat_step_size_and_units,
    flatten,
    flatten_members,
    in_units,
    numbers_for,
    times_units,
    weights_by_rank,
)


class LMMAESState(NamedTuple):
    """State of `LMMAES`, for d parameters and m direction vectors."""

    mean: Solution
    sigma: jax.Array  # [] step size
    path: jax.Array  # [d] evolution path of the step size
    directions: jax.Array  # [m, d] evolution paths, from the one that fades fastest to the slowest
    generation: jax.Array  # []
    units: jax.Array | None = None  # [d] unit of each parameter, in which it is searched; None: all are one


class LMMAES(DistributionStrategy):
    """Limited-memory matrix adaptation evolution strategy, for hundreds of dimensions and more.

    Attributes:
        num_directions: Number m of direction vectors, at least 1. Defaults to 4 + floor(3 ln d).

    References:
        Loshchilov, Glasmachers, Beyer 2019, arXiv 1705.06693.
    """

    num_directions: int | None = static(default=None, at_least=1)

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs all members: it could not pull in others that are far away."""
        return "its update has no rule for members that it did not draw"

    def std(self, state: LMMAESState) -> Solution:
        """Returns sigma * sqrt(diag(P P^T)), times the units."""
        _, unravel = flatten(state.mean)
        shrink, gains = _factors(state, self.space.num_dims(state.mean))
        gram = state.directions @ state.directions.T
        # P = a (I + M^T W M). Its row k is a (e_k + M^T W^T m), where m is the k-th column of M.
        w = gains[:, None] * jnp.linalg.inv(jnp.eye(len(gram), dtype=gram.dtype) - jnp.tril(gram, -1) * gains[None])
        inner = 2 * w + w @ gram @ w.T
        squares = 1 + jnp.sum(state.directions * (inner @ state.directions), axis=0)
        return unravel(times_units(state.sigma * shrink * jnp.sqrt(jnp.maximum(squares, 0)), state.units))

    def _init(self, key: jax.Array, solution: Solution) -> LMMAESState:
        flat, _ = flatten(solution)
        num_directions = self.num_directions or 4 + math.floor(3 * math.log(flat.size))
        sigma, units = flat_step_size_and_units(self, solution)
        return LMMAESState(
            mean=solution,
            sigma=sigma,
            path=jnp.zeros_like(flat),
            directions=jnp.zeros((num_directions, flat.size), flat.dtype),
            generation=jnp.zeros((), jnp.int32),
            units=units,
        )

    def _ask(self, key: jax.Array, state: LMMAESState, surrogate: Surrogate | None) -> tuple[Population, LMMAESState]:
        mean, unravel = flatten(state.mean)
        z = normal_like(key, mean, num_samples=self._num_members(state.mean))
        step = times_units(transform(state, z, self.space.num_dims(state.mean)), state.units)
        return jax.vmap(unravel)(mean[None] + state.sigma * step), state

    def _tell(self, state: LMMAESState, population: Population, evaluation: Evaluation) -> LMMAESState:
        mean, unravel = flatten(state.mean)
        x = flatten_members(population)
        size, d = x.shape[0], self.space.num_dims(state.mean)
        p = default_parameters(d, size)
        weights = weights_by_rank(jnp.maximum(p.weights, 0), evaluation.fitness, x.dtype)

        y_mean = weights @ (in_units(x - mean[None], state.units) / state.sigma)
        z_mean = _inverse_transform(state, y_mean, d)
        # Only rounding can make it longer than any member's z, if members hardly differ from a mean that is far from
        # zero.
        z_mean = z_mean * jnp.minimum(1, (scalars.sqrt(d) + 6) / jnp.maximum(jnp.linalg.norm(z_mean), 1))

        # The paper's rates are for d > size. Below, where they would exceed one, they are one: paths without memory.
        c_sigma = scalars.minimum(1.0, 2 * size / d)
        powers = numbers_for(d, 4.0 ** np.arange(len(state.directions)))
        c_c = jnp.minimum(1.0, size / (d * powers)).astype(x.dtype)[:, None]
        path = accumulate(state.path, z_mean, c_sigma, p.mu_eff)
        gains = jnp.sqrt(c_c * (2 - c_c) * p.mu_eff)
        directions = (1 - c_c) * state.directions + gains * z_mean[None]

        exponent = c_sigma / 2 * (jnp.sum(jnp.square(path)) / d - 1)
        return LMMAESState(
            mean=unravel(mean + state.sigma * times_units(y_mean, state.units)),
            sigma=clip_std(state.sigma * jnp.exp(jnp.minimum(exponent, 1))),
            path=path,
            directions=directions,
            generation=state.generation + 1,
            units=state.units,
        )


def transform(state: LMMAESState, z: jax.Array, d: int | jax.Array) -> jax.Array:
    """Returns P z for vectors in the last axis, by products of matrices in place of m passes over the vectors."""
    shrink, gains = _factors(state, d)
    gram = state.directions @ state.directions.T
    r = _solve(-jnp.tril(gram, -1) * gains[None], z @ state.directions.T, lower=True)
    return shrink * (z + (jnp.broadcast_to(gains, r.shape) * r) @ state.directions)


def _inverse_transform(state: LMMAESState, y: jax.Array, d: int | jax.Array) -> jax.Array:
    """Returns the z with P z = y, for vectors in the last axis."""
    shrink, gains = _factors(state, d)
    gram = state.directions @ state.directions.T
    y = y / shrink
    r = _solve(jnp.triu(gram) * gains[None], y @ state.directions.T, lower=False)
    return y - (jnp.broadcast_to(gains, r.shape) * r) @ state.directions


def _factors(state: LMMAESState, d: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns a, [], and g, [m]; see the top of this file. Vector i, from 0, counts from generation i + 1 on."""
    num_directions = len(state.directions)
    at_least_two = scalars.maximum(d, 2)  # in one dimension the first rate would be one, and P singular
    c_d = 1 / (at_least_two * numbers_for(d, 1.5 ** np.arange(num_directions)))
    is_in_use = jnp.arange(num_directions, dtype=jnp.int32) < state.generation
    c_d = jnp.where(is_in_use, c_d, 0).astype(state.directions.dtype)
    return jnp.prod(1 - c_d), c_d / (1 - c_d)


def _solve(triangle: jax.Array, right: jax.Array, *, lower: bool) -> jax.Array:
    """Returns r with (I + triangle) r = right, for right-hand sides in the last axis."""
    matrix = jnp.eye(len(triangle), dtype=triangle.dtype) + triangle
    return jax.scipy.linalg.solve_triangular(matrix, right.T, lower=lower).T
