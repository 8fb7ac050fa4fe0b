"""What the CMA family shares: the default strategy parameters, weights by rank, the flat view of a population.

Reference: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772. Equation numbers are the tutorial's.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import (
    Population,
    Solution,
    State,
    Strategy,
    at_least_float32,
    clip_std,
    distributions,
    in_single,
    number,
    static,
    step_size_and_units,
)
from zoo.core.promotion import promoted, ravel, times
from zoo.strategies.distribution import scalars
from zoo.strategies.distribution.scalars import Number


class DistributionStrategy(Strategy):
    """Base of strategies that adapt a Gaussian around a mean; their state has the field `mean`.

    Attributes:
        sigma: Initial step size, the standard deviation of each parameter, in the units of the solution, above 0; about
            a third of the distance to where the optimum may be. One number, or a pytree in the structure of the
            solution (numbers, lists, or arrays that broadcast to its leaves).
    """

    population_size: int | None = static(default=None, at_least=2)
    sigma: Any = number(default=0.3, above=0, per_parameter=True, search=distributions.times(0.1, 10))

    @property
    def needs_all_members(self) -> str | None:
        """`None`: the update is computed from the members that are told, whatever their number."""
        return None

    def mean(self, state: State) -> Solution:
        """Returns the mean of the search distribution."""
        return state.mean


class Parameters(NamedTuple):
    """The default strategy parameters (Hansen 2016, Table 1), known at trace time if the dimension is."""

    weights: np.ndarray | jax.Array  # [population_size], best first: positive ones sum to one, negative ones come last
    mu_eff: float  # variance-effective selection mass of the positive weights
    c_sigma: Number
    d_sigma: Number
    c_c: Number
    c_1: Number
    c_mu: Number
    expected_norm: Number  # E||N(0, I)||


def numbers_for(d: int | jax.Array, values: np.ndarray) -> np.ndarray | jax.Array:
    """Returns numbers known at trace time in a form that combines with `d`: as an array if `d` is traced."""
    return jnp.asarray(values, d.dtype) if isinstance(d, jax.Array) else values


def default_parameters(d: int | jax.Array, size: int) -> Parameters:
    """Returns the default weights and rates (Hansen 2016, Table 1) for `d` dimensions and `size` members, at least 2.

    If `d` is a traced number, as under pruning, those that depend on it are traced too.
    """
    raw = math.log((size + 1) / 2) - np.log(np.arange(1, size + 1))  # (49)
    positive, negative = np.maximum(raw, 0), np.minimum(raw, 0)
    mu_eff = float(positive.sum() ** 2 / np.square(positive).sum())
    mu_eff_negative = float(negative.sum() ** 2 / max(np.square(negative).sum(), 1e-300))
    c_sigma = (mu_eff + 2) / (d + mu_eff + 5)  # (55)
    d_sigma = 1 + 2 * scalars.maximum(0.0, scalars.sqrt((mu_eff - 1) / (d + 1)) - 1) + c_sigma  # (55)
    c_c = (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)  # (56)
    c_1 = 2 / ((d + 1.3) ** 2 + mu_eff)  # (57)
    c_mu = scalars.minimum(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((d + 2) ** 2 + mu_eff))  # (58)
    total_negative = scalars.minimum(  # (50), (51), (52)
        scalars.minimum(1 + c_1 / c_mu, 1 + 2 * mu_eff_negative / (mu_eff + 2)), (1 - c_1 - c_mu) / (d * c_mu)
    )
    positive, negative = positive / positive.sum(), negative / max(-negative.sum(), 1e-300)
    weights = numbers_for(d, positive) + total_negative * numbers_for(d, negative)  # (53)
    return Parameters(
        weights=weights,
        mu_eff=mu_eff,
        c_sigma=c_sigma,
        d_sigma=d_sigma,
        c_c=c_c,
        c_1=c_1,
        c_mu=c_mu,
        expected_norm=expected_norm(d),
    )


def expected_norm(d: int | jax.Array) -> Number:
    """Returns E||N(0, I)|| in `d` dimensions, sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2) (Hansen 2016, after eq. 44)."""
    if not isinstance(d, jax.Array):
        return math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    # In single precision a difference of large logarithms has no correct digits left. The asymptotic series of the
    # ratio Gamma(x + 1/2) / Gamma(x) has eight where x > 4. Gamma's recurrence leads there.
    x, factor = d / 2, 1.0
    for _ in range(4):
        factor, x = factor * x / (x + 0.5), x + 1
    series = 1 - 1 / (8 * x) + 1 / (128 * x**2) + 5 / (1024 * x**3) - 21 / (32768 * x**4)
    return math.sqrt(2) * factor * jnp.sqrt(x) * series


def accumulate(path: Solution, step: Solution, c: Number, mu_eff: float) -> Solution:
    """Returns an evolution path after one more step: (1 - c) path + sqrt(c (2 - c) mu_eff) step."""
    scale = scalars.sqrt(c * (2 - c) * mu_eff)
    return jax.tree.map(lambda p, s: (times(1 - c, p) + times(scale, s)).astype(p.dtype), path, step)


def adapt_step_size(sigma: jax.Array, path_norm: jax.Array, p: Parameters) -> jax.Array:
    """Returns the step size after cumulative step-size adaptation (44), clipped for later divisions and squares."""
    exponent = (p.c_sigma / p.d_sigma) * (path_norm / p.expected_norm - 1)
    return clip_std(sigma * jnp.exp(jnp.minimum(exponent, 1)).astype(sigma.dtype))


def h_sigma(path_norm: jax.Array, generation: jax.Array, d: int | jax.Array, p: Parameters) -> jax.Array:
    """Returns zero where the step-size path is so long that the path of C has to wait, else one (after eq. 45)."""
    decay = 1 - (1 - p.c_sigma) ** (2 * (generation + 1).astype(path_norm.dtype))
    return (path_norm / jnp.sqrt(decay) < (1.4 + 2 / (d + 1)) * p.expected_norm).astype(path_norm.dtype)


def weights_by_rank(weights: np.ndarray | jax.Array, fitness: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns each member's weight, `[population_size]`, from weights ordered best first."""
    order = jnp.argsort(fitness)
    return jnp.zeros(fitness.shape, dtype).at[order].set(jnp.asarray(weights, dtype), unique_indices=True)


def pull_in(steps: Population, repaired: jax.Array, squared_norm: jax.Array, d: Number) -> Population:
    """Returns the steps from the mean to members; members that were not drawn are pulled in if they are far away.

    A sample hardly ever has a Mahalanobis norm above sqrt(d) + 2 d / (d + 2). A member that has one, and was not drawn,
    is pulled towards the mean (Hansen 2011, "Injecting External Solutions Into CMA-ES", arXiv 1110.4181, eq. 2 to 4).

    Args:
        steps: Members minus mean, stacked; in any units.
        repaired: `[population_size]`, true for members that were not drawn; see `Evaluation.repaired`.
        squared_norm: `[population_size]` squared Mahalanobis norms of the steps.
        d: Number of dimensions.
    """
    longest = scalars.sqrt(d) + 2 * d / (d + 2)
    is_far = repaired & (squared_norm > longest**2)
    factor = jnp.where(is_far, longest / jnp.sqrt(jnp.where(is_far, squared_norm, 1)), 1)
    return jax.tree.map(lambda x: factor.astype(x.dtype).reshape(-1, *(1 for _ in x.shape[1:])) * x, steps)


def squared_norms(steps: Population, std: Solution) -> jax.Array:
    """Returns the sum of (step / std)^2 over the parameters of each member's step, `[population_size]`."""

    def of_leaf(y: jax.Array, s: jax.Array) -> jax.Array:
        z = (y / clip_std(s)[None]).astype(at_least_float32(y.dtype))
        return jnp.sum(jnp.square(z), axis=tuple(range(1, z.ndim)))

    return functools.reduce(jnp.add, promoted(*jax.tree.leaves(jax.tree.map(of_leaf, steps, std))))


def flatten(solution: Solution) -> tuple[jax.Array, Callable[[jax.Array], Solution]]:
    """Returns a solution as a vector `[d]`, at least in single precision, and the function back to its dtypes.

    There is no linear algebra in half precision, and squares of small numbers vanish in it.
    """
    flat, unravel = ravel(solution)
    return flat.astype(at_least_float32(flat.dtype)), lambda x: unravel(x.astype(flat.dtype))


def flat_step_size_and_units(strategy: DistributionStrategy, solution: Solution) -> tuple[jax.Array, jax.Array | None]:
    """Returns the first step size, [], and the unit of each parameter, `[d]`; see `zoo.core.step_size_and_units`.

    The strategy searches the parameters divided by their units, so that the search does not depend on how they are
    scaled.
    """
    name = f"{type(strategy).__name__}.sigma"
    single = in_single(solution)
    sigma, units = step_size_and_units(strategy.sigma, single, strategy.space, name)
    dtype = flatten(solution)[0].dtype
    return jnp.asarray(sigma, dtype), None if units is None else flatten(units)[0]


def in_units(x: jax.Array, units: jax.Array | None) -> jax.Array:
    """Returns steps `[..., d]` divided by the units of the parameters."""
    return x if units is None else x / jnp.broadcast_to(units, x.shape)


def times_units(x: jax.Array, units: jax.Array | None) -> jax.Array:
    """Returns steps `[..., d]`, in units, multiplied by the units of the parameters."""
    return x if units is None else x * jnp.broadcast_to(units, x.shape)


def flatten_members(population: Population) -> jax.Array:
    """Returns a population as a matrix, `[population_size, d]`, with a row per member in the order of `flatten`."""
    leaves = jax.tree.leaves(population)
    rows = [leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:])) for leaf in leaves]
    rows = rows[0] if len(rows) == 1 else jnp.concatenate(promoted(*rows), axis=1)
    return rows.astype(at_least_float32(rows.dtype))


def moved(mean: jax.Array, step: jax.Array) -> jax.Array:
    """Returns one leaf of the mean after a step, in the dtype of the mean."""
    return (mean.astype(step.dtype) + step).astype(mean.dtype)


def perturbed(mean: jax.Array, std: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns one leaf of the members, mean + std * noise with a leading axis, in the dtype of the mean."""
    return (mean.astype(noise.dtype)[None] + std[None] * noise).astype(mean.dtype)
