"""Tests the BBOB functions against the implementation of BBOB-2009, which `cma` contains."""

import inspect

import bbobax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cma import bbobbenchmarks

import zoo
from zoo.core.grouping import group_keys
from zoo.core.promotion import promotion_of_others

NUM_DIMS = 4
NOISELESS = [f"f{number}" for number in range(1, 25)]
NOISY = [f"f{number}" for number in range(101, 131)]
PEAKS = ("f21", "f22", "f128", "f129", "f130")  # bbobax draws their peaks in another way
R_FIRST = ("f6", "f7", "f9", "f13", "f19", "f23", "f24", "f113", "f125")  # their first rotation is R


def make(function="rastrigin", **settings):
    return zoo.make_problem(f"blackbox/{function}", **{"num_dims": NUM_DIMS, **settings})


def official(function, instance, num_dims=NUM_DIMS):
    """Returns an official function with f_opt = 0, and its optimum and rotations as parameters of our function."""
    reference = bbobbenchmarks.dictbbob[int(function[1:])](iinstance=instance, zerof=True)
    reference.evaluate(np.zeros(num_dims))  # draws the instance
    rotations = [bbobbenchmarks.compute_rotation(reference.rseed + offset, num_dims).T for offset in (0, 1e6)]
    r, q = rotations if function in R_FIRST else rotations[::-1]
    return reference, {"x_opt": jnp.asarray(reference.xopt), "r": jnp.asarray(r), "q": jnp.asarray(q)}


def values(problem, parameters, points):
    """Returns the scores of points `[num_points, num_dims]`."""
    return np.asarray(_values(problem.with_statistics(parameters), jnp.asarray(points)))


@jax.jit
def _values(problem, points):
    return jax.vmap(lambda x: problem.score(jax.random.key(0), x)["fitness"])(points)


@pytest.mark.parametrize("function", [*NOISELESS, *NOISY[::3]])
def test_rotations_are_drawn_for_the_functions_that_use_them(function):
    problem = make(function)
    drawn = problem.init_statistics()
    point = np.linspace(-1, 2, NUM_DIMS)[None]
    is_used = values(problem, drawn, point) != values(problem, drawn.replace(r=drawn.r[::-1], q=drawn.q[::-1]), point)
    assert is_used == (not np.array_equal(drawn.r, np.eye(NUM_DIMS)))


@pytest.mark.parametrize("function", [f for f in (*NOISELESS, *NOISY[::3]) if f not in PEAKS])
def test_equals_the_official_function(function, x64):
    """Values are equal inside and outside the box, for two instances and without noise. They are 0 at the optimum."""
    problem = make(function)
    points = np.random.default_rng(0).uniform(-6, 6, (50, NUM_DIMS))
    for instance in (1, 4):
        reference, drawn = official(function, instance)
        parameters = problem.init_statistics().replace(**drawn)
        ours = values(problem, parameters, np.concatenate([[reference.xopt], points]))
        theirs = [reference._evalfull(x.copy())[1] for x in points]
        np.testing.assert_allclose(ours[1:], theirs, rtol=1e-9)
        assert abs(ours[0]) < 1e-13


@pytest.mark.parametrize(
    ("function", "num_peaks", "condition", "half_width"), [("f21", 101, 1e3, 5), ("f22", 21, 1e6, 4.9)]
)
def test_gallagher(function, num_peaks, condition, half_width, x64):
    """Values equal the formulas of f21 and f22 (RR-6829) in NumPy, with the drawn peaks."""
    problem = make(function, instance=3)
    parameters = problem.init_statistics()
    key = jax.random.fold_in(parameters.key, int(function[1:]))
    key, key_conditions = jax.random.split(key)
    key, key_axes = jax.random.split(key)
    axes = jax.vmap(jax.random.permutation, (0, None))(jax.random.split(key_axes, num_peaks), NUM_DIMS)
    axes = np.asarray(axes)
    _, key_places = jax.random.split(key)
    alpha = 1000.0 ** (2 * np.arange(num_peaks - 1) / (num_peaks - 2))
    alpha = np.concatenate([[condition], jax.random.permutation(key_conditions, alpha)])
    places = np.array(jax.random.uniform(key_places, (num_peaks, NUM_DIMS), minval=-half_width, maxval=half_width))
    places[0] = parameters.x_opt
    heights = np.concatenate([[10], 1.1 + 8 * np.arange(num_peaks - 1) / (num_peaks - 2)])
    points = np.concatenate([[places[0]], places[:5] + 0.1, np.random.default_rng(0).uniform(-6, 6, (20, NUM_DIMS))])
    expected = []
    for x in points:
        peaks = []
        for i in range(num_peaks):
            scale = (alpha[i] ** (0.5 * np.arange(NUM_DIMS) / (NUM_DIMS - 1)))[axes[i]] / alpha[i] ** 0.25
            step = np.asarray(parameters.r) @ (x - places[i])
            peaks.append(heights[i] * np.exp(-np.sum(scale * step**2) / (2 * NUM_DIMS)))
        penalty = np.sum(np.maximum(0, np.abs(x) - 5) ** 2)
        expected.append(bbobbenchmarks.monotoneTFosc(10 - np.max(peaks)) ** 2 + penalty)
    np.testing.assert_allclose(values(problem, parameters, points), expected, rtol=1e-9, atol=1e-20)
    assert expected[0] == 0
    # The noisy functions are the same, with another penalty, which is 0 inside the box.
    if function == "f21":
        inside = np.clip(points, -5, 5)
        same = {name: getattr(parameters, name) for name in ("key", "x_opt", "r")}
        noisy = values(make("f130"), make("f130").init_statistics().replace(**same), inside)
        np.testing.assert_allclose(noisy, values(problem, parameters, inside), rtol=1e-12)


@pytest.mark.parametrize("function", ["f3", "f4", "f5", "f15", "f16", "f19", "f23", "f24", "f125"])
def test_precise_near_the_optimum_in_single_precision(function):
    """Single precision agrees with the official function in double precision down to 1e-8 and below."""
    problem = make(function)
    reference, drawn = official(function, 2)
    optimum = np.asarray(drawn["x_opt"], np.float32)
    parameters = problem.init_statistics().replace(**{name: jnp.asarray(x, jnp.float32) for name, x in drawn.items()})
    steps = np.random.default_rng(0).normal(size=(7, 10, NUM_DIMS)) * 10.0 ** -np.arange(1, 8)[:, None, None]
    points = (optimum + steps.reshape(-1, NUM_DIMS)).astype(np.float32)
    ours = values(problem, parameters, points)
    # The official function, moved to the optimum as rounded to single precision.
    theirs = [reference._evalfull(x)[1] for x in np.asarray(points, float) - optimum + reference.xopt]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=5e-3, atol=3e-13)


@pytest.mark.parametrize("function", NOISY)
def test_noise_is_that_of_the_official_function(function):
    reference = bbobbenchmarks.dictbbob[int(function[1:])]()
    settings = make(function).init_statistics().noise_model
    if isinstance(reference, bbobbenchmarks.BBOBGaussFunction):
        expected = {"beta": reference.gaussbeta}
    elif isinstance(reference, bbobbenchmarks.BBOBUniformFunction):
        expected = {"alpha": reference.unifalphafac * (0.49 + 1 / NUM_DIMS), "beta": reference.unifbeta}
    else:
        expected = {"alpha": reference.cauchyalpha, "p": reference.cauchyp}
    assert vars(settings) == pytest.approx(expected)
    base = next(each for each in inspect.getmro(type(reference)) if each.__name__.startswith("_F")).__name__
    named = {
        "_FSphere": "sphere",
        "_FRosenbrock": "rosenbrock",
        "_FStepEllipsoid": "step_ellipsoidal",
        "_FEllipsoid": "ellipsoidal_rotated_1e4",
        "_FDiffPow": "different_powers",
        "_FSchaffersF7": "schaffers_f7",
        "_F8F2": "griewank_rosenbrock_1",
        "_FGallagher": "gallagher_101_me",
    }[base]
    assert make(function).function.startswith(f"{named}_{type(settings).__name__.removesuffix('Params').lower()}_")


@pytest.mark.parametrize(("function", "family"), [("f107", "Gauss"), ("f108", "Uniform"), ("f109", "Cauchy")])
def test_law_of_the_noise(function, family, monkeypatch):
    """4 000 evaluations of one point pass a Kolmogorov-Smirnov test against 4 000 of the official noise."""
    problem = make(function)
    x = problem.init_statistics().x_opt + jnp.array([1.0, 0.5, -2.0, 0.1])
    state = problem.init(jax.random.key(0), zoo.Groups.of(4000), x)
    fitness = problem.evaluate(jax.random.key(1), jnp.tile(x, (4000, 1)), state)[0].fitness
    rng = np.random.default_rng(2)
    monkeypatch.setattr(bbobbenchmarks, "_rand", rng.random)
    monkeypatch.setattr(bbobbenchmarks, "_randn", rng.standard_normal)
    settings = {"Gauss": (1.0,), "Uniform": (0.49 + 1 / NUM_DIMS, 1.0), "Cauchy": (1.0, 0.2)}[family]
    value = float(problem.score(jax.random.key(0), x)["fitness"])
    expected = getattr(bbobbenchmarks, f"f{family}")(np.full(4000, value), *settings)
    np.testing.assert_allclose(value, 5.26, rtol=1e-5)
    # Values are rounded: four in five values of the Cauchy model are equal except for rounding.
    assert scipy.stats.ks_2samp(np.round(np.asarray(fitness, float), 2), np.round(expected, 2)).pvalue > 1e-3
    # Values close to the optimum get no noise.
    assert problem.fitness(jax.random.key(0), problem.init_statistics().x_opt) == 0


def test_names_and_numbers():
    assert [id for id in zoo.list_problems() if id.startswith("blackbox/")] == sorted(
        f"blackbox/{make(number).function}" for number in (*NOISELESS, *NOISY)
    )
    assert make("f3") == make("rastrigin")
    assert make("f3").function == "rastrigin"
    assert make("f24").function == "lunacek"
    assert make("f107").function == "sphere_gaussian_severe"
    assert zoo.make_problem("blackbox/f130") == zoo.make_problem("blackbox/gallagher_101_me_cauchy_severe")
    with pytest.raises(ValueError, match="must be None: 'sphere_gaussian_severe' has its own noise"):
        make("f107", noise_model=bbobax.Gaussian())


def test_instances_are_those_of_bbobax():
    drawn = make("rastrigin_rotated", instance=5).init_statistics()
    with promotion_of_others():
        expected = bbobax.RastriginRotated(num_dims=NUM_DIMS).sample(jax.random.key(5))
    for name in ("x_opt", "r", "q"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(expected, name))
    assert not np.allclose(drawn.x_opt, make("rastrigin_rotated", instance=1).init_statistics().x_opt)


def test_initial_solution_is_uniform_in_the_box():
    """Mean and variance of 2 000 entries fit a uniform law on [-5, 5] within 5 sigma."""
    problem = make(num_dims=20)
    x = np.asarray(jax.vmap(problem.initial_solution)(jax.random.split(jax.random.key(0), 100)))
    assert x.shape == (100, 20)
    assert -5 <= x.min() < -4.9
    assert 4.9 < x.max() <= 5
    variance = 100 / 12
    assert abs(x.mean()) < 5 * np.sqrt(variance / x.size)
    # The fourth central moment of a uniform law is 9/5 of the squared variance.
    assert abs(x.var() - variance) < 5 * variance * np.sqrt((9 / 5 - 1) / x.size)


def test_another_instance_does_not_recompile(key):
    traces = []

    @jax.jit
    def evaluate(problem, x):
        traces.append(1)
        return problem.fitness(key, x)

    x = jnp.ones(NUM_DIMS)
    values = [evaluate(make(instance=i), x) for i in (0, 1, 2)]
    assert len(traces) == 1
    assert len(set(map(float, values))) == 3
    evaluate(make("sphere"), x)
    assert len(traces) == 2  # another function needs another program


def test_vmaps_over_instances(key):
    x = jnp.ones(NUM_DIMS)
    stacked = make(instance=jnp.array([0, 3, 7]))
    batched = jax.jit(jax.vmap(lambda problem: problem.fitness(key, x)))(stacked)
    single = jax.jit(lambda problem: problem.fitness(key, x))
    np.testing.assert_allclose(batched, [single(make(instance=i)) for i in (0, 3, 7)], rtol=1e-5)


def test_a_run_draws_the_instance_once(key, monkeypatch):
    draws = []
    sample = bbobax.BBOBProblem.sample

    def counted(self, key):
        draws.append(1)
        return sample(self, key)

    monkeypatch.setattr(bbobax.BBOBProblem, "sample", counted)
    problem = make("sphere", instance=3)
    state = problem.init(key, zoo.Groups.of(3), jnp.zeros(NUM_DIMS))
    assert len(draws) == 1
    population = jnp.arange(3.0 * NUM_DIMS).reshape(3, NUM_DIMS) / 4
    evaluation, new_state = problem.evaluate(key, population, state)
    score = problem.evaluate_score(key, population[1], new_state)
    gradient = problem.surrogate_gradient(key, state)(population[1])
    assert len(draws) == 1
    np.testing.assert_allclose(evaluation.fitness[1], problem.fitness(key, population[1]), rtol=1e-5)
    np.testing.assert_allclose(score["fitness"], evaluation.fitness[1], rtol=1e-5)
    assert gradient.shape == (NUM_DIMS,)
    # The problem uses the parameters that were drawn.
    moved = state._replace(statistics=state.statistics.replace(x_opt=population[2]))
    np.testing.assert_allclose(problem.evaluate(key, population, moved)[0].fitness[2], 0, atol=1e-4)


def test_noise_is_drawn_for_each_member_and_absent_from_the_score(key):
    """Members of one group get different noise too, because equal noise would not change their ranks."""
    problem = make("sphere", noise_model=bbobax.Gaussian.severe(), instance=2)
    x = jnp.ones(NUM_DIMS)
    state = problem.init(key, zoo.Groups.of(4), x)
    fitness = problem.evaluate(key, jnp.stack([x] * 4), state)[0].fitness
    assert len(set(fitness.tolist())) == 4
    np.testing.assert_array_equal(problem.evaluate(key, jnp.stack([x] * 4), state)[0].fitness, fitness)

    bbob = bbobax.Sphere(num_dims=NUM_DIMS, noise_model=bbobax.Gaussian.severe())
    sample, evaluate = map(promotion_of_others(), (bbob.sample, bbob.evaluate))
    parameters = sample(jax.random.key(2))
    keys = group_keys(jax.random.fold_in(key, 0), 4)
    np.testing.assert_allclose(fitness, [evaluate(k, x, parameters).fitness for k in keys], rtol=1e-5)

    exact = make("sphere", instance=2).fitness(key, x)
    for k in (key, jax.random.key(1)):
        np.testing.assert_allclose(problem.evaluate_score(k, x, state)["fitness"], exact, rtol=1e-6)
    assert (problem.fitness_is_score, make("sphere").fitness_is_score, make("f101").fitness_is_score) == (
        *(False, True, False),
    )


def test_same_problem_in_double_precision(x64):
    problem = make("sphere")
    x = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    assert x.dtype == jax.eval_shape(problem.fitness, jax.random.key(0), x).dtype == np.float64


def test_suggestions_fit_the_search_box():
    problem = make(num_dims=7)
    assert problem.suggestions["sigma"] == 2.0
    assert problem.suggested_num_steps == 7_000
    assert (problem.headline, problem.maximize) == ("fitness", False)


@pytest.mark.parametrize("function", ["spere", "f25", "f131", ""])
def test_unknown_function(function):
    from zoo.problems.blackbox.bbob import BBOB

    with pytest.raises(ValueError, match=r"BBOB.function must be one of sphere, .*, got '" + function):
        BBOB(function=function)
    with pytest.raises(ValueError, match=rf"Unknown problem 'blackbox/{function}'"):
        zoo.make_problem(f"blackbox/{function}")


@pytest.mark.parametrize("instance", [-1, 1.5, "first", 1.0])
def test_bad_instance(instance):
    with pytest.raises(ValueError, match=r"BBOB.instance must be a whole number of at least 0, got "):
        make(instance=instance)


@pytest.mark.parametrize("num_dims", [1, 0, 2.5])
def test_bad_number_of_dimensions(num_dims):
    with pytest.raises((ValueError, TypeError), match=r"BBOB.num_dims must be (at least 2|a whole number)"):
        make(num_dims=num_dims)
