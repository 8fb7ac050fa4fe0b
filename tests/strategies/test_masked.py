"""Searches of the weights that a mask keeps: the base moves as if there were no other weights."""

import inspect

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import IDS, ask, init, samples, tell
from zoo.core.space import Space
from zoo.loop.provenance import describe_settings
from zoo.strategies.distribution.base import default_parameters, expected_norm
from zoo.strategies.distribution.cr_fm_nes import _distance_gain
from zoo.strategies.distribution.eigen import decompose
from zoo.strategies.distribution.sep_cma_es import _separable_parameters

SIZE = 12
SOLUTION = {"b": np.array([0.5, -0.5], np.float32), "w": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}
MASK = {"b": np.array([True, True]), "w": np.array([[True, False, True, False], [False, True, True, False]])}
KEPT = {name: np.flatnonzero(mask) for name, mask in MASK.items()}


def part(values, num_axes=0):
    """Returns the entries that MASK keeps, as one vector per leaf. `values` may have leading axes."""
    return {k: x.reshape(*x.shape[:num_axes], -1)[..., KEPT[k]] for k, x in values.items()}


def whole(values, num_axes=0):
    """Computes the inverse of `part`, with zeros for the rest."""
    return {
        k: jnp.zeros((*np.shape(x)[:num_axes], MASK[k].size))
        .at[..., KEPT[k]]
        .set(x)
        .reshape(*np.shape(x)[:num_axes], *MASK[k].shape)
        for k, x in values.items()
    }


def quadratic(x):
    return sum(((leaf - 0.25) ** 2).sum() for leaf in jax.tree.leaves(x))


def make(base, **settings):
    return zoo.make_strategy("masked", base=base, mask=MASK, population_size=SIZE, **settings)


@pytest.mark.parametrize(
    "id",
    ["open_es", "snes", "cma_es", "pes", "nres", "guided_es", "ars", "de", "simple_ga", "bipop", "bounded", "hybrid"],
)
def test_what_is_pruned_is_zero_and_the_rest_converges(id, key):
    """With a traced mask, pruned weights are zero and the kept weights converge to an optimum that is not zero.

    One strategy of each kind runs here. `test_lottery` has every strategy.
    """
    few_rungs = {"max_doublings": 1} if id == "bipop" else {}  # each rung is one more branch to compile
    strategy = zoo.make_strategy("masked", base=zoo.make_strategy(id, **few_rungs), population_size=18)

    @jax.jit
    def train(mask):
        masked = strategy.replace(mask=mask)

        def generation(state, key):
            population, state = masked.ask(key, state, jax.grad(quadratic))
            return masked.tell(state, population, zoo.map_members(quadratic, population)), population

        state, populations = jax.lax.scan(generation, masked.init(key, SOLUTION), jax.random.split(key, 60))
        return populations, masked.mean(state), masked.std(state)

    for mask in (MASK, jax.tree.map(np.ones_like, MASK)):
        populations, mean, std = jax.device_get(train(mask))
        for k, kept in mask.items():
            assert not np.any(populations[k][..., ~kept])
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
    """Given the same samples, rates, paths and volumes equal those of the base on the kept weights alone."""
    key = jax.random.key(0)
    settings = {"num_directions": 7} if base == "lm_ma_es" else {}
    alone = zoo.make_strategy(base, population_size=SIZE, **settings)
    strategy = make(alone)
    solution = jax.tree.map(np.float64, SOLUTION)
    _, unravel = jax.flatten_util.ravel_pytree(solution)

    def generation(carry, k):
        state, expected = carry
        population, state = strategy.ask(k, state)
        if base == "ma_es":  # it uses the noise that it drew
            noise = jax.vmap(unravel)(state.base.noise)
            expected = expected._replace(noise=jnp.concatenate([*part(noise, 1).values()], axis=1))
        fitness = zoo.map_members(quadratic, population)
        state = strategy.tell(state, population, fitness)
        expected = alone.tell(expected, part(population, 1), fitness)
        got = strategy.mean(state), strategy.std(state)
        return (state, expected), (list(map(part, got)), [alone.mean(expected), alone.std(expected)])

    @jax.jit
    def train(keys):
        state, expected = strategy.init(key, solution), alone.init(key, part(solution))
        if base == "cr_fm_nes":  # its first direction is drawn
            v = jax.flatten_util.ravel_pytree(part(unravel(state.base.v)))[0]
            expected = expected._replace(v=v, scales=1 / jnp.sqrt(1 + v**2))
        return jax.lax.scan(generation, (state, expected), keys)

    (state, expected), results = jax.device_get(train(jax.random.split(key, 12)))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9), *results)
    gone = ~np.concatenate([np.ravel(mask) for mask in MASK.values()])
    if base == "xnes":  # the shape stays the identity outside the kept weights
        np.testing.assert_allclose(state.base.shape[gone], np.eye(len(gone))[gone], atol=1e-12)
    if base == "cma_es":
        variance = np.mean(np.diagonal(expected.covariance))
        np.testing.assert_allclose(state.base.covariance[gone], variance * np.eye(len(gone))[gone], rtol=1e-6)
        one, other = (jax.jit(s.condition_number)(at) for s, at in ((strategy, state), (alone, expected)))
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_strategies_whose_rates_depend_on_the_dimension_are_all_there():
    """The strategies above are all that use `self.space`, except the subspace strategies below."""

    def asks(cls):
        return cls is not zoo.Strategy and "self.space" in inspect.getsource(cls)

    made = {id: zoo.make_strategy(id) for id in IDS}
    maskable = {id for id, s in made.items() if not hasattr(s, "base") and any(map(asks, type(s).__mro__[:-1]))}
    distribution = {"snes", "sep_cma_es", "cma_es", "xnes", "ma_es", "lm_ma_es", "lra_cma_es", "cr_fm_nes"}
    assert maskable == distribution | {"one_plus_one_es", "guided_es", "self_guided_es", "asebo"}


@pytest.mark.parametrize("base", ["guided_es", "asebo"])
def test_perturbations_are_as_long_as_they_are_in_what_is_kept(base, key):
    """The trace of the search covariance is sigma^2 times the kept fraction, so each weight gets the same variance."""
    strategy = make({"id": base, "sigma": 0.5})
    state = init(strategy, key, SOLUTION)
    if base == "guided_es":
        _, state = ask(strategy, key, state, jax.tree_util.Partial(jax.grad(quadratic)))
    std = jax.device_get(jax.jit(strategy.std)(state))
    trace = sum(np.sum(s**2) for s in jax.tree.leaves(std))
    np.testing.assert_allclose(trace, 0.25 * 6 / 10, rtol=1e-5)


def test_surrogate_is_that_of_what_is_kept(key):
    """The surrogate is taken at the masked solution and is zero elsewhere, so descent moves the kept weights alone."""
    alone = zoo.make_strategy("bptt", population_size=1, learning_rate=0.1)
    strategy = zoo.make_strategy("masked", base=alone, mask=MASK)
    curved = lambda x: jnp.prod(jnp.stack([jnp.sum(jnp.cos(y)) for y in jax.tree.leaves(x)])) + quadratic(x)  # noqa: E731

    def generation(states, _):
        state, expected = states
        population, state = strategy.ask(key, state, jax.grad(curved))
        other, expected = alone.ask(key, expected, jax.grad(lambda x: curved(whole(x))))
        told = strategy.tell(state, population, np.zeros(1)), alone.tell(expected, other, np.zeros(1))
        return told, (part(population, 1), other)

    @jax.jit
    def train():
        states = strategy.init(key, SOLUTION), alone.init(key, part(SOLUTION))
        return jax.lax.scan(generation, states, length=4)

    (state, _), populations = train()
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), *populations)
    assert not np.allclose(state.base.descent.mean["w"], SOLUTION["w"])


def test_parameters_of_a_traced_dimension_are_those_of_a_known_one():
    def parameters(d):
        functions = (default_parameters, _separable_parameters, _distance_gain)
        return [function(d, size) for function in functions for size in (2, 4, 15, 200)]

    traced = jax.jit(parameters)
    for d in (1, 2, 3, 5, 17, 400, 60_000):
        for one, other in zip(*map(jax.tree.leaves, (traced(float(d)), parameters(d))), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    d = np.array([1, 2, 3, 7, 100, 1e4, 1e6, 1e9])
    norms = jax.jit(jax.vmap(expected_norm))(d)
    np.testing.assert_allclose(norms, [expected_norm(int(x)) for x in d], rtol=1e-6)


def test_what_is_pruned_sets_no_floor_under_the_eigenvalues_of_what_is_kept():
    """Pruned coordinates set no floor, also if the kept variances of C are as small as 1e-9 and 1e-4 in float32."""
    searched = np.array([True, False, True, False])
    covariance = np.diag(np.array([1e-9, 1.0, 1e-4, 1.0], np.float32))
    covariance, _, scales = jax.device_get(jax.jit(lambda c: decompose(Space(mask=searched).keep_apart(c)))(covariance))
    np.testing.assert_allclose(np.diagonal(covariance), [1e-9, 5e-5, 1e-4, 5e-5], rtol=1e-4)
    np.testing.assert_allclose(scales**2, [1e-9, 5e-5, 5e-5, 1e-4], rtol=1e-4)


def test_restarts_search_what_is_kept_alone(key):
    """A restart starts at zero in pruned coordinates, and its criteria use the kept weights only."""
    base = zoo.make_strategy("ipop", base={"id": "cma_es", "sigma": 0.3}, max_doublings=1, tol_fun=1e-3)
    mask = np.arange(40) < 5
    strategy = zoo.make_strategy("masked", base=base, mask=mask, population_size=8)

    def generation(state, k):
        population, state = strategy.ask(k, state)
        state = strategy.tell(state, population, zoo.map_members(lambda x: jnp.sum((x[:5] - 1) ** 2), population))
        restart = state.base
        return state, (restart.num_restarts, restart.base[0].path_sigma, restart.base[0].mean)

    @jax.jit
    def train(keys):
        return jax.lax.scan(generation, strategy.init(key, jnp.ones(40)), keys)[1]

    num_restarts, paths, means = jax.device_get(train(jax.random.split(key, 150)))
    assert num_restarts[-1] >= 1
    assert not np.any(paths[:, ~mask])
    assert not np.any(means[:, ~mask])


def test_bounds_move_what_is_kept_alone(key):
    """Bounds do not count a member as repaired if only its pruned weights were sampled out of bounds."""
    base = {"id": "bounded", "base": {"id": "snes", "sigma": 0.1}, "lower": -0.2, "upper": 0.2, "repair": "clip"}
    mask = np.arange(100) < 2
    strategy = zoo.make_strategy("masked", base=base, mask=mask, population_size=500)
    _, state = ask(strategy, key, init(strategy, key, np.zeros(100, np.float32)))
    share = 1 - (1 - 2 * 0.02275) ** 2  # probability that one of two normal numbers is beyond two standard deviations
    np.testing.assert_allclose(np.asarray(state.base.repaired).mean(), share, atol=5 * np.sqrt(share / 500))
    alone = zoo.make_strategy(**base, population_size=500)
    _, expected = ask(alone, key, init(alone, key, np.zeros(2, np.float32)))
    one, other = (np.asarray(each.distance).mean() for each in (state.base, expected))
    np.testing.assert_allclose(one, other, rtol=1)


@pytest.mark.parametrize("id", ["snes", "sep_cma_es", "cma_es", "xnes", "ma_es", "lm_ma_es", "lra_cma_es", "cr_fm_nes"])
def test_single_precision_solutions_where_double_is_enabled(id, x64):
    """Double precision does not promote the state, whether numbers are known at trace time or traced."""
    key = jax.random.key(0)
    solution = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), SOLUTION)
    for strategy in (zoo.make_strategy(id, population_size=SIZE), make(id)):
        state = jax.eval_shape(strategy.init, key, solution)

        def generation(state, strategy=strategy):
            population, state = strategy.ask(key, state)
            return strategy.tell(state, population, jnp.zeros(SIZE, jnp.float32))

        told = jax.eval_shape(generation, state)
        assert [x.dtype for x in jax.tree.leaves(told)] == [x.dtype for x in jax.tree.leaves(state)]


def test_mask_is_no_setting_of_the_base():
    with pytest.raises(TypeError, match="'snes' has no setting 'mask'") as error:
        zoo.make_strategy("snes", mask=MASK)
    assert "mask=" not in str(error.value)
    assert "mask" not in describe_settings(zoo.make_strategy("snes"))


def test_another_mask_is_the_same_program(key):
    traces = []

    @jax.jit
    def first(strategy):
        traces.append(1)
        return strategy.ask(key, strategy.init(key, SOLUTION))[0]

    for mask in (MASK, jax.tree.map(np.logical_not, MASK)):
        population = jax.device_get(first(make("snes").replace(mask=mask)))
        assert np.array_equal(np.any(population["w"], axis=0), mask["w"])
    assert len(traces) == 1


def test_masks_that_are_nested_keep_what_both_keep(key):
    other = {"b": np.array([True, False]), "w": np.ones((2, 4), bool)}
    strategy = zoo.make_strategy("masked", mask=other, base=make("snes"))
    population, state = ask(strategy, key, init(strategy, key, SOLUTION))
    assert not np.any(np.asarray(population["b"])[:, 1])
    state = tell(strategy, state, population, np.arange(SIZE, dtype=np.float32))
    alone = make("snes").replace(mask=jax.tree.map(np.logical_and, MASK, other))
    expected = tell(alone, init(alone, key, SOLUTION), population, np.arange(SIZE, dtype=np.float32))
    assert all(map(np.array_equal, jax.tree.leaves(alone.std(expected)), jax.tree.leaves(strategy.std(state))))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({"b": np.ones(2), "w": np.ones((2, 4))}, TypeError, "Masked.mask must be booleans"),
        ({"w": MASK["w"]}, ValueError, "Masked.mask must have the structure of the solution"),
        ({"b": [1, 0], "w": 1}, TypeError, "Masked.mask must be booleans"),
        (jax.tree.map(np.zeros_like, MASK), ValueError, "keeps nothing"),
        ({**MASK, "b": np.array(True)}, ValueError, r"have the shapes of the solution: expected shape \(2,\) in b"),
    ],
)
def test_wrong_masks(mask, error, message, key):
    with pytest.raises(error, match=message):
        zoo.make_strategy("masked", mask=mask).init(key, SOLUTION)


def test_a_mask_that_a_jitted_function_closes_over(key):
    """A JAX array as mask may be closed over, since its values are known."""
    mask = jax.random.bernoulli(key, 0.5, (8,))
    strategy = zoo.make_strategy("masked", base="open_es", mask=mask)
    mean = jax.jit(lambda x: strategy.mean(strategy.init(key, x)))(jnp.ones(8))
    np.testing.assert_array_equal(mean, mask.astype(jnp.float32))
