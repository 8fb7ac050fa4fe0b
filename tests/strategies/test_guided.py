"""Guided ES and its relatives: the search covariance, the estimate, the closed form, the subspaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import ask, init, tell
from zoo.core.vectors import unit
from zoo.strategies.gradient.guided_es import optimal_coefficients
from zoo.strategies.gradient.subspace import Basis, orthonormal_basis

SOLUTION = {"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 1), np.float32)}  # 6 dimensions
NUM_DIMS = 6


def flat(tree, size=None):
    """Concatenates the leaves to `[n]`, or to `[size, n]`."""
    leaves = jax.tree.leaves(tree)
    return np.concatenate([np.asarray(x, np.float64).reshape(*([size] if size else []), -1) for x in leaves], axis=-1)


@jax.jit
def draw(seed):
    keys = jax.random.split(jax.random.key(seed))
    return {"a": jax.random.normal(keys[0], (4,)), "b": jax.random.normal(keys[1], (2, 1))}


def direction(seed):
    """Draws a direction in NumPy, where no operation has to be compiled."""
    return jax.device_get(draw(seed))


def unit_direction(seed):
    return jax.device_get(jax.jit(unit)(draw(seed)))


def always(gradient):
    """Returns a surrogate that gives this gradient everywhere."""
    return jax.tree_util.Partial(_always, gradient)


def _always(gradient, _):
    return gradient


def at_generation(state, number):
    return state._replace(descent=state.descent._replace(generation=np.int32(number)))


def ask_with(strategy, surrogates, key):
    """Returns the population drawn after some surrogates were seen, and the state."""
    state = init(strategy, key, SOLUTION)
    for i, surrogate in enumerate(surrogates):
        population, state = ask(strategy, key, at_generation(state, i), always(surrogate))
    return population, state


@jax.jit
def std(strategy, state):
    return strategy.std(state)


@jax.jit
def estimate(strategy, state, population, evaluation):
    return strategy.estimate(state, population, evaluation)


def perturbations(population):
    size = len(jax.tree.leaves(population)[0])
    return (flat(population, size) - flat(SOLUTION))[: size // 2]


def check_covariance(samples, expected):
    """Checks every entry of the covariance within 5 standard deviations: var = (c_ii c_jj + c_ij^2) / n."""
    covariance = samples.T @ samples / len(samples)
    variance = (np.outer(np.diag(expected), np.diag(expected)) + expected**2) / len(samples)
    assert np.all(np.abs(covariance - expected) < 5 * np.sqrt(variance) + 1e-12)


def projection(*directions):
    q, _ = np.linalg.qr(np.stack([flat(d) for d in directions], axis=1))
    return q @ q.T


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
def test_search_covariance_is_that_of_the_paper(alpha, key):
    surrogates = [direction(1), direction(2)]
    strategy = zoo.make_strategy("guided_es", population_size=40_000, subspace_dims=2, alpha=alpha, sigma=0.5)
    population, state = ask_with(strategy, surrogates, key)
    expected = 0.25 * (alpha / NUM_DIMS * np.eye(NUM_DIMS) + (1 - alpha) / 2 * projection(*surrogates))
    check_covariance(perturbations(population), expected)
    np.testing.assert_allclose(flat(std(strategy, state)), np.sqrt(np.diag(expected)), rtol=1e-5)


@pytest.mark.parametrize(
    ("surrogates", "span"),
    [
        ([jax.tree.map(np.zeros_like, SOLUTION)] * 2, []),
        ([{**SOLUTION, "a": np.full(4, np.nan, np.float32)}], []),
        ([{**SOLUTION, "a": np.full(4, np.inf, np.float32)}, direction(1)], [1]),
        ([direction(1)] * 4, [1]),
        ([direction(1), jax.tree.map(lambda x: -3 * x, direction(1)), direction(2)], [1, 2]),
        ([jax.tree.map(lambda x: 1e30 * x, direction(1)), jax.tree.map(lambda x: 1e-30 * x, direction(2))], [1, 2]),
    ],
)
def test_surrogates_that_add_nothing(surrogates, span, key):
    """Zero, non-finite and repeated surrogates add no direction and no NaN, and the trace stays sigma^2."""
    strategy = zoo.make_strategy("guided_es", population_size=20_000, subspace_dims=4, alpha=0.3, sigma=1.0)
    population, state = ask_with(strategy, surrogates, key)
    alpha = 0.3 if span else 1.0
    expected = alpha / NUM_DIMS * np.eye(NUM_DIMS)
    if span:
        expected += (1 - alpha) / len(span) * projection(*map(direction, span))
    assert int(basis(strategy, state).rank) == len(span)
    check_covariance(perturbations(population), expected)


def test_alpha_one_is_open_es(key):
    """With the same noise, the members equal those drawn by open_es, and the estimate is its estimate over n."""
    guided = zoo.make_strategy("guided_es", population_size=8, alpha=1.0, beta=1.0, sigma=0.3)
    plain = zoo.make_strategy("open_es", population_size=8, sigma=0.3 / np.sqrt(NUM_DIMS), shaping="none")
    population, state = ask_with(guided, [direction(1)], key)
    same, plain_state = ask(plain, jax.random.split(key)[0], init(plain, key, SOLUTION))
    np.testing.assert_allclose(flat(population, 8), flat(same, 8), rtol=1e-6)
    evaluation = zoo.Evaluation(np.arange(8, dtype=np.float32) ** 2, np.ones(8, bool), np.asarray(8))
    one, two = (estimate(s, at, population, evaluation) for s, at in ((guided, state), (plain, plain_state)))
    np.testing.assert_allclose(flat(one) * NUM_DIMS, flat(two), rtol=1e-5)


def estimates(strategy, surrogate, gradient, *, num_samples):
    """Returns estimates of a linear function's gradient, `[num_samples, n]`."""
    keys = jax.random.split(jax.random.key(7), num_samples)
    return flat(estimates_with(strategy, surrogate, gradient, keys), num_samples)


@jax.jit
def estimates_with(strategy, surrogate, gradient, keys):
    state = strategy.init(jax.random.key(0), SOLUTION)

    @jax.vmap
    def one(key):
        population, asked = strategy.ask(key, state, lambda x: surrogate)
        fitness = zoo.map_members(lambda x: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, x, gradient))), population)
        size = len(fitness)
        evaluation = zoo.Evaluation(fitness, jnp.ones(size, bool), jnp.asarray(size))
        return strategy.estimate(asked, population, evaluation)

    return one(keys)


def check_mean(samples, expected):
    error = samples.mean(axis=0) - expected
    assert np.all(np.abs(error) < 5 * samples.std(axis=0) / np.sqrt(len(samples)) + 1e-6)


def test_expected_estimate_is_beta_sigma_gradient():
    gradient, surrogate = direction(3), direction(1)
    strategy = zoo.make_strategy("guided_es", population_size=4, alpha=0.4, beta=1.5, sigma=0.2)
    samples = estimates(strategy, surrogate, gradient, num_samples=20_000)
    covariance = 0.4 / NUM_DIMS * np.eye(NUM_DIMS) + 0.6 * projection(surrogate)
    check_mean(samples, 1.5 * covariance @ flat(gradient))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("num_pairs", [1, 3])
def test_mean_squared_error_of_the_estimate(alpha, num_pairs):
    """The formulas for bias, variance and the best beta agree with simulation."""
    gradient, surrogate = unit_direction(3), direction(4)
    rho2 = float(flat(gradient) @ projection(surrogate) @ flat(gradient))
    a = alpha / NUM_DIMS + (1 - alpha) * rho2
    b = alpha**2 / NUM_DIMS**2 + rho2 * (2 * alpha * (1 - alpha) / NUM_DIMS + (1 - alpha) ** 2)
    beta = a / (b + (a + b) / num_pairs)
    strategy = zoo.make_strategy("guided_es", population_size=2 * num_pairs, alpha=alpha, beta=beta, sigma=1.0)
    errors = np.sum((estimates(strategy, surrogate, gradient, num_samples=40_000) - flat(gradient)) ** 2, axis=1)
    expected = 1 - a * beta
    assert abs(errors.mean() - expected) < 5 * errors.std() / np.sqrt(len(errors))
    at_alpha = coefficients(rho2, NUM_DIMS, 1, num_pairs)
    error = lambda alpha: 1 - mean_and_beta(alpha, rho2, NUM_DIMS, 1, num_pairs)[0]  # noqa: E731
    assert error(float(at_alpha[0])) <= expected + 1e-6


coefficients = jax.jit(optimal_coefficients)


def mean_and_beta(alpha, rho2, n, k, num_pairs):
    a = alpha / n + (1 - alpha) * rho2 / k
    b = alpha**2 / n**2 + rho2 * (2 * alpha * (1 - alpha) / (n * k) + (1 - alpha) ** 2 / k**2)
    beta = a / np.maximum(b + (a + b) / num_pairs, 1e-300)
    return a * beta, beta


@pytest.mark.parametrize(("n", "k", "num_pairs"), [(1000, 1, 1), (1000, 8, 4), (20, 3, 10), (10, 10, 1)])
def test_closed_form_against_a_grid(n, k, num_pairs, x64):
    low, high = k / n, (k + 2 * num_pairs + 2) / (n + 2 * num_pairs + 2)
    alphas = np.linspace(0, 1, 20_001)
    for rho2 in (0.0, 0.5 * low, low, 0.7 * low + 0.3 * high, 0.3 * low + 0.7 * high, high, (1 + high) / 2, 1.0):
        gain, _ = mean_and_beta(alphas, rho2, n, k, num_pairs)
        alpha, beta = coefficients(rho2, n, k, num_pairs)
        assert mean_and_beta(float(alpha), rho2, n, k, num_pairs)[0] >= gain.max() - 1e-9
        np.testing.assert_allclose(beta, mean_and_beta(float(alpha), rho2, n, k, num_pairs)[1], rtol=1e-9)
        if k < n and rho2 in (0.5 * low, (1 + high) / 2):
            assert float(alpha) == (1 if rho2 < low else 0)
    np.testing.assert_allclose(coefficients(0.0, n, k, num_pairs)[1], n * num_pairs / (n + num_pairs + 1))
    if k < n:
        np.testing.assert_allclose(coefficients(1.0, n, k, num_pairs)[1], k * num_pairs / (k + num_pairs + 1))
    assert float(coefficients(1.0, n, 0, num_pairs)[0]) == 1


@jax.jit
def train(strategy, gradient, surrogate, keys):
    def generation(state, key):
        population, state = strategy.ask(key, state, lambda x: surrogate)
        return strategy.tell(state, population, population @ gradient), state.squares

    return jax.lax.scan(generation, strategy.init(jax.random.key(0), jnp.zeros(200)), keys)


@pytest.mark.parametrize("cosine", [0.0, 0.8])
def test_adaptive_coefficients_find_how_good_the_surrogate_is(cosine):
    gradient, surrogate = np.zeros((2, 200), np.float32)
    gradient[0] = 3
    surrogate[:2] = cosine, np.sqrt(1 - cosine**2)
    strategy = zoo.make_strategy(
        "guided_es", population_size=8, adaptive=True, alpha=0.5, optimizer="sgd", learning_rate=0.0
    )
    state, squares = jax.device_get(train(strategy, gradient, surrogate, jax.random.split(jax.random.key(1), 3000)))
    rho2 = cosine**2
    total, inside = np.mean(squares[500:], axis=0)
    # 4 standard errors, from means over batches of 250 generations, which is longer than the running average remembers.
    spread = np.std(np.reshape(squares[500:], (10, 250, 2)).mean(axis=1), axis=0) / np.sqrt(10)
    assert np.all(spread < 0.5)
    assert abs(total - 9) < 4 * spread[0]
    assert abs(inside - 9 * rho2) < 4 * spread[1]
    if cosine:
        assert state.alpha == pytest.approx(strategy.min_alpha)
        expected = mean_and_beta(0.1, min(float(state.squares[1] / state.squares[0]), 1), 200, 1, 4)[1]
        np.testing.assert_allclose(state.beta, expected, rtol=0.05)
    else:
        assert state.alpha > 0.5


def test_adaptive_needs_more_pairs_than_directions():
    with pytest.raises(ValueError, match="population_size must be at least 6 for subspace_dims=2, got 4"):
        zoo.make_strategy("guided_es", adaptive=True, population_size=4, subspace_dims=2)


@pytest.mark.parametrize(
    ("id", "setting"),
    [
        ("guided_es", {"alpha": 1.5}),
        ("guided_es", {"min_alpha": 2.0}),
        ("self_guided_es", {"max_alpha": 3}),
        ("asebo", {"decay": 1.5}),
    ],
)
def test_fractions_are_at_most_one(id, setting):
    with pytest.raises(ValueError, match="must be at most 1, got"):
        zoo.make_strategy(id, **setting)


@pytest.mark.parametrize("id", ["guided_es", "cv_zod", "asebo", "self_guided_es"])
def test_pairs_need_an_even_population(id):
    with pytest.raises(ValueError, match="population_size must be even, got 7"):
        zoo.make_strategy(id, population_size=7)


@pytest.mark.parametrize("id", ["guided_es", "cv_zod"])
def test_without_a_surrogate(id, key):
    strategy = zoo.make_strategy(id)
    with pytest.raises(TypeError, match="needs a surrogate gradient"):
        strategy.ask(key, init(strategy, key, SOLUTION))


def test_control_variate_is_unbiased_for_any_hint():
    gradient = direction(3)
    strategy = zoo.make_strategy("cv_zod", population_size=2, sigma=0.1)
    for hint in (direction(5), jax.tree.map(lambda x: -20 * x, gradient)):
        check_mean(estimates(strategy, hint, gradient, num_samples=20_000), flat(gradient))


def test_control_variate_limits(key):
    """A perfect hint removes all randomness. Without a hint, the strategy is open_es."""
    gradient = direction(3)
    strategy = zoo.make_strategy("cv_zod", population_size=4, sigma=0.1)
    samples = estimates(strategy, gradient, gradient, num_samples=10)
    np.testing.assert_allclose(samples, np.tile(flat(gradient), (10, 1)), atol=2e-4)
    plain = zoo.make_strategy("open_es", population_size=4, sigma=0.1, shaping="none")
    for none in (jax.tree.map(np.zeros_like, gradient), jax.tree.map(lambda x: x * np.nan, gradient)):
        one, two = (estimates(s, none, gradient, num_samples=10) for s in (strategy, plain))
        np.testing.assert_array_equal(one, two)


def test_control_variate_wants_the_fitness_as_it_is():
    with pytest.raises(ValueError, match="shaping must be 'none', got 'centered_ranks'"):
        zoo.make_strategy("cv_zod", shaping="centered_ranks")


def with_history(strategy, directions):
    """Returns a state that remembers these estimates."""
    state = init(strategy, jax.random.key(0), SOLUTION)
    return at_generation(state, len(directions))._replace(directions=stack(*directions))


def stack(*directions):
    return jax.tree.map(lambda *x: np.stack(x), *directions)


@jax.jit
def basis(strategy, state):
    return strategy.basis(state)


combine = jax.jit(Basis.combine)


def test_self_guided_pairs_are_inside_or_orthogonal(key):
    history = [unit_direction(i) for i in (1, 2)]
    strategy = zoo.make_strategy("self_guided_es", population_size=40_000, subspace_dims=2, sigma=1.0, alpha=0.4)
    state = with_history(strategy, history)
    population, asked = ask(strategy, key, state)
    steps, inside, p = perturbations(population), np.asarray(asked.is_inside), projection(*history)
    assert abs(inside.mean() - 0.4) < 5 * np.sqrt(0.24 / len(inside))
    np.testing.assert_allclose(steps[inside] @ p, steps[inside], atol=1e-5)
    np.testing.assert_allclose(steps[~inside] @ p, 0, atol=1e-5)
    check_covariance(steps[inside], p)
    check_covariance(steps[~inside], np.eye(NUM_DIMS) - p)
    np.testing.assert_allclose(
        flat(std(strategy, state)) ** 2, np.diag(0.4 * p + 0.6 * (np.eye(NUM_DIMS) - p)), rtol=1e-4
    )


def test_self_guided_probability_follows_the_better_group(key):
    strategy = zoo.make_strategy("self_guided_es", population_size=8, subspace_dims=2, alpha=0.5)
    state = with_history(strategy, [unit_direction(i) for i in (1, 2)])
    population, asked = ask(strategy, key, state)
    inside = np.array([True, False, True, False])
    asked = asked._replace(is_inside=inside)
    for better, factor in ((inside, 1.005), (~inside, 1 / 1.005)):
        fitness = np.full(8, 5.0, np.float32)
        fitness[:4] = np.where(better, 1.0, 2.0)  # the better member of each pair counts
        told = tell(strategy, asked, population, fitness)
        np.testing.assert_allclose(told.alpha, 0.5 * factor, rtol=1e-6)
    for alpha, better, bound in ((0.7, inside, 0.7), (0.3, ~inside, 0.3)):
        fitness[:4] = np.where(better, 1.0, 2.0)
        told = tell(strategy, asked._replace(alpha=np.float32(alpha)), population, fitness)
        np.testing.assert_allclose(told.alpha, bound, rtol=1e-6)
    one_kind = asked._replace(is_inside=np.ones(4, bool))
    assert float(tell(strategy, one_kind, population, fitness).alpha) == 0.5


def test_self_guided_on_a_plateau_does_not_compare_rounding(key):
    """With equal fitness in both groups, alpha falls.

    Rounding makes the mean of equal values depend on their number.
    """
    strategy = zoo.make_strategy("self_guided_es", population_size=40, subspace_dims=2, alpha=0.5)
    state = with_history(strategy, [unit_direction(i) for i in (1, 2)])
    population, asked = ask(strategy, key, state)
    for num_inside in range(1, 20):
        asked = asked._replace(is_inside=np.arange(20) < num_inside)
        for value in (0.1, 0.7):
            told = tell(strategy, asked, population, np.full(40, value, np.float32))
            np.testing.assert_allclose(told.alpha, 0.5 / 1.005, rtol=1e-6)


@pytest.mark.parametrize("id", ["asebo", "self_guided_es"])
def test_whole_space_until_there_is_a_history(id, key):
    strategy = zoo.make_strategy(id, subspace_dims=3, population_size=6)
    state = init(strategy, key, SOLUTION)
    ranks = []
    for i in range(5):
        population, state = ask(strategy, jax.random.fold_in(key, i), state)
        ranks.append(int(basis(strategy, state).rank))
        state = tell(strategy, state, population, np.sum(np.square(population["a"]), axis=1))
    assert ranks[:3] == [0, 0, 0]
    assert 1 <= ranks[3] <= 3


def test_asebo_uses_the_principal_directions_of_the_decayed_covariance(key):
    history = [direction(i) for i in range(6)]
    strategy = zoo.make_strategy("asebo", subspace_dims=6, population_size=20, decay=0.5, explained=0.9, sigma=1.0)
    state = with_history(strategy, history)
    covariance = sum(0.5 ** (5 - i) * np.outer(flat(g), flat(g)) for i, g in enumerate(history))
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int(np.argmax(np.cumsum(values) / values.sum() >= 0.9)) + 1
    found = basis(strategy, state)
    assert int(found.rank) == rank < 6
    expected = vectors[:, :rank] @ vectors[:, :rank].T
    rows = flat(combine(found, np.eye(6, dtype=np.float32)), 6)
    np.testing.assert_allclose(rows.T @ rows, expected, atol=1e-4)
    # After the next estimate, the weight of the whole space is the norm outside the subspace over the norm inside.
    population, asked = ask(strategy, key, state)
    fitness = np.sum(population["a"], axis=1)
    evaluation = zoo.Evaluation(fitness, np.ones(20, bool), np.asarray(20))
    g = flat(estimate(strategy, asked, population, evaluation))
    inside = np.linalg.norm(expected @ g)
    told = tell(strategy, asked, population, evaluation)
    np.testing.assert_allclose(told.alpha, min(1, np.sqrt(g @ g - inside**2) / inside), rtol=1e-3)
    np.testing.assert_allclose(flat(told.directions, 6)[0], g, rtol=1e-6)  # the oldest is gone


def test_basis_is_orthonormal_and_spans():
    @jax.jit
    def results(directions, one):
        basis = orthonormal_basis(directions)
        rows, projected = basis.combine(jnp.eye(3)), basis.combine(basis.coordinates(one))
        return basis.rank, rows, basis.squared_entries(), projected

    rank, rows, squares, projected = results(stack(*map(direction, (1, 2, 1))), stack(direction(3)))
    expected, rows = projection(direction(1), direction(2)), flat(rows, 3)
    assert int(rank) == 2
    np.testing.assert_allclose(rows.T @ rows, expected, atol=1e-5)
    np.testing.assert_allclose(flat(squares), np.diag(expected), atol=1e-5)
    np.testing.assert_allclose(flat(projected, 1)[0], expected @ flat(direction(3)), atol=1e-5)


@pytest.mark.parametrize("id", ["guided_es", "asebo", "self_guided_es", "cv_zod"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(id, dtype, key):
    strategy = zoo.make_strategy(id, population_size=8, **({"adaptive": True} if id == "guided_es" else {}))
    state = init(strategy, key, {"x": np.ones(4, dtype)})
    for k in jax.random.split(key, 3):
        population, asked = ask(strategy, k, state, always({"x": np.ones(4, np.float32)}))
        told = tell(strategy, asked, population, np.sum(np.float32(population["x"]) ** 2, axis=1))
        assert [x.dtype for x in jax.tree.leaves(told)] == [x.dtype for x in jax.tree.leaves(state)]
        state = told
    assert population["x"].dtype == strategy.mean(state)["x"].dtype == dtype
    assert np.all(np.isfinite(np.float32(strategy.mean(state)["x"])))


def test_control_variate_leaves_out_pairs_without_finite_fitness(key):
    strategy = zoo.make_strategy("cv_zod", population_size=4, optimizer="sgd", learning_rate=1.0)
    hint = np.array([0, 0, 0, 5], np.float32)
    population, asked = ask(strategy, key, init(strategy, key, np.ones(4, np.float32)), always(hint))
    told = tell(strategy, asked, population, np.full(4, np.nan, np.float32))
    np.testing.assert_array_equal(strategy.mean(told), np.ones(4))
    fitness = np.asarray(population) @ hint
    fitness[1] = np.nan  # one member of the second pair
    told = tell(strategy, asked, population, fitness)
    np.testing.assert_allclose(strategy.mean(told), [1, 1, 1, -4], atol=1e-3)


@pytest.mark.parametrize("size", [2e38, 1e30, np.inf])
def test_control_variate_ignores_a_hint_that_has_exploded(size, key):
    strategy = zoo.make_strategy("cv_zod", population_size=4)
    hint = np.full(4, size, np.float32)
    _, asked = ask(strategy, key, init(strategy, key, np.ones(4, np.float32)), always(hint))
    assert not np.any(asked.hint)
    assert not np.any(asked.slopes)


def test_self_guided_when_the_history_spans_the_whole_space(key):
    """No pair is spent on the complement if the history spans the whole space."""
    strategy = zoo.make_strategy("self_guided_es", population_size=40, subspace_dims=8, sigma=0.5)
    state = with_history(strategy, [unit_direction(i) for i in range(8)])
    population, asked = ask(strategy, key, state)
    assert np.all(asked.is_inside)
    assert np.min(np.linalg.norm(perturbations(population), axis=1)) > 0.1
    np.testing.assert_allclose(flat(std(strategy, state)), 0.5, rtol=1e-3)


def test_adaptive_keeps_its_coefficients_until_something_is_known(key):
    strategy = zoo.make_strategy("guided_es", population_size=8, adaptive=True, alpha=0.3, beta=1.5)
    population, asked = ask(strategy, key, init(strategy, key, SOLUTION), always(direction(1)))
    told = tell(strategy, asked, population, np.full(8, np.nan, np.float32))
    np.testing.assert_allclose([told.alpha, told.beta], [0.3, 1.5], rtol=1e-6)
    assert float(init(strategy.replace(alpha=0.0), key, SOLUTION).alpha) > 0


def test_suggested_sigma_is_converted_to_a_length():
    problem = zoo.make_problem("supervised/digits", hidden=(2,))  # it suggests a sigma per parameter
    each = zoo.make_strategy("open_es", problem=problem).sigma
    for id in ("guided_es", "asebo"):
        strategy = zoo.make_strategy(id, problem=problem)
        np.testing.assert_allclose(strategy.sigma, each * np.sqrt(64 * 2 + 2 + 2 * 10 + 10))
        assert zoo.make_strategy(id, problem=problem, sigma=0.3).sigma == 0.3


@pytest.mark.parametrize(
    ("surrogate", "message"),
    [
        (
            lambda x: x["a"],
            r"A surrogate gradient must have the structure of the solution: expected a dict, got shape \(4,\)\.",
        ),
        (
            lambda x: {**x, "a": jnp.ones(3)},
            r"must have the shapes of the solution: expected shape \(4,\) in a, got \(3,\)\.",
        ),
    ],
)
def test_surrogate_that_does_not_fit(surrogate, message, key):
    strategy = zoo.make_strategy("guided_es")
    with pytest.raises(ValueError, match=message):
        strategy.ask(key, init(strategy, key, SOLUTION), surrogate)
