"""Each check of strategies notices a strategy that breaks its promise, and says how."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
import zoo.testing
from zoo.core import materialize, normal_like

CHECKS = {check.__name__: check for check in zoo.testing.STRATEGY_CHECKS}
PROBLEMS = {
    "function": zoo.from_function(lambda x: jnp.sum(x**2), jnp.ones(2)),
    "unrolled": zoo.testing.example_problems()["unrolled"],
}


class ToyState(NamedTuple):
    mean: Any


class Toy(zoo.Strategy):
    """Moves to the mean of the better half, with a fixed spread."""

    sigma: float = zoo.number(0.1, above=0)

    def mean(self, state):
        return state.mean

    def std(self, state):
        return jax.tree.map(lambda x: jnp.full_like(x, self.sigma), state.mean)

    def _init(self, key, solution):
        return ToyState(solution)

    def _ask(self, key, state, surrogate):
        noise = normal_like(key, state.mean, num_samples=self.population_size)
        return jax.tree.map(lambda x, z: x[None] + (self.sigma * z).astype(x.dtype), state.mean, noise), state

    def _tell(self, state, population, evaluation):
        rank = jnp.argsort(jnp.argsort(evaluation.fitness))
        return self._moved(state, population, (rank < len(rank) // 2).astype(jnp.float32) / (len(rank) // 2))

    def _moved(self, state, population, weights):
        def mean(x):
            return jnp.tensordot(weights.astype(x.dtype), x, 1)

        return ToyState(jax.tree.map(mean, materialize(population)))


class IgnoresItsKey(Toy):
    def _ask(self, key, state, surrogate):
        return super()._ask(jax.random.key(7), state, surrogate)


class WeighsByFitness(Toy):
    def _tell(self, state, population, evaluation):
        return self._moved(state, population, evaluation.fitness / jnp.sum(evaluation.fitness))


class SquaresFitness(Toy):
    def _tell(self, state, population, evaluation):
        fitness = jnp.nan_to_num(evaluation.fitness, nan=0, posinf=0, neginf=0)
        return self._moved(state, population, fitness / jnp.sqrt(1e-8 + jnp.sum(fitness**2)))


class DividesBySpread(Toy):
    def _tell(self, state, population, evaluation):
        fitness = jnp.where(jnp.isfinite(evaluation.fitness), evaluation.fitness, 0)
        return self._moved(state, population, fitness / jnp.std(fitness))


class StandsStill(Toy):
    def _tell(self, state, population, evaluation):
        return state


class SaysTwiceItsStd(Toy):
    def std(self, state):
        return jax.tree.map(lambda x: jnp.full_like(x, 2 * self.sigma), state.mean)


class IsSingle(Toy):
    def _init(self, key, solution):
        return ToyState(jax.tree.map(lambda x: x.astype(jnp.float32), solution))


class ChangesItsState(Toy):
    def _tell(self, state, population, evaluation):
        return ToyState((super()._tell(state, population, evaluation).mean,))


class RecompilesForSigma(Toy):
    sigma: float = zoo.static(0.1)  # pyright: ignore[reportGeneralTypeIssues]


class HasASecret(Toy):
    def _ask(self, key, state, surrogate):
        population, state = super()._ask(key, state, surrogate)
        noise = jax.pure_callback(lambda: np.float32(np.random.default_rng().normal()), jnp.zeros(()))
        return jax.tree.map(lambda x: x + noise, population), state


class HasOneSize(Toy):
    needs_all_members = None

    def _tell(self, state, population, evaluation):
        return self._moved(state, population, jnp.ones(self.population_size) / evaluation.fitness.shape[0])


class HasFourGroups(Toy):
    @property
    def groups(self):
        size = self._fixed_size
        return zoo.Groups.of(4 if size == 5 else size)

    def _default_population_size(self, num_dims):
        return 5


class ChecksNothing(Toy):
    def __post_init__(self):
        pass


class HoldsALambda(Toy):
    fn: Any = zoo.static(lambda: 0)


class HasOtherMembers(Toy):
    def _ask(self, key, state, surrogate):
        return {"w": jnp.zeros((self.population_size, 2, 3))}, state


class NoisyState(NamedTuple):
    mean: Any
    signal_to_noise: jax.Array


class KeepsNan(Toy):
    def _init(self, key, solution):
        return NoisyState(solution, jnp.zeros(()))

    def _tell(self, state, population, evaluation):
        mean = super()._tell(state, population, evaluation).mean
        return NoisyState(mean, jnp.mean(evaluation.fitness) / jnp.std(evaluation.fitness))


KEPT = []


class Leaks(Toy):
    def _tell(self, state, population, evaluation):
        KEPT.append(evaluation.fitness + 1)
        return super()._tell(state, population, evaluation)


class TakesOneNumber(Toy):
    def _tell(self, state, population, evaluation):
        return self._moved(state, {"w": population["w"], "b": population["b"]}, evaluation.fitness)


class TakesAnything(Toy):
    def tell(self, state, population, evaluation):
        return state

    def init(self, key, solution):
        return self._init(key, solution)


class TunesItsSize(Toy):
    def search_space(self):
        return {"population_size": zoo.space.integers(2, 8)}


class TunesTooFar(Toy):
    rate: float = zoo.number(0.5, at_most=1, search=zoo.space.uniform(0, 2))


class TunesWhatItHasNot(Toy):
    def search_space(self):
        return {"simga": zoo.space.times(0.1, 10)}


BROKEN = [
    (ChangesItsState, "runs_in_the_unchanged_loop", "scan"),
    (RecompilesForSigma, "runs_in_the_unchanged_loop", "compiles the loop again"),
    (HasASecret, "resumes_exactly", "After it was stored and continued: "),
    (HasASecret, "maps_over_seeds_and_settings", "vmap"),
    (IgnoresItsKey, "draws_from_its_keys", "With another key, the first population"),
    (WeighsByFitness, "survives_fitness_that_is_not_finite", "had fitness nan, mean and std: [0]['b']"),
    (SquaresFitness, "survives_huge_penalties", "After a fitness of 1e+20 the next step is"),
    (DividesBySpread, "survives_equal_fitness", "After equal fitness, mean and std: [0]['b']"),
    (SaysTwiceItsStd, "sigma_is_the_initial_std", "the initial std is 0.2"),
    (SaysTwiceItsStd, "members_have_the_spread_of_std", "and `std` returns 0.5"),
    (HasOtherMembers, "members_have_the_spread_of_std", "Members have another structure"),
    (StandsStill, "converges_on_a_quadratic", "of the initial fitness is left; expected less than 0.01"),
    (TakesOneNumber, "searches_one_dimension", "TypeError"),
    (IsSingle, "keeps_double_precision", "'float32'"),
    (IsSingle, "works_in_half_precision", "'float32'"),
    (HasFourGroups, "has_a_default_size", "groups has 4 ids for 5 members"),
    (HasOneSize, "says_which_members_it_takes", "TypeError"),
    (TakesAnything, "says_which_members_it_takes", "4 members instead of 6 is accepted"),
    (TakesAnything, "refuses_wrong_fitness", "Fitness of shape (5,) is accepted"),
    (TakesAnything, "refuses_wrong_solutions", "The solution {} is accepted; expected a ValueError"),
    (ChecksNothing, "checks_its_settings", "sigma='big' is accepted; expected a TypeError"),
    (TunesItsSize, "declares_what_is_tuned", "'population_size', which is not a leaf"),
    (TunesTooFar, "declares_what_is_tuned", "TunesTooFar.rate must be at most 1, got 2"),
    (TunesWhatItHasNot, "declares_what_is_tuned", "has no setting 'simga'"),
    (HoldsALambda, "goes_to_other_processes", "pickle"),
    (KeepsNan, "computes_no_nan", "invalid value (nan)"),
    (Leaks, "leaks_no_tracers", "Leaked"),
]


@pytest.mark.parametrize(("factory", "name", "words"), BROKEN, ids=lambda x: getattr(x, "__name__", None))
def test_a_broken_promise_is_noticed(factory, name, words):
    case = zoo.testing.StrategyCase(factory, problems=PROBLEMS, thorough=name.startswith("maps"))
    with pytest.raises(zoo.testing.BrokenPromiseError) as error:
        zoo.testing.run_check(CHECKS[name], case)
    assert words in str(error.value)
    assert str(error.value).startswith(f"{factory.__name__} breaks a promise of {name}. ")


def test_all_checks_are_seen_to_fail():
    unseen = {"takes_bare_fitness", "takes_nan_as_the_worst", "takes_numpy_solutions"}  # `zoo.Strategy` sees to them
    assert {name for _, name, _ in BROKEN} == CHECKS.keys() - unseen


def test_the_toy_breaks_none():
    zoo.testing.check_strategy(Toy, problems=PROBLEMS, reaches=1.0)


def test_bad_calls():
    with pytest.raises(TypeError, match=r"factory must make a zoo\.Strategy, got int"):
        zoo.testing.check_strategy(lambda population_size: population_size)
    with pytest.raises(ValueError, match=r"skip names checks that do not exist: \['converges'\]"):
        zoo.testing.check_strategy(Toy, skip=["converges"])
    with pytest.raises(ValueError, match="Unknown strategy 'toy'"):
        zoo.testing.check_strategy("toy")
    with pytest.raises(ValueError, match=r"problems needs the entries 'function' and 'unrolled', got \['f'\]"):
        zoo.testing.check_strategy(Toy, problems={"f": PROBLEMS["function"]})


def test_strict_modes():
    with zoo.testing.strict_modes():
        with pytest.raises(ValueError, match="rank_promotion"):
            jnp.ones(2) + jnp.ones((2, 2))
        with pytest.raises(jax.dtypes.TypePromotionError, match="promotion"):
            jnp.ones(2) + jnp.ones(2, jnp.int32)
