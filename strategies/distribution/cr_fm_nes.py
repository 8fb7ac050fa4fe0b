"""CR-FM-NES: a natural evolution strategy with covariance sigma^2 D (I + v v^T) D, in O(d) time and memory.

Antithetic pairs are sampled with a scale per parameter, D, and one direction, v, that is searched farther:

    x = m + sigma D y,    y = (I + (sqrt(1 + |v|^2) - 1) u u^T) z,    u = v / |v|.

All parts follow the natural gradient. The length of the evolution path of z tells whether the search is moving,
stagnating or converging, which sets the learning rate of sigma. While it moves, good members that are far away count
more.

Reference: Nomura, Ono 2022, "Fast Moving Natural Evolution Strategy for High-Dimensional Problems", arXiv 2201.11422,
with the settings of the authors' code, github.com/nomuramasahir0/crfmnes. The natural gradient in v and D is as in
VD-CMA: Akimoto, Auger, Hansen 2014, "Comparison-Based Natural Gradient Optimization in High Dimension", doi
10.1145/2576768.2598258.

Differences from the authors' code: D starts so that sigma is the standard deviation for any v. The learning rate of the
path is not negative in fewer than five dimensions. The length of v and the change of D in one step are bounded, so that
neither loses its sign or its precision. Where samples are closer together than floating-point numbers of the size of
the mean, v and D learn nothing. And y and |z| are recovered from the members, so that bounds may change them.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Evaluation, Population, Solution, Surrogate, clip_std, normal_like
from zoo.strategies.distribution import scalars
from zoo.strategies.distribution.base import (
    DistributionStrategy,
    accumulate,
    expected_norm,
    flat_step_size_and_units,
    flatten,
    flatten_members,
    times_units,
)
from zoo.strategies.pairs import check_divides


class CRFMNESState(NamedTuple):
    """State of `CRFMNES`, for d parameters."""

    mean: Solution
    sigma: jax.Array  # [] step size
    path_sigma: jax.Array  # [d] evolution path of z
    path_c: jax.Array  # [d] evolution path of the mean
    scales: jax.Array  # [d] the diagonal of D
    v: jax.Array  # [d] the direction that is searched sqrt(1 + |v|^2) times as far


class CRFMNES(DistributionStrategy):
    """Cost-reduced fast moving natural evolution strategy: a scale per parameter and one direction.

    Members with infinite or NaN fitness count as infeasible. They rank last, the nearest to the mean first, and the
    learning rates follow the number of the feasible members, as the paper has it for implicit constraints.

    Attributes:
        population_size: Members per generation, an even number.

    References:
        Nomura, Ono 2022, arXiv 2201.11422.
    """

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        check_divides(self, 2)

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs all members: they are antithetic pairs."""
        return "its members are antithetic pairs"

    def std(self, state: CRFMNESState) -> Solution:
        """Returns sigma * D * sqrt(1 + v^2)."""
        _, unravel = flatten(state.mean)
        return unravel(state.sigma * state.scales * jnp.sqrt(1 + jnp.square(state.v)))

    def _default_population_size(self, num_dims: int) -> int:
        size = super()._default_population_size(num_dims)
        return size + size % 2

    def _init(self, key: jax.Array, solution: Solution) -> CRFMNESState:
        flat, _ = flatten(solution)
        d = self.space.num_dims(solution)
        v = normal_like(key, flat, num_samples=1)[0] / scalars.sqrt(d)
        v = self.space.restrict_flat(v)
        sigma, units = flat_step_size_and_units(self, solution)
        return CRFMNESState(
            mean=solution,
            sigma=sigma,
            path_sigma=jnp.zeros_like(flat),
            path_c=jnp.zeros_like(flat),
            # The authors have ones. With these scales, sigma is the standard deviation for any v.
            scales=times_units(1 / jnp.sqrt(1 + jnp.square(v)), units),
            v=v,
        )

    def _ask(self, key: jax.Array, state: CRFMNESState, surrogate: Surrogate | None) -> tuple[Population, CRFMNESState]:
        mean, unravel = flatten(state.mean)
        z = normal_like(key, mean, num_samples=self._num_members(state.mean) // 2)
        u, squared_norm = _direction(state.v)
        y = z + (jnp.sqrt(1 + squared_norm) - 1) * jnp.outer(z @ u, u)
        step = (state.sigma * state.scales)[None] * y
        return jax.vmap(unravel)(jnp.concatenate([mean[None] + step, mean[None] - step])), state

    def _tell(self, state: CRFMNESState, population: Population, evaluation: Evaluation) -> CRFMNESState:
        mean, unravel = flatten(state.mean)
        x = flatten_members(population)
        size, d = x.shape[0], self.space.num_dims(state.mean)
        u, squared_norm = _direction(state.v)
        y = (x - mean[None]) / (state.sigma * state.scales)[None]
        along = y @ u
        # |z|^2, from the parts of y across u and along u.
        squared_z = jnp.sum(jnp.square(y - jnp.outer(along, u)), axis=1) + jnp.square(along) / (1 + squared_norm)

        fitness = evaluation.fitness
        is_feasible = fitness < jnp.inf
        num_feasible = jnp.sum(is_feasible).astype(x.dtype)
        by_rank = np.maximum(math.log(size / 2 + 1) - np.log(np.arange(1, size + 1)), 0)
        by_rank = by_rank / by_rank.sum()
        # Rounding errors on the way to |z|: of the members, around a mean that may be far from zero, and of sums of y.
        rounded = jnp.linalg.norm(mean / (state.sigma * state.scales)) + scalars.sqrt(d) * jnp.linalg.norm(y, axis=1)
        nearness = _tie_partners(jnp.sqrt(squared_z), 8 * float(jnp.finfo(x.dtype).eps) * rounded)
        order = jnp.lexsort((jnp.where(is_feasible, 0, nearness), fitness))
        gains = jnp.zeros(size, x.dtype).at[order].set(jnp.asarray(by_rank, x.dtype), unique_indices=True)
        rank_weights = gains - 1 / size

        # The evolution path of z, and what its length means.
        mu_eff = float(1 / np.square(by_rank).sum())
        c_sigma = (mu_eff + 2) / (d + mu_eff + 5)
        z_mean = rank_weights @ y + (1 / jnp.sqrt(1 + squared_norm) - 1) * (rank_weights @ along) * u
        path_sigma = accumulate(state.path_sigma, z_mean, c_sigma, mu_eff)
        length = jnp.linalg.norm(path_sigma) / expected_norm(d)
        is_moving, is_stagnating = length >= 1, length >= 0.1
        rate_stagnating = jnp.tanh((0.024 * num_feasible + 0.7 * d + 20) / (d + 12))
        rate_converging = 2 * jnp.tanh((0.025 * num_feasible + 0.75 * d + 10) / (d + 4))
        rate_sigma = jnp.where(is_moving, 1, jnp.where(is_stagnating, rate_stagnating, rate_converging))

        distance = _distance_gain(d, size) * jnp.sqrt(num_feasible / size) * jnp.sqrt(squared_z)
        farthest = jnp.max(jnp.where(gains > 0, distance, 0))
        far_gains = gains * jnp.exp(jnp.minimum(distance - farthest, 0))  # a member without gain may be farther away
        weights = jnp.where(is_moving, far_gains / jnp.sum(far_gains) - 1 / size, rank_weights)

        step = state.scales * (weights @ y)
        c_c = (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)
        path_c = accumulate(state.path_c, step, c_c, mu_eff)

        # v and D take a step along the natural gradient of the members, and one along the gradient of the path. In the
        # authors' code the path's rate is negative below five dimensions, which would turn away from where the search
        # goes.
        rate = jnp.tanh((jnp.minimum(0.02 * num_feasible, 3 * scalars.log(d)) + 5) / (0.23 * d + 25))
        rate_path = 2 / ((d + 1.3) ** 2 + mu_eff) * scalars.maximum(d - 5, 0) / 6 * num_feasible / size
        of_members = _natural_gradient(state.v, y, rate * weights)
        of_path = _natural_gradient(state.v, (path_c / state.scales)[None], rate_path[None])
        # Members are rounded. Where numbers as large as the mean are farther apart than samples are, members say
        # nothing about v and D, which would follow the rounding anywhere.
        spacing, _ = flatten(jax.tree.map(lambda m: jnp.abs(m) * jnp.finfo(m.dtype).eps, state.mean))
        is_resolved = state.sigma * state.scales * jnp.sqrt(1 + jnp.square(state.v)) > spacing
        v = state.v + jnp.where(is_resolved, of_members[0] + of_path[0], 0)
        change = jnp.where(is_resolved, of_members[1] + of_path[1], 0)
        # Beyond this the condition number of I + v v^T exceeds the precision.
        longest = float(jnp.finfo(x.dtype).eps) ** -0.5
        v = v * jnp.minimum(1, longest / jnp.maximum(jnp.linalg.norm(v), 1))
        scales = state.scales * jnp.maximum(1 + change, 0.1)  # an unlucky step must not turn a scale negative
        scales = self.space.restrict_flat(scales, 1)
        log_det = jnp.sum(jnp.log(scales)) + jnp.log1p(jnp.sum(jnp.square(v))) / 2
        scales = scales * jnp.exp(-log_det / d)  # sigma alone holds the volume

        exponent = rate_sigma / 2 * (weights @ squared_z / d - jnp.sum(weights))
        return CRFMNESState(
            mean=unravel(mean + state.sigma * step),
            sigma=clip_std(state.sigma * jnp.exp(jnp.minimum(exponent, 1))),
            path_sigma=path_sigma,
            path_c=path_c,
            scales=jnp.sqrt(clip_std(jnp.square(scales))),
            v=v,
        )


def _natural_gradient(v: jax.Array, y: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the weighted sum of the natural gradients of log p(y_i) in v, and in D relative to D, both `[d]`.

    After the first sums everything is linear in the terms of a member, so it is computed once, for the sums.

    Args:
        v: `[d]`
        y: `[n, d]`
        weights: `[n]`
    """
    u, v2 = _direction(v)
    u2, gamma = jnp.square(u), 1 + v2
    along, total = y @ u, jnp.sum(weights)
    cross = (weights * along) @ y
    t = cross - (weights @ jnp.square(along) + gamma * total) / 2 * u
    s = weights @ jnp.square(y) - v2 / gamma * u * cross - total

    # alpha < 1 shrinks the coupling of v and D in the Fisher matrix, as far as needed for an inverse.
    alpha = jnp.sqrt(v2**2 + (2 * gamma - jnp.sqrt(gamma)) / jnp.max(u2)) / (2 + v2)
    alpha = jnp.minimum(alpha, 1)
    b = 2 * alpha**2 - (1 - alpha**2) * v2**2 / gamma
    h = 2 - (b + 2 * alpha**2) * u2
    s = s - alpha / gamma * ((2 + v2) * u * t - v2 * (u @ t) * u2)
    s = s / h - b * (s @ (u2 / h)) / (1 + b * (u2 @ (u2 / h))) * u2 / h
    t = t - alpha * ((2 + v2) * u * s - (u2 @ s) * u)
    return t / jnp.maximum(jnp.sqrt(v2), jnp.finfo(v.dtype).tiny), s


def _distance_gain(d: int | jax.Array, size: int) -> float | jax.Array:
    """Returns how much a member's log weight grows with its distance |z|, if all are feasible.

    It is a min(1, sqrt(size / d)), where (1 + a^2) exp(a^2 / 2) / 0.24 = d + 10. Newton's method on the logarithms
    finds a; it converges for every d.
    """
    a = 1.0
    for _ in range(10):
        a -= (scalars.log1p(a * a) + a * a / 2 - scalars.log(0.24 * (d + 10))) / (2 * a / (1 + a * a) + a)
    return a * scalars.minimum(1.0, scalars.sqrt(size / d))


def _tie_partners(values: jax.Array, rounding: jax.Array) -> jax.Array:
    """Returns the values, with the values of antithetic partners made equal, to the bit, if only rounding differs.

    Partners are at the same distance from the mean, except for rounding, which differs between processors. A stable
    sort of the returned values orders partners by their index. Partners that were moved, for example by bounds, keep
    their values.

    Args:
        values: `[2 n]`, of members i and n + i, who are partners.
        rounding: `[2 n]`; differences up to this are rounding.
    """
    first, second = jnp.split(values, 2)
    are_equal = jnp.abs(first - second) <= jnp.maximum(*jnp.split(rounding, 2))
    return jnp.where(jnp.tile(are_equal, 2), jnp.tile((first + second) / 2, 2), values)


def _direction(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns v / |v| (zero if v is zero) and |v|^2."""
    norm = jnp.linalg.norm(v)
    return v / jnp.maximum(norm, jnp.finfo(v.dtype).tiny), jnp.square(norm)
