"""Searching the weights that a mask keeps: as the base would on those alone."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from strategies.distribution.base import default_parameters, expected_norm
from strategies.distribution.cr_fm_nes import distance_gain
from strategies.distribution.sep_cma_es import separable_parameters
from strategies.maskable import MaskableStrategy
from tests.loop import IDS, samples

SIZE = 12
SOLUTION = {"b": jnp.asarray([0.5, -0.5]), "w": jnp.linspace(-1, 1, 8).reshape(2, 4)}
MASK = {"b": np.array([True, True]), "w": np.array([[True, False, True, False], [False, True, True, False]])}
KEPT = {name: np.flatnonzero(mask) for name, mask in MASK.items()}


def part(values, num_axes=0):
    """What MASK keeps, a vector per leaf, of values with leading axes of their own."""
    return {k: jnp.reshape(x, (*np.shape(x)[:num_axes], -1))[..., KEPT[k]] for k, x in values.items()}


def whole(values, num_axes=0):
    """The inverse of `part`, with zeros for the rest."""
    return {
        k: jnp.zeros((*np.shape(x)[:num_axes], MASK[k].size))
        .at[..., KEPT[k]]
        .set(x)
        .reshape(*np.shape(x)[:num_axes], *MASK[k].shape)
        for k, x in values.items()
    }


def quadratic(x):
    return sum(jnp.sum((leaf - 0.25) ** 2) for leaf in jax.tree.leaves(x))


def make(base, **settings):
    return zoo.make_strategy("masked", base=base, mask=MASK, population_size=SIZE, **settings)


@pytest.mark.parametrize("id", IDS)
def test_what_is_pruned_is_zero_and_the_rest_converges(id, key):
    """For every strategy as base, the mask traced. The quadratic's optimum is not at zero, where pruned weights are."""
    strategy = zoo.make_strategy("masked", base=zoo.make_strategy(id), population_size=18)

    @jax.jit
    def train(mask):
        masked = strategy.replace(mask=mask)

        def generation(state, key):
            population, state = masked.ask(key, state, jax.grad(quadratic))
            return masked.tell(state, population, zoo.map_members(quadratic, population)), population

        state, populations = jax.lax.scan(generation, masked.init(key, SOLUTION), jax.random.split(key, 60))
        return populations, masked.mean(state), masked.std(state)

    for mask in (MASK, jax.tree.map(np.ones_like, MASK)):
        populations, mean, std = train(mask)
        for k, kept in mask.items():
            assert not np.any(np.asarray(populations[k])[..., ~kept])
            assert not np.any(mean[k][~kept])
            assert not np.any(std[k][~kept])
            assert np.all(std[k][kept] > 0) == samples(strategy)
        assert all(map(np.all, map(np.isfinite, jax.tree.leaves((mean, std)))))
    assert quadratic(part(mean)) < quadratic(part(SOLUTION))


@pytest.mark.parametrize(
    "base",
    ["snes", "sep_cma_es", "cma_es", "xnes", "ma_es", "lm_ma_es", "lra_cma_es", "cr_fm_nes", "one_plus_one_es", "pgpe"],
)
def test_base_moves_as_it_would_on_what_is_kept_alone(base, x64):
    """Given the same samples, generation by generation: rates, paths, volumes are those of the kept weights."""
    key = jax.random.key(0)
    settings = {"num_directions": 7} if base == "lm_ma_es" else {}
    alone = zoo.make_strategy(base, population_size=SIZE, **settings)
    strategy = make(alone)
    solution = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), SOLUTION)
    state, expected = strategy.init(key, solution), alone.init(key, part(solution))
    if base == "cr_fm_nes":  # whose first direction is drawn
        v = jax.flatten_util.ravel_pytree(part(jax.flatten_util.ravel_pytree(solution)[1](state.base.v)))[0]
        expected = expected._replace(v=v, scales=1 / jnp.sqrt(1 + v**2))
    both = jax.jit(
        lambda s, e, population, fitness: (
            strategy.tell(s, population, fitness),
            alone.tell(e, part(population, 1), fitness),
        )
    )
    for k in jax.random.split(key, 12):
        population, state = jax.jit(strategy.ask)(k, state)
        if base == "ma_es":  # which goes by the noise that it drew
            noise = jax.vmap(jax.flatten_util.ravel_pytree(solution)[1])(state.base.noise)
            flat = jnp.concatenate([*part(noise, 1).values()], axis=1)
            expected = expected._replace(noise=flat)
        fitness = zoo.map_members(quadratic, population)
        state, expected = both(state, expected, population, fitness)
        for one, other in ((strategy.mean(state), alone.mean(expected)), (strategy.std(state), alone.std(expected))):
            for name in MASK:
                np.testing.assert_allclose(part(one)[name], other[name], rtol=1e-6, atol=1e-9)
    if base in ("cma_es", "xnes"):  # what is not searched neither fades nor grows
        matrix = state.base.covariance if base == "cma_es" else state.base.shape
        gone = ~jax.flatten_util.ravel_pytree(MASK)[0]
        np.testing.assert_allclose(matrix[gone], np.eye(len(gone))[gone], atol=1e-12)


def test_strategies_whose_rates_depend_on_the_dimension_are_all_there():
    """Those above are all that `for_mask` has to tell something, but for the subspace strategies below."""
    maskable = {id for id in IDS if isinstance(zoo.make_strategy(id), MaskableStrategy)}
    distribution = {"snes", "sep_cma_es", "cma_es", "xnes", "ma_es", "lm_ma_es", "lra_cma_es", "cr_fm_nes"}
    assert maskable == distribution | {"one_plus_one_es", "guided_es", "self_guided_es", "asebo"}


@pytest.mark.parametrize("base", ["guided_es", "asebo"])
def test_perturbations_keep_their_length(base, key):
    """The trace of the search covariance is sigma^2 over the weights that are kept."""
    strategy = make({"id": base, "sigma": 0.5})
    state = strategy.init(key, SOLUTION)
    if base == "guided_es":
        _, state = strategy.ask(key, state, jax.grad(quadratic))
    trace = sum(jnp.sum(s**2) for s in jax.tree.leaves(strategy.std(state)))
    np.testing.assert_allclose(trace, 0.25, rtol=1e-5)


def test_surrogate_is_that_of_what_is_kept(key):
    """Taken at the masked solution, and zero elsewhere: gradient descent is that on the kept weights alone."""
    alone = zoo.make_strategy("bptt", population_size=1, learning_rate=0.1)
    strategy = zoo.make_strategy("masked", base=alone, mask=MASK)
    curved = lambda x: jnp.prod(jnp.stack([jnp.sum(jnp.cos(y)) for y in jax.tree.leaves(x)])) + quadratic(x)  # noqa: E731
    state, expected = strategy.init(key, SOLUTION), alone.init(key, part(SOLUTION))
    for _ in range(4):
        population, state = strategy.ask(key, state, jax.grad(curved))
        other, expected = alone.ask(key, expected, jax.grad(lambda x: curved(whole(x))))
        for name in MASK:
            np.testing.assert_allclose(part(population, 1)[name], other[name], rtol=1e-6)
        state, expected = strategy.tell(state, population, np.zeros(1)), alone.tell(expected, other, np.zeros(1))
    assert not np.allclose(state.base.mean["w"], SOLUTION["w"])


def test_parameters_of_a_traced_dimension_are_those_of_a_known_one():
    for function in (default_parameters, separable_parameters, distance_gain):
        traced = jax.jit(function, static_argnums=1)
        for d in (1, 2, 3, 5, 17, 400, 60_000):
            for size in (2, 4, 15, 200):
                known = jax.tree.leaves(function(d, size))
                for one, other in zip(jax.tree.leaves(traced(jnp.asarray(d, float), size)), known, strict=True):
                    np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    d = np.array([1, 2, 3, 7, 100, 1e4, 1e6, 1e9])
    np.testing.assert_allclose(jax.vmap(expected_norm)(jnp.asarray(d)), [expected_norm(int(x)) for x in d], rtol=1e-6)


def test_another_mask_is_the_same_program(key):
    traces = []

    @jax.jit
    def ask(strategy):
        traces.append(1)
        return strategy.ask(key, strategy.init(key, SOLUTION))[0]

    for mask in (MASK, jax.tree.map(np.logical_not, MASK)):
        assert np.array_equal(np.any(ask(make("snes").replace(mask=mask))["w"], axis=0), mask["w"])
    assert len(traces) == 1


def test_masks_that_are_nested_keep_what_both_keep(key):
    other = {"b": np.array([True, False]), "w": np.ones((2, 4), bool)}
    strategy = zoo.make_strategy("masked", mask=other, base=make("snes"))
    population, state = strategy.ask(key, strategy.init(key, SOLUTION))
    assert not np.any(population["b"][:, 1])
    state = strategy.tell(state, population, np.arange(SIZE, dtype=np.float32))
    alone = make("snes").replace(mask=jax.tree.map(np.logical_and, MASK, other))
    expected = alone.tell(alone.init(key, SOLUTION), population, np.arange(SIZE, dtype=np.float32))
    assert all(map(np.array_equal, jax.tree.leaves(alone.std(expected)), jax.tree.leaves(strategy.std(state))))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({"b": np.ones(2), "w": np.ones((2, 4))}, TypeError, "Masked.mask must be booleans"),
        ({"w": MASK["w"]}, ValueError, "Masked.mask must have the structure of the solution"),
        ({**MASK, "b": np.array(True)}, ValueError, r"have the shapes of the solution: expected shape \(2,\) in b"),
    ],
)
def test_wrong_masks(mask, error, message, key):
    with pytest.raises(error, match=message):
        zoo.make_strategy("masked", mask=mask).init(key, SOLUTION)
