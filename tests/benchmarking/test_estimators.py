"""`estimator_statistics` is compared with closed forms; and the figure that compares estimators."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from zoo.benchmarking import estimators

SIGMA = 0.3


@pytest.fixture(autouse=True, scope="module")
def compile_fast():
    """Compiles without optimisation, which would take longer than the programs run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# A plain problem: f = x' HESSIAN x / 2 + SLOPE' x + cubic sum x^3

HESSIAN = np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)
SLOPE = np.array([0.7, -1.1], np.float32)
POINT = np.array([0.4, -0.6], np.float32)


def polynomial(x, hessian, slope, cubic):
    return x @ hessian @ x / 2 + slope @ x + cubic * jnp.sum(x**3)


def make_plain(quadratic=1.0, cubic=0.0):
    return zoo.from_function(
        polynomial, jnp.asarray(POINT), data=(quadratic * jnp.asarray(HESSIAN), jnp.asarray(SLOPE), jnp.asarray(cubic))
    )


# An unrolled problem: x <- DECAY x + solution, and a polynomial of x as the loss of a step

DECAY = 0.9 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]], np.float32)
COST = np.array([0.7, -1.3], np.float32)
START = np.array([1.0, -0.5], np.float32)
THETA = np.array([0.3, -0.2], np.float32)


class Line(zoo.UnrolledProblem):
    horizon: int | None = zoo.static(6)
    window: int | None = zoo.static(2)
    quadratic: float = zoo.number(0.2)
    cubic: float = zoo.number(0.0)

    def initial_solution(self, key):
        return {"drive": jnp.asarray(THETA)}

    def reset(self, key):
        return jnp.asarray(START)

    def step(self, key, solution, inner):
        inner = DECAY @ inner + solution["drive"]
        loss = inner @ COST + self.quadratic * jnp.sum(inner**2) / 2 + self.cubic * jnp.sum(inner**3)
        return inner, loss, jnp.asarray(False)


def window_gradients(problem):
    """Returns `u[w, b]`: the gradient of window w's fitness by the solution that window b was run with.

    The cubic term apart, a pair's difference of losses is linear in the perturbations, and this is its slope.
    """
    num_windows = -(-problem.horizon // problem.window)
    gradients = np.zeros((num_windows, num_windows, 2))
    x, derivative = START.astype(float), np.zeros((num_windows, 2, 2))
    for t in range(problem.horizon):
        w = t // problem.window
        x = DECAY @ x + THETA
        derivative = DECAY @ derivative
        derivative[w] += np.eye(2)
        gradients[w] += (COST + problem.quadratic * x) @ derivative
    return gradients * num_windows / problem.horizon


def squared(x):
    return np.sum(np.square(x), axis=-1)


def flat(solution):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(solution)]).astype(np.float64)


def measure(name, problem=None, key=0, num_samples=None, sigma=None, num_exact=2, **settings):
    """The statistics of an unshaped strategy at the initial solution; by default from one full batch of samples.

    One program serves all calls with the same strategy, problem, population size and number of samples.
    """
    if name not in ("tbptt", "bptt"):
        settings = {"sigma": SIGMA, "shaping": "none", **settings}
    strategy = zoo.make_strategy(name, **settings)
    num_samples = num_samples or 4096 // strategy.population_size
    problem = Line() if problem is None else problem
    return zoo.estimator_statistics(strategy, problem, None, key, num_samples, sigma=sigma, num_exact=num_exact)


def numbers(statistics):
    """Returns all statistics except the times, as one vector."""
    values = dataclasses.asdict(statistics)
    del values["seconds_per_estimate"]
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(values)])


def check_variance(statistics, expected):
    assert abs(statistics.total_variance - expected) < 4.5 * statistics.total_variance_error
    assert statistics.total_variance_error < 0.2 * expected


def check_unbiased(statistics):
    assert 0 < statistics.bias < 4 * statistics.bias_by_chance
    assert statistics.bias_by_chance < 0.2 * np.linalg.norm(flat(statistics.reference))


# Plain problems


@pytest.mark.parametrize(("quadratic", "num_pairs", "num_samples"), [(0.0, 1, 2048), (1.0, 4, 512)])
def test_open_es_on_a_quadratic(quadratic, num_pairs, num_samples):
    """(d + 1) ||g||^2 per antithetic pair; the quadratic term cancels within every pair."""
    problem = make_plain(quadratic)
    statistics = measure("open_es", problem, num_samples=num_samples, population_size=2 * num_pairs)
    gradient = quadratic * HESSIAN @ POINT + SLOPE
    check_unbiased(statistics)
    check_variance(statistics, 3 * squared(gradient) / num_pairs)
    np.testing.assert_allclose(statistics.exact, gradient, rtol=1e-5)
    np.testing.assert_allclose(statistics.exact, jax.jit(jax.grad(lambda x: problem.fitness(None, x)))(POINT))
    assert statistics.exact_bias < 4 * np.linalg.norm(statistics.standard_error)
    np.testing.assert_allclose(statistics.exact_bias, np.linalg.norm(statistics.mean - gradient), rtol=1e-3)
    np.testing.assert_allclose(statistics.bias, np.linalg.norm(statistics.mean - statistics.reference), rtol=1e-5)
    both = squared(statistics.standard_error) + squared(statistics.reference_error)
    np.testing.assert_allclose(statistics.bias_by_chance, np.sqrt(both), rtol=1e-5)
    # With one window per episode, the variance is the variance of the samples.
    np.testing.assert_allclose(statistics.total_variance, num_samples * squared(statistics.standard_error), rtol=1e-3)
    # The reference has the same number of members and samples, and so an error of the same size.
    ratio = squared(statistics.reference_error) / squared(statistics.standard_error)
    assert 0.7 < ratio < 1.4
    assert statistics.steps_per_estimate == 2 * num_pairs
    assert statistics.num_samples == num_samples
    if num_pairs == 1:  # the cosine is |cos| of a uniform angle
        np.testing.assert_allclose(statistics.cosine, 2 / np.pi, atol=0.04)
    else:
        assert 0.8 < statistics.cosine < 1


def test_without_a_sigma_the_reference_is_the_exact_gradient_else_the_smoothed_one():
    """Smoothing adds 3 sigma^2 to the gradient of x^3."""
    problem = make_plain(cubic=1.0)
    gradient = HESSIAN @ POINT + SLOPE + 3 * POINT**2
    tbptt = measure("tbptt", problem, num_samples=128, population_size=32)
    np.testing.assert_allclose(tbptt.reference, gradient, rtol=1e-5)
    np.testing.assert_allclose(tbptt.mean, gradient, rtol=1e-5)
    np.testing.assert_array_equal(tbptt.reference_error, 0)
    assert tbptt.reference_sigma is None
    np.testing.assert_allclose([tbptt.bias, tbptt.exact_bias], 0, atol=1e-6)
    np.testing.assert_allclose(tbptt.cosine, 1, rtol=1e-6)
    np.testing.assert_allclose(tbptt.total_variance, 0, atol=1e-5 * squared(gradient))
    assert tbptt.steps_per_estimate == 32
    # The reference has the sigma of the strategy, unless a sigma is given.
    smoothed = measure("tbptt", problem, num_samples=128, population_size=32, sigma=0.8)
    own = measure("open_es", problem, population_size=32)
    for statistics, sigma in ((smoothed, 0.8), (own, SIGMA)):
        error = statistics.reference_error
        assert np.all(error > 0)
        np.testing.assert_array_less(np.abs(statistics.reference - gradient - 3 * sigma**2), 4.5 * error)
        np.testing.assert_allclose(statistics.exact, gradient, rtol=1e-5)
        assert statistics.reference_sigma == sigma
    np.testing.assert_allclose(smoothed.mean, gradient, rtol=1e-5)
    np.testing.assert_allclose(smoothed.exact_bias, 0, atol=1e-6)
    distance = 3 * 0.8**2 * np.sqrt(2)
    assert abs(smoothed.bias - distance) < 4 * smoothed.bias_by_chance < 0.5 * distance
    check_unbiased(own)


def test_any_sigma_may_be_the_references():
    """The estimates do not depend on it."""
    settings = {"problem": make_plain(cubic=1.0), "population_size": 32}
    own, other = measure("open_es", **settings), measure("open_es", **settings, sigma=0.8)
    np.testing.assert_array_equal(own.mean, other.mean)
    gradient = HESSIAN @ POINT + SLOPE + 3 * POINT**2
    np.testing.assert_array_less(np.abs(other.reference - gradient - 3 * 0.8**2), 4.5 * other.reference_error)
    assert other.bias > 5 * other.bias_by_chance


def test_the_solution_may_be_given():
    """The gradient is zero there, so the estimates are only noise."""
    problem = make_plain()
    solution = jnp.asarray(np.linalg.solve(HESSIAN, -SLOPE))
    strategy = zoo.make_strategy("open_es", population_size=2, shaping="none")
    statistics = zoo.estimator_statistics(strategy, problem, solution, num_samples=2048, num_exact=2)
    for gradient in (statistics.exact, statistics.reference, statistics.mean):
        np.testing.assert_allclose(gradient, 0, atol=1e-5)


# Unrolled problems


@pytest.mark.parametrize(
    ("name", "num_pairs", "steps"),
    [("nres", 1, 2 * 2), ("nres", 3, 2 * 3 * 2), ("pes", 1, 2 * 2), ("pes", 3, 2 * 3 * 2), ("full_es", 2, 2 * 2 * 6)],
)
def test_unbiased_estimators_of_an_unrolled_problem(name, num_pairs, steps):
    """Variances by the theorem on losses linear in the perturbations; three pairs see all three windows at once."""
    u = window_gradients(Line())
    totals = u.sum(axis=1)  # per window
    gradient = totals.mean(axis=0)
    if name == "nres":
        second_moments = 4 * squared(totals)
    elif name == "pes":
        second_moments = np.array([2 * (w + 1) * squared(u[w]).sum() + 2 * squared(totals[w]) for w in range(3)])
    if name == "full_es":
        variance = 3 * squared(gradient) / 2
    elif num_pairs == 1:
        variance = second_moments.mean() - squared(gradient)
    else:
        variance = (second_moments - squared(totals)).sum() / 9
    statistics = measure(name, population_size=2 * num_pairs)
    check_unbiased(statistics)
    check_variance(statistics, variance)
    np.testing.assert_array_less(np.abs(flat(statistics.mean) - gradient), 4.5 * flat(statistics.standard_error))
    np.testing.assert_array_less(np.abs(flat(statistics.reference) - gradient), 4.5 * flat(statistics.reference_error))
    np.testing.assert_allclose(statistics.exact["drive"], gradient, rtol=1e-5)
    if name == "full_es":  # one estimate per sample, from the whole episode
        spread = statistics.num_samples * squared(flat(statistics.standard_error))
        np.testing.assert_allclose(statistics.total_variance, spread, rtol=1e-3)
    assert statistics.steps_per_estimate == steps  # 2 N W, for whole episodes 2 N T
    np.testing.assert_allclose(statistics.variance_per_step, statistics.total_variance * steps, rtol=1e-12)
    expected = statistics.total_variance * statistics.seconds_per_estimate
    np.testing.assert_allclose(statistics.variance_per_second, expected, rtol=1e-12)
    assert 0 < statistics.seconds_per_estimate < 1
    assert jax.tree.structure(statistics.mean) == jax.tree.structure(Line().initial_solution(None))


def test_truncated_es_is_biased():
    """An estimate sees only the share of the gradient that belongs to its window."""
    u = window_gradients(Line())
    own = np.stack([u[w, w] for w in range(3)])
    statistics = measure("tes", num_samples=2048, population_size=3)
    assert statistics.bias > 10 * statistics.bias_by_chance
    error = flat(statistics.standard_error)
    np.testing.assert_array_less(np.abs(flat(statistics.mean) - own.mean(axis=0)), 4.5 * error)
    distance = np.linalg.norm(own.mean(axis=0) - u.sum(axis=1).mean(axis=0))
    assert abs(statistics.bias - distance) < 4 * statistics.bias_by_chance
    check_variance(statistics, (4 * squared(own)).mean() - squared(own.mean(axis=0)))
    assert statistics.steps_per_estimate == 3 * 2  # 3 N W


def test_backpropagation_is_compared_with_the_exact_gradient():
    u = window_gradients(Line())
    exact, truncated = u.sum(axis=1).mean(axis=0), np.mean([u[w, w] for w in range(3)], axis=0)
    full = measure("bptt", num_samples=2, population_size=2)
    np.testing.assert_allclose(full.mean["drive"], exact, rtol=1e-5)
    np.testing.assert_allclose(full.reference["drive"], exact, rtol=1e-5)
    np.testing.assert_allclose([full.bias, full.exact_bias], 0, atol=1e-5)
    np.testing.assert_allclose(full.cosine, 1, rtol=1e-6)
    assert full.steps_per_estimate == 2 * 6  # N T
    cut = measure("tbptt", num_samples=2, population_size=3)
    np.testing.assert_allclose(cut.mean["drive"], truncated, rtol=1e-5)
    np.testing.assert_allclose([cut.bias, cut.exact_bias], np.linalg.norm(truncated - exact), rtol=1e-4)
    # Three workers: one in each window, so that every estimate is the mean over the windows.
    one = np.sum(truncated * exact) / np.linalg.norm(truncated) / np.linalg.norm(exact)
    np.testing.assert_allclose(cut.cosine, one, rtol=1e-5)
    np.testing.assert_allclose(cut.total_variance, 0, atol=1e-5 * squared(exact))
    assert cut.steps_per_estimate == 3 * 2  # N W


def test_a_window_that_does_not_divide_the_horizon():
    """Seven steps in windows of three: an estimate costs seven thirds of a step a member, on average."""
    problem = Line(horizon=7, window=3)
    statistics = measure("pes", problem, population_size=4)
    check_unbiased(statistics)
    gradient = window_gradients(problem).sum(axis=1).mean(axis=0)
    np.testing.assert_allclose(statistics.exact["drive"], gradient, rtol=1e-5)
    np.testing.assert_allclose(statistics.steps_per_estimate, 4 * 7 / 3, rtol=1e-12)


def far_later(generation):
    """Returns a schedule that begins at one."""
    return jnp.where(generation == 0, 1.0, 20.0)


def test_the_search_stands_still_while_it_is_sampled():
    """This holds for a large learning rate, and for a schedule of sigma, which matters for the cubic loss."""
    settings = {"problem": Line(cubic=0.1), "population_size": 2}
    still = measure("pes", learning_rate=0.0, **settings)
    fast = measure("pes", learning_rate=100.0, optimizer=optax.sgd, **settings)
    np.testing.assert_allclose(numbers(fast), numbers(still), rtol=1e-4, atol=1e-6)
    scheduled = measure("pes", sigma_schedule=far_later, **settings)
    np.testing.assert_allclose(numbers(scheduled), numbers(still), rtol=1e-4, atol=1e-6)


# Problems of all families, keys, ids


def test_ids_stand_for_the_problem_and_the_strategy_that_it_suggests(key):
    problem = zoo.make_problem("unrolled/toy_lr_schedule")
    strategy = zoo.make_strategy("full_es", problem=problem)
    assert strategy.sigma == 0.3
    by_id = zoo.estimator_statistics("full_es", "unrolled/toy_lr_schedule", num_samples=2, num_exact=1)
    made = zoo.estimator_statistics(strategy, problem, num_samples=2, num_exact=1)
    np.testing.assert_array_equal(numbers(by_id), numbers(made))
    assert by_id.steps_per_estimate == strategy.population_size * 100
    exact = jax.jit(jax.grad(lambda x: problem.fitness(key, x)))(problem.initial_solution(key))
    np.testing.assert_allclose(by_id.exact, exact, rtol=1e-4)


def test_the_key_decides_all_numbers():
    settings = {"problem": make_plain(), "population_size": 2}
    one, again, other = (measure("open_es", key=key, **settings) for key in (3, jax.random.key(3), 4))
    np.testing.assert_array_equal(numbers(one), numbers(again))
    assert np.all(flat(one.mean) != flat(other.mean))
    assert np.all(flat(one.reference) != flat(other.reference))


def test_how_many_samples_are_taken_at_a_time_changes_nothing(monkeypatch):
    """Batches of two with a last one of one; and batches of one if even one sample has too many members."""
    # The reference is computed by the same program.
    settings = {"name": "full_es", "problem": make_plain(), "num_samples": 3, "population_size": 4}
    together = measure(**settings)
    for at_a_time in (8, 3):
        monkeypatch.setattr(estimators, "_MEMBERS_AT_A_TIME", at_a_time)
        np.testing.assert_allclose(numbers(measure(**settings)), numbers(together), rtol=1e-4, atol=1e-5)


def test_supervised_problems():
    problem = zoo.make_problem("supervised/digits", hidden=(), batch_size=16)
    statistics = measure("open_es", problem, num_samples=3, num_exact=2, population_size=4)
    assert jax.tree.map(jnp.shape, statistics.mean)["params"]["Dense_0"]["kernel"] == (64, 10)
    assert jax.tree.structure(statistics.mean) == jax.tree.structure(statistics.exact)
    assert statistics.steps_per_estimate == 4
    assert np.isfinite(numbers(statistics)).all()
    # The gradient is zero for every weight of a pixel that is always dark.
    dark = np.ravel(np.asarray(problem.train_inputs).max(axis=0)) == 0
    kernel = np.asarray(statistics.exact["params"]["Dense_0"]["kernel"])
    assert dark.any()
    assert np.all(kernel[dark] == 0)
    assert np.any(kernel[~dark] != 0)


def test_control_has_no_exact_gradient():
    problem = zoo.make_problem("rl/CartPole-v1", network="linear", horizon=4, window=2)
    statistics = measure("nres", problem, num_samples=4, num_exact=0, population_size=4)
    assert statistics.exact is None
    assert statistics.exact_bias is None
    assert statistics.steps_per_estimate == 4 * 2
    assert np.isfinite(numbers(statistics)).all()


class Random(zoo.Problem):
    """The gradient is one or two, depending on the key. If it is not finite, there is no exact gradient."""

    scale: float = zoo.number(1.0, finite=False)

    def initial_solution(self, key):
        return jnp.ones(3)

    def fitness(self, key, solution):
        return self.scale * jnp.where(jax.random.bernoulli(key), 2, 1) * jnp.sum(solution)


def test_the_exact_gradient_is_the_mean_over_episodes_and_must_be_finite():
    settings = {"num_samples": 2, "population_size": 2}
    for num_exact in (1, 64):
        exact = np.asarray(measure("open_es", Random(), num_exact=num_exact, **settings).exact)
        sums = exact.astype(np.float64) * num_exact
        np.testing.assert_allclose(sums, np.round(sums), rtol=1e-6)
        assert np.all(exact == exact[0])
        assert num_exact < sums[0] < 2 * num_exact or num_exact == 1
    infinite = measure("open_es", Random(scale=np.inf), num_exact=64, **settings)
    assert infinite.exact is None
    assert infinite.exact_bias is None


# Errors


@pytest.mark.parametrize(
    ("strategy", "problem", "settings", "error", "message"),
    [
        (
            "cma_es",
            "blackbox/sphere",
            {},
            TypeError,
            r"a strategy that estimates a gradient, .*CMAES has no `estimate`",
        ),
        ("random_search", "blackbox/sphere", {}, TypeError, r"RandomSearch has no `estimate`"),
        ("nres", "unrolled/influence_balancing", {}, ValueError, r"InfluenceBalancing never ends .* Give it a horizon"),
        (
            "open_es",
            "blackbox/sphere",
            {"num_samples": 1},
            ValueError,
            r"num_samples must be at least 2, got 1",
        ),
        (
            "tbptt",
            "rl/CartPole-v1",
            {"num_samples": 2},
            ValueError,
            r"TBPTT has no sigma, and GymnaxProblem has no gradient to compare with",
        ),
        ("nres", "unrolled/nothing", {}, ValueError, r"Unknown problem 'unrolled/nothing'"),
        ("nothing", "blackbox/sphere", {}, ValueError, r"Unknown strategy 'nothing'"),
        ("open_es", "blackbox/sphere", {"sigma": -1.0}, ValueError, r"sigma must be greater than 0, got -1"),
    ],
)
def test_errors_say_what_is_wrong(strategy, problem, settings, error, message):
    with pytest.raises(error, match=message):
        zoo.estimator_statistics(strategy, problem, **{"num_samples": 2, "num_exact": 1, **settings})


def test_nothing_to_compare_with_says_to_pass_sigma():
    with pytest.raises(ValueError, match=r"Pass sigma=\.\.\."):
        zoo.estimator_statistics("tbptt", make_plain(), num_samples=2, num_exact=0)
