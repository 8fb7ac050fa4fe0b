"""What every strategy promises, checked for all that are registered: a new one is covered by its registry row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.loop import FAMILIES, Loop, generation, is_finite, signature, start

STRATEGIES = zoo.list_strategies()
SIZE = 6  # whole pairs, and whole triples
SOLUTION = {"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.float32(0.5)}


@pytest.fixture(params=STRATEGIES)
def id(request):
    return request.param


def quadratic(x):
    return sum(jnp.sum((leaf - 0.25) ** 2) for leaf in jax.tree.leaves(x))


def make(id, **settings):
    return zoo.make_strategy(id, **{"population_size": SIZE, **settings})


def swept(strategy, value):
    """The strategy with another value of one of its leaves."""
    return with_sigma(strategy, value) if samples(strategy) else strategy.replace(learning_rate=value)


def with_sigma(strategy, value):
    """The strategy with another sigma, a wrapper with another one of its base."""
    if hasattr(strategy, "base"):
        return strategy.replace(base=with_sigma(strategy.base, value))
    return strategy.replace(sigma=value)


def samples(strategy):
    """Whether it draws members around the mean, as all but gradient descent do."""
    return hasattr(getattr(strategy, "base", strategy), "sigma")


def ask_tell(strategy, state, key, fitness):
    """One generation with the given fitness, or the given function of the population."""
    population, state = strategy.ask(key, state, lambda x: jax.grad(quadratic)(x))
    fitness = zoo.map_members(fitness, population) if callable(fitness) else fitness
    return strategy.tell(state, population, fitness)


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_on_every_family_in_the_unchanged_loop(id, family, key):
    problem = FAMILIES[family]()
    strategy = make(id)
    if strategy.takes_surrogate and not problem.differentiable:
        loop = start(strategy, problem, key)
        with pytest.raises(TypeError, match="needs a surrogate gradient, and this problem has none"):
            generation(strategy, problem, loop, key)
        return
    traces = []

    @jax.jit
    def train(strategy, problem, loop, keys):
        traces.append(1)
        return jax.lax.scan(lambda carry, k: generation(strategy, problem, carry, k), loop, keys)

    loop = start(strategy, problem, key)
    end, fitness = train(strategy, problem, loop, jax.random.split(key, 3))
    assert signature(end) == signature(loop)  # which a scan demands, up to weak types
    assert signature(strategy.mean(end.state)) == signature(strategy.mean(loop.state))
    assert fitness.shape == (3, SIZE)
    assert is_finite((strategy.mean(end.state), strategy.std(end.state), fitness))

    # A second call, and one with another value of a leaf, use the same program.
    train(strategy, problem, end, jax.random.split(key, 3))
    train(swept(strategy, 0.3), problem, end, jax.random.split(key, 3))
    assert len(traces) == 1


def test_vmaps_over_seeds_and_hyperparameters(id, key):
    problem = FAMILIES["function"]()
    strategies = [swept(make(id), value) for value in (0.1, 0.2)]
    keys = jax.random.split(key, 3)

    def train(strategy, key):
        def body(loop, k):
            return generation(strategy, problem, loop, k)

        loop, _ = jax.lax.scan(body, start(strategy, problem, key), jax.random.split(key, 4))
        return strategy.mean(loop.state)

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *strategies)
    batched = jax.jit(jax.vmap(jax.vmap(train, in_axes=(None, 0)), in_axes=(0, None)))(stacked, keys)
    single = jax.jit(train)(strategies[1], keys[2])
    for got, expected in zip(jax.tree.leaves(batched), jax.tree.leaves(single), strict=True):
        assert got.shape == (2, 3, *expected.shape)
        np.testing.assert_allclose(got[1, 2], expected, rtol=1e-4, atol=1e-5)


def test_converges_on_a_quadratic(id, key):
    """In 200 generations of 18: below a hundredth of the start; random search below a half."""
    strategy = make(id, population_size=18)
    strategy = with_sigma(strategy, 0.3) if samples(strategy) else strategy
    if hasattr(strategy, "base"):
        strategy = strategy.replace(base=strategy.base.replace(learning_rate=0.05))
    elif hasattr(strategy, "learning_rate"):
        strategy = strategy.replace(learning_rate=0.05)

    @jax.jit
    def train(strategy, state, keys):
        return jax.lax.scan(lambda s, k: (ask_tell(strategy, s, k, quadratic), None), state, keys)[0]

    state = train(strategy, strategy.init(key, SOLUTION), jax.random.split(key, 200))
    final = quadratic(strategy.mean(state))
    assert final < quadratic(SOLUTION) * (0.5 if id == "random_search" else 0.01)


def test_same_key_same_population(id, key):
    strategy = make(id)
    state = strategy.init(key, SOLUTION)
    surrogate = jax.grad(quadratic)
    one, _ = strategy.ask(key, state, surrogate)
    two, _ = strategy.ask(key, state, surrogate)
    other, _ = strategy.ask(jax.random.key(1), state, surrogate)
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))
    if samples(strategy):
        assert not any(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_population_has_the_solutions_structure_and_spread(id, key):
    size = 333 * SIZE
    strategy = make(id, population_size=size)
    strategy = with_sigma(strategy, 0.25) if samples(strategy) else strategy
    state = strategy.init(key, SOLUTION)
    population, asked = strategy.ask(key, state, jax.grad(quadratic))
    std = strategy.std(asked)  # a subspace may have come with the surrogate
    for name, leaf in population.items():
        assert leaf.shape == (size, *np.shape(SOLUTION[name]))
        assert leaf.dtype == np.float32
        if not samples(strategy):
            assert np.array_equal(leaf, np.broadcast_to(SOLUTION[name], leaf.shape))
            assert not np.any(std[name])
            continue
        moved = np.asarray(leaf)[np.any((leaf != SOLUTION[name]).reshape(size, -1), axis=1)]
        assert len(moved) >= 2 * size // 3  # a strategy may have unperturbed members besides
        # Standard deviation of the sample standard deviation: 1/sqrt(2n); antithetic pairs count once. 5 sigma.
        np.testing.assert_allclose(moved.std(axis=0), std[name], rtol=5 / np.sqrt(2 * len(moved) / 2))
        # That of guided ES and its kin is the length of a perturbation.
        each = 0.25 / np.sqrt(7) if hasattr(strategy, "subspace_dims") and id != "self_guided_es" else 0.25
        np.testing.assert_allclose(strategy.std(state)[name], np.full(np.shape(SOLUTION[name]), each), rtol=1e-6)


def test_float64(id, x64):
    key = jax.random.key(0)
    strategy = make(id)
    solution = jax.tree.map(lambda x: np.asarray(x, np.float64), SOLUTION)
    state = strategy.init(key, solution)
    told = ask_tell(strategy, state, key, quadratic)
    assert {x.dtype for x in jax.tree.leaves((strategy.mean(told), strategy.std(told)))} == {np.dtype(np.float64)}
    assert signature(told) == signature(state)


def test_numpy_float64_solution_without_x64_becomes_float32(id, key):
    strategy = make(id)
    state = strategy.init(key, {"x": np.ones(3)})
    assert strategy.mean(state)["x"].dtype == np.float32


def test_invalid_fitness_never_poisons_the_state(id, key):
    strategy = make(id)
    state = strategy.init(key, SOLUTION)

    @jax.jit
    def tell(fitness):
        return ask_tell(strategy, state, key, fitness)

    finite = np.arange(SIZE, dtype=np.float32)
    for value in (np.nan, np.inf, -np.inf):
        for some in ([0], [2, 5], range(SIZE)):
            fitness = finite.copy()
            fitness[list(some)] = value
            told = tell(fitness)
            assert is_finite((strategy.mean(told), strategy.std(told))), (value, some)


def test_nan_counts_as_the_worst(id, key):
    strategy = make(id)
    state = strategy.init(key, SOLUTION)
    fitness = np.arange(SIZE, dtype=np.float32)
    worst, nan = fitness.copy(), fitness.copy()
    worst[3], nan[3] = np.inf, np.nan
    one, two = ask_tell(strategy, state, key, worst), ask_tell(strategy, state, key, nan)
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def test_equal_fitness_keeps_the_state_finite(id, key):
    strategy = make(id)
    state = strategy.init(key, SOLUTION)
    told = ask_tell(strategy, state, key, np.ones(SIZE, np.float32))
    assert is_finite((strategy.mean(told), strategy.std(told)))


def test_one_dimension_and_a_scalar_solution(id, key):
    strategy = make(id, population_size=6)
    state = strategy.init(key, 1.5)
    for k in jax.random.split(key, 3):
        state = ask_tell(strategy, state, k, quadratic)
    assert strategy.mean(state).shape == ()
    assert is_finite(strategy.mean(state))


def test_default_population_size(id, key):
    strategy = zoo.make_strategy(id)
    population, _ = strategy.ask(key, strategy.init(key, SOLUTION), jax.grad(quadratic))
    size = strategy.for_solution(SOLUTION).population_size
    groups = strategy.for_solution(SOLUTION).groups
    assert len(groups.ids if isinstance(groups, zoo.Groups) else groups) == size
    assert {len(leaf) for leaf in jax.tree.leaves(population)} == {size}
    if hasattr(strategy, "base"):  # a wrapper without a size of its own has its base's
        strategy = strategy.replace(base=strategy.base.replace(population_size=None))
    opened = strategy.replace(population_size=None)
    assert opened.for_solution(SOLUTION).population_size >= 2
    with pytest.raises(ValueError, match="population_size is open"):
        _ = opened.groups


def test_bare_fitness_is_an_evaluation_that_is_done(id, key):
    strategy = make(id)
    state = strategy.init(key, SOLUTION)
    fitness = np.arange(SIZE, dtype=np.float32)
    evaluation = zoo.Evaluation(jnp.asarray(fitness), jnp.ones(SIZE, bool), jnp.asarray(SIZE))
    bare = [ask_tell(strategy, state, key, f) for f in (fitness, jnp.asarray(fitness), fitness.astype(int), [*fitness])]
    whole = ask_tell(strategy, state, key, evaluation)
    for told in bare:
        assert all(map(np.array_equal, jax.tree.leaves(told), jax.tree.leaves(whole)))


@pytest.mark.parametrize("fitness", [np.ones(SIZE - 1), np.ones((SIZE, 1)), np.float32(1.0), np.ones(0)])
def test_wrong_fitness_shape(id, key, fitness):
    strategy = make(id)
    with pytest.raises(ValueError, match=rf"expects fitness of shape \({SIZE},\)"):
        ask_tell(strategy, strategy.init(key, SOLUTION), key, fitness)


def test_fitness_that_is_no_array(id, key):
    strategy = make(id)
    with pytest.raises(TypeError, match="expects an Evaluation or an array"):
        ask_tell(strategy, strategy.init(key, SOLUTION), key, {"a": 1})


@pytest.mark.parametrize("empty", [{}, (), [], {"a": {}}])
def test_empty_solution(id, key, empty):
    with pytest.raises(ValueError, match="empty pytree"):
        make(id).init(key, empty)


def test_solution_without_entries(id, key):
    with pytest.raises(ValueError, match="no entries"):
        make(id).init(key, np.zeros((0, 3)))


@pytest.mark.parametrize("leaf", [np.arange(3), 3, "three", True, np.ones(2, complex)])
def test_leaves_that_are_not_floats(id, key, leaf):
    with pytest.raises(TypeError, match=r"floating-point arrays, but \['n'\] is"):
        make(id).init(key, {"n": leaf, "x": np.ones(2)})


def test_settings_are_checked(id):
    name, low = ("sigma", "greater than") if hasattr(make(id), "sigma") else ("learning_rate", "at least")
    with pytest.raises(ValueError, match=f"{name} must be {low} 0, got -1"):
        make(id, **{name: -1})
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        make(id, **{name: "big"})
    with pytest.raises(ValueError, match="population_size must be at least"):
        make(id, population_size=0)
    with pytest.raises(TypeError, match="population_size must be a whole number"):
        make(id, population_size=8.5)


def test_std_stays_positive_in_a_long_run(id, key):
    """3 000 generations on a sphere, the state donated: nothing may underflow to zero or become NaN."""
    strategy = make(id)

    @functools.partial(jax.jit, donate_argnums=0)
    def collapse(state, keys):
        def body(state, k):
            return ask_tell(strategy, state, k, lambda x: quadratic(jax.tree.map(lambda y: y + 0.25, x))), None

        return jax.lax.scan(body, state, keys)[0]

    state = collapse(strategy.init(key, jax.tree.map(np.zeros_like, SOLUTION)), jax.random.split(key, 3000))
    assert is_finite((strategy.mean(state), strategy.std(state)))
    assert all(bool(jnp.all(x > 0)) == samples(strategy) for x in jax.tree.leaves(strategy.std(state)))


def test_loop_resumes_exactly_from_a_stored_state(id, key):
    """The state holds everything: a loop cut in two ends bit-identical."""
    problem, strategy = FAMILIES["unrolled"](), make(id)
    step = jax.jit(lambda loop, k: generation(strategy, problem, loop, k))
    keys = jax.random.split(key, 4)
    whole = start(strategy, problem, key)
    for k in keys:
        whole, _ = step(whole, k)
    cut = start(strategy, problem, key)
    for k in keys[:2]:
        cut, _ = step(cut, k)
    leaves, structure = jax.tree.flatten(cut)
    cut = Loop(*jax.tree.unflatten(structure, [np.asarray(x) for x in leaves]))
    for k in keys[2:]:
        cut, _ = step(cut, k)
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(cut)))
