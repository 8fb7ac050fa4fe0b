"""Box constraints for any strategy: members are repaired before evaluation, and the update uses the repaired ones.

There are two repairs. Reflection folds a coordinate back at each bound that it has passed, any number of times: a
triangle wave between two bounds, a mirror at a single one. Clipping projects it on the box. Many samples then share a
point of the boundary, so a penalty for their distance from it is added to the fitness. Let x_i be the sample, r_i its
projection, s the standard deviations of the search distribution and n the number of parameters. The fitness becomes

    f_i + penalty * IQR(f) * (1/n) sum_j ((x_ij - r_ij) / s_j)^2,

where IQR(f), the interquartile range of the generation's fitness, makes the penalty follow the scale of the fitness.

Reference: the penalty of Hansen, Niederberger, Guzzella, Koumoutsakos 2009, "A Method for Handling Uncertainty in
Evolutionary Optimization With an Application to Feedback Control of Combustion", IEEE TEC 13(1), section IV-B, doi
10.1109/TEVC.2008.924423. The paper has a coefficient per coordinate, which grows until the mean returns to the box,
because there the sample enters the update. Here the evaluated point does, which lies in the box. So there is one
coefficient, which stays at the initial value of the paper's, 2.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from zoo.core import (
    Evaluation,
    Population,
    Solution,
    Surrogate,
    fit_structure,
    in_single,
    leaf_name,
    number,
    static,
)
from zoo.core.promotion import common_dtype
from zoo.strategies.distribution.base import squared_norms
from zoo.strategies.shaping import finite
from zoo.strategies.wrappers.base import Wrapper, map_surrogate


class BoundedState(NamedTuple):
    """State of `Bounded`."""

    base: Any  # the base's state
    repaired: jax.Array  # [population_size] true for members that were repaired
    distance: jax.Array | None  # [population_size] mean of ((x - r) / s)^2 over the parameters; None if reflected


class Bounded(Wrapper):
    """Keeps every member, and the mean, within bounds; inside the bounds it is the base strategy.

    The mean of the base's search distribution is repaired as well, so that it cannot drift away where the fitness no
    longer depends on it. A surrogate gradient is taken at the repaired point.

    Reflection maps an antithetic pair around a mean on a bound to a single point. If the base subtracts pairs, an
    initial solution on a bound is therefore moved inside by half a standard deviation, and the base's steps also follow
    where a repaired pair lies.

    Attributes:
        lower: Lower bounds: a number for all parameters, or a pytree in the structure of the solution (numbers,
            lists, or arrays that broadcast to its leaves); -inf is no bound. They hold in the precision of the
            solution.
        upper: Upper bounds, in the same form, above the lower ones; inf is no bound.
        repair: `"reflect"`, or `"clip"` with a penalty.
        penalty: With clipping, the fitness added, in interquartile ranges, per squared standard deviation of distance
            from the box, averaged over the parameters; at least 0, where 0 is no penalty. With a penalty the strategy
            is invariant to linear transforms of the fitness, but no longer to other monotone ones.

    References:
        Hansen et al. 2009, IEEE TEC 13(1):180-197 (the penalty).
    """

    lower: Any = number(default=-np.inf, finite=False, per_parameter=True)
    upper: Any = number(default=np.inf, finite=False, per_parameter=True)
    repair: Literal["reflect", "clip"] = static(default="reflect")
    penalty: float = number(default=2.0, at_least=0)

    changes_members = True

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        _check_order(self.lower, self.upper)

    @property
    def needs_all_members(self) -> str | None:
        """Why `tell` needs all members: it keeps which of them it repaired."""
        return "it remembers which of them it repaired"

    def mean(self, state: BoundedState) -> Solution:
        """Returns the base's mean, within the bounds."""
        return self._map(_clip, super().mean(state))

    def _init(self, key: jax.Array, solution: Solution) -> BoundedState:
        self._map(_check_inside, solution, with_path=True)
        base = self.base.init(key, self._map(_clip, solution))
        if self.repair == "reflect" and self.base.subtracts_pairs:
            std = self.space.restrict(self.base.std(base))
            base = self.base.map_mean(base, lambda mean: self._map(_move_inside, mean, std))
        size = self._num_members(solution)
        dtype = common_dtype(*jax.tree.leaves(solution), jnp.float32)
        distance = None if self.repair == "reflect" else jnp.zeros(size, dtype)
        return BoundedState(base, jnp.zeros(size, bool), distance)

    def _ask(self, key: jax.Array, state: BoundedState, surrogate: Surrogate | None) -> tuple[Population, BoundedState]:
        surrogate = map_surrogate(surrogate, self._repair, self._repair, lambda gradient: gradient)
        sampled, base = self.base.ask(key, state.base, surrogate)
        sampled = self.space.restrict(sampled)
        population = self._repair(sampled)
        distance = state.distance
        if distance is not None:
            std = self.base.std(base)
            moved = jax.tree.map(jnp.subtract, in_single(sampled), in_single(population))
            total = squared_norms(moved, in_single(std)).astype(distance.dtype)
            # Not infinite, because infinity times zero is NaN.
            distance = jnp.minimum(total / self.space.num_dims(std), float(jnp.finfo(total.dtype).max))
        differs = jax.tree.map(lambda x, r: jnp.any((x != r).reshape(x.shape[0], -1), axis=1), sampled, population)
        repaired = functools.reduce(jnp.logical_or, jax.tree.leaves(differs))
        return population, BoundedState(base, repaired, distance)

    def _tell(self, state: BoundedState, population: Population, evaluation: Evaluation) -> BoundedState:
        evaluation = evaluation._replace(repaired=state.repaired)
        if state.distance is not None:
            fitness = _penalised(evaluation.fitness, self.penalty * state.distance)
            evaluation = evaluation._replace(fitness=fitness)
        base = self.base.tell(state.base, population, evaluation)
        return state._replace(base=self.base.map_mean(base, self._repair))

    def _repair(self, values: Any) -> Any:
        """Returns a solution, or a population, within the bounds."""
        return self._map(_reflect if self.repair == "reflect" else _clip, values)

    def _map(self, fn: Callable[..., Any], values: Any, *others: Any, with_path: bool = False) -> Any:
        """Applies a function to the leaves of a solution or a population.

        Args:
            fn: Takes a leaf, its bounds, and the leaves of `others`. With `with_path`, the path comes first.
            values: The solution, or the population.
            *others: Trees of the same structure.
            with_path: Whether `fn` takes the path.
        """
        lower = _spread(self.lower, values, "Bounded.lower")
        upper = _spread(self.upper, values, "Bounded.upper")
        return (jax.tree_util.tree_map_with_path if with_path else jax.tree.map)(fn, values, lower, upper, *others)


def _clip(x: jax.Array, lower: Any, upper: Any) -> jax.Array:
    return jnp.clip(x, _as_rank(lower, x), _as_rank(upper, x))


def _move_inside(x: jax.Array, lower: Any, upper: Any, std: jax.Array) -> jax.Array:
    """Returns a leaf with entries on a bound moved inside by half a standard deviation, but not beyond the middle."""
    lower, upper = _as_rank(lower, x), _as_rank(upper, x)
    step = jnp.minimum(std.astype(x.dtype), upper - lower) / 2
    return jnp.where(x <= lower, lower + step, jnp.where(x >= upper, upper - step, x))


def _as_rank(bound: Any, x: jax.Array) -> jax.Array:
    """Returns a bound in the dtype, and with the number of axes, of a leaf of a solution or a population."""
    with np.errstate(over="ignore"):  # a bound beyond the range of the dtype becomes infinite: no bound
        bound = jnp.asarray(bound, x.dtype)
    return jnp.expand_dims(bound, list(range(x.ndim - bound.ndim)))


def _reflect(x: jax.Array, lower: Any, upper: Any) -> jax.Array:
    lower, upper = _as_rank(lower, x), _as_rank(upper, x)
    width = upper - lower
    is_finite = jnp.isfinite(width)
    phase = jnp.mod(jnp.where(is_finite, x - lower, 0), jnp.where(is_finite, 2 * width, 1))
    wave = jnp.where(phase <= width, lower + phase, upper - (phase - width))
    mirror = jnp.where(x < lower, lower + (lower - x), upper - (x - upper))
    folded = jnp.where(is_finite, wave, mirror)
    folded = jnp.where((x >= lower) & (x <= upper), x, folded)
    # An entry too far outside to say where it would come to lie is clipped. Rounding may also pass a bound again.
    return jnp.clip(jnp.where(jnp.isfinite(folded), folded, x), lower, upper)


def _penalised(fitness: jax.Array, penalty: jax.Array) -> jax.Array:
    """Returns the fitness plus a penalty in units of its interquartile range, or of its range if that is zero."""
    values = finite(fitness)
    low, high = jnp.quantile(values, jnp.asarray([0.25, 0.75], values.dtype))
    spread = jnp.where(high > low, high - low, jnp.max(values) - jnp.min(values))
    penalty = jnp.minimum(spread * penalty.astype(fitness.dtype), float(jnp.finfo(fitness.dtype).max))
    return jnp.where(penalty > 0, fitness + penalty, fitness)


def _is_scalar(bounds: Any) -> bool:
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(bounds)) and np.ndim(bounds) == 0


def _spread(bounds: Any, like: Any, name: str) -> Any:
    """Returns bounds in the structure of a solution."""
    return jax.tree.map(lambda _: bounds, like) if _is_scalar(bounds) else fit_structure(name, bounds, like)


def _is_known(*values: Any) -> bool:
    """Returns whether values are numbers now, and not only when the program runs."""
    return all(isinstance(x, (float, np.generic, np.ndarray, jax.Array)) and not isinstance(x, Tracer) for x in values)


def _check_order(lower: Any, upper: Any) -> None:
    """Raises a `ValueError` if a lower bound is not below its upper one, where both are known."""

    def check(path: Any, low: Any, high: Any) -> None:
        if not _is_known(low, high):
            return
        low, high = np.asarray(low), np.asarray(high)
        try:
            low, high = np.broadcast_arrays(low, high)
        except ValueError:  # stacked for a sweep, or wrong: `init` can tell
            return
        wrong = ~(low < high)  # true for NaN too
        if np.any(wrong):
            where = f" in {leaf_name(path)}" if path else ""
            raise ValueError(
                f"Bounded.lower must be below Bounded.upper, got {low[wrong][0]:g} and {high[wrong][0]:g}{where}. To "
                "keep an entry fixed, wrap the strategy in `frozen`."
            )

    if _is_scalar(lower):
        lower = jax.tree.map(lambda _: lower, upper)
    elif _is_scalar(upper):
        upper = jax.tree.map(lambda _: upper, lower)
    if jax.tree.structure(lower) == jax.tree.structure(upper):  # else `init` says which one is not the solution's
        jax.tree_util.tree_map_with_path(check, lower, upper)


def _check_inside(path: Any, x: Any, lower: Any, upper: Any) -> None:
    """Raises a `ValueError` if a leaf of the initial solution is outside its bounds, where they are known."""
    if not _is_known(x, lower, upper):
        return
    x = np.asarray(x)
    with np.errstate(over="ignore"):
        low, high = (np.broadcast_to(np.asarray(b).astype(x.dtype), x.shape) for b in (lower, upper))
    outside = (x < low) | (x > high)
    if np.any(outside):
        raise ValueError(
            f"The initial solution must lie within the bounds, but {leaf_name(path) or 'it'} has an entry "
            f"{x[outside][0]:g} outside [{low[outside][0]:g}, {high[outside][0]:g}]. Clip it, or widen the bounds."
        )
