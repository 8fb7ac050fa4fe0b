"""The unrolled problems: against plain NumPy implementations of the papers, and what is promised for all of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import generation, is_finite, signature, start
from zoo.cli import _parse_settings

# Programs that run for less time than it takes to optimise them.
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)

LORENZ, INFLUENCE, TOY = (f"unrolled/{name}" for name in ("lorenz", "influence_balancing", "toy_lr_schedule"))
MLP, LEARNED = "unrolled/mlp_lr_schedule", "unrolled/learned_optimizer"


@jit
def fitness_of(problem, key, solution):
    """The objective of one full episode; a change of a numeric setting compiles nothing new."""
    return problem.fitness(key, solution)


@jit
def score_of(problem, key, solution):
    return problem.score(key, solution)


@functools.partial(jit, static_argnames="num_windows")
def windows_of(problem, key, solutions, *, num_windows):
    """Evaluates a population of one group for some windows; returns their fitness, done, steps and states, stacked.

    Args:
        solutions: `[num_windows, population_size, ...]`.
    """
    first = jax.tree.map(lambda x: x[0, 0], solutions)
    size = jax.tree.leaves(solutions)[0].shape[1]
    state = problem.init(key, np.zeros(size, int), first)

    def window(state, arguments):
        evaluation, state = problem.evaluate(*arguments, state)
        return state, (evaluation, state)

    return jax.lax.scan(window, state, (jax.random.split(key, num_windows), solutions))[1]


# What the papers say


@pytest.mark.parametrize(
    ("id", "settings", "sigma"),
    [
        (LORENZ, {"horizon": 2000, "window": 100, "objective": "mean"}, 0.04),
        (INFLUENCE, {"horizon": None, "window": 1}, 0.1),
        (TOY, {"horizon": 100, "window": 10, "objective": "sum"}, 0.3),
        (MLP, {"horizon": 5000, "batch_size": 100, "hidden": (100, 100), "activation": "relu"}, 0.1),
        (LEARNED, {"horizon": 1000, "window": 1, "objective": "mean"}, 0.01),
        (LEARNED, {"hidden": (32, 32, 32), "activation": "gelu", "batch_size": 128, "held_out": 0.2}, 0.01),
    ],
)
def test_defaults_are_those_of_the_papers(id, settings, sigma):
    problem = zoo.make_problem(id)
    assert {name: getattr(problem, name) for name in settings} == settings
    assert problem.suggestions["sigma"] == sigma
    assert problem.headline == "objective"
    assert problem.maximize is False


@pytest.mark.parametrize(
    ("id", "expected"), [(TOY, optax.adam(1e-2, b1=0.99)), (MLP, optax.adam(1e-2)), (LEARNED, optax.adam(3e-4))]
)
def test_optimizers_of_the_learning_to_learn_problems_are_those_of_the_papers(id, expected):
    strategy = zoo.make_strategy("nres", problem=zoo.make_problem(id), population_size=2)
    updates = []
    for transformation in (strategy._transformation, expected):
        state = transformation.init(jnp.zeros(()))
        for gradient in (1.0, -0.3, 0.2):
            update, state = transformation.update(jnp.asarray(gradient), state)
        updates.append(float(update))
    assert updates[0] == updates[1]


# Lorenz


def lorenz(log_a, log_r, start=(1.2, 1.3, 1.6), num_steps=2000, dt=0.005, a=10.0, r=28.0, b=8 / 3):
    """Returns the loss of each step."""

    def move(position, a, r):
        x, y, z = position
        return x + dt * a * (y - x), y + dt * ((r - z) * x - y), z + dt * (x * y - b * z)

    model = truth = tuple(map(float, start))
    losses = []
    for _ in range(num_steps):
        model, truth = move(model, np.exp(log_a), np.exp(log_r)), move(truth, a, r)
        losses.append((model[2] - truth[2]) ** 2)
    return np.array(losses)


def test_lorenz_is_a_loop_by_hand_in_double_precision(x64):
    """A whole episode from where the search starts, window by window: chaos magnifies errors ten-thousandfold."""
    problem = zoo.make_problem(LORENZ)
    solution = problem.initial_solution(jax.random.key(0))
    assert solution == {"log_a": 3.116, "log_r": 3.7}
    solutions = jax.tree.map(lambda x: jnp.full((20, 1), x), solution)
    evaluations, states = windows_of(problem, jax.random.key(0), solutions, num_windows=20)
    expected = lorenz(3.116, 3.7).reshape(20, 100)
    np.testing.assert_allclose(evaluations.fitness[:, 0], expected.mean(axis=1), rtol=1e-8)
    np.testing.assert_allclose(jnp.mean(evaluations.fitness), 353.3, atol=0.01)  # not smoothed
    np.testing.assert_array_equal(evaluations.done[:, 0], np.arange(20) == 19)
    np.testing.assert_array_equal(evaluations.steps, 100)
    # Reset at the end of the episode.
    np.testing.assert_allclose(states.inner.model[-1], [[1.2, 1.3, 1.6]], rtol=1e-15)
    np.testing.assert_allclose(states.inner.truth[-1], [[1.2, 1.3, 1.6]], rtol=1e-15)


@pytest.mark.parametrize(
    "setting",
    [{}, {"dt": 0.01}, {"a": 8.0}, {"r": 20.0}, {"b": 2.0}, {"start": (-1.0, 0.5, 3.0)}],
)
def test_every_constant_of_lorenz_is_a_setting(setting, key):
    problem = zoo.make_problem(LORENZ, horizon=60, window=30, **setting)
    solution = {"log_a": jnp.asarray(2.0), "log_r": jnp.asarray(3.5)}
    expected = lorenz(2.0, 3.5, num_steps=60, **setting)
    np.testing.assert_allclose(fitness_of(problem, key, solution), expected.mean(), rtol=1e-4)
    if setting:
        assert abs(expected.mean() / lorenz(2.0, 3.5, num_steps=60).mean() - 1) > 0.05


def test_where_the_search_of_lorenz_starts_is_a_setting(key):
    problem = zoo.make_problem(LORENZ, initial_log_a=1.0, initial_log_r=2)
    assert problem.initial_solution(key) == {"log_a": 1.0, "log_r": 2.0}


def test_smoothed_loss_of_lorenz(key):
    """What evolution strategies lower has its minimum beside the truth, whose loss itself is zero."""
    num = 2000
    problem = zoo.make_problem(LORENZ)
    thetas = jnp.array([[3.116, 3.7], [np.log(10), np.log(28)], [2.38, 3.285]])
    noise = 0.04 * jax.random.normal(key, (num, 2))
    points = jnp.concatenate([thetas[:, None] + noise, thetas[:, None]], axis=1)
    # Compiled for speed: this one runs for a while.
    losses = jax.jit(jax.vmap(jax.vmap(lambda x: problem.fitness(key, {"log_a": x[0], "log_r": x[1]}))))(points)
    smoothed, exact = np.asarray(losses[:, :num], np.float64), losses[:, num]
    errors = smoothed.std(axis=1) / np.sqrt(num)
    assert np.all(errors < [1.2, 0.6, 0.5])
    np.testing.assert_array_less(np.abs(smoothed.mean(axis=1) - [326.1, 56.1, 49.8]), 4 * errors + 0.5)
    np.testing.assert_allclose(exact[1], 0, atol=1e-3)
    np.testing.assert_allclose(exact[0], 353.3, rtol=5e-3)  # in single precision


def test_lorenz_starts_at_one_point_unless_there_is_noise(key):
    num = 4000
    resets = jit(lambda problem: jax.vmap(problem.reset)(jax.random.split(key, num)))
    for noise in (0.0, 0.5):
        settings = {"start_noise": noise} if noise else {}
        inner = resets(zoo.make_problem(LORENZ, **settings))
        np.testing.assert_array_equal(inner.model, inner.truth)
        starts = np.asarray(inner.model, np.float64)
        np.testing.assert_allclose(starts.mean(axis=0), [1.2, 1.3, 1.6], atol=5 * noise / np.sqrt(num) + 1e-6)
        np.testing.assert_allclose(starts.std(axis=0), noise, atol=5 * noise / np.sqrt(2 * num) + 1e-6)
        np.testing.assert_allclose(np.corrcoef(starts.T) if noise else np.eye(3), np.eye(3), atol=0.08)


def lorenz_many(log_a, log_r, starts, num_steps):
    """Returns the mean loss from each of the starts, `[3, num]`."""
    model, truth, total = starts, starts, 0
    for _ in range(num_steps):
        moved = []
        for (x, y, z), a, r in ((model, np.exp(log_a), np.exp(log_r)), (truth, 10, 28)):
            moved.append(np.stack([a * (y - x), (r - z) * x - y, x * y - 8 / 3 * z]))
        model, truth = model + 0.005 * moved[0], truth + 0.005 * moved[1]
        total = total + (model[2] - truth[2]) ** 2
    return total / num_steps


def test_score_of_lorenz_is_from_held_out_starts(key):
    """With unit noise, whatever the noise of the training episodes."""
    problem = zoo.make_problem(LORENZ, horizon=40, window=20, num_score_episodes=512)
    solution = {"log_a": jnp.asarray(2.0), "log_r": jnp.asarray(3.5)}
    rng = np.random.default_rng(0)
    means = []
    for noise in (1.0, 0.0, 3.0):
        starts = np.array([[1.2, 1.3, 1.6]]).T + noise * rng.standard_normal((3, 4000))
        losses = lorenz_many(2.0, 3.5, starts, 40)
        score = score_of(problem if noise == 1 else problem.replace(score_start_noise=noise), key, solution)
        assert set(score) == {"objective"}
        error = losses.std() * np.sqrt(1 / 512 + 1 / 4000)
        assert abs(score["objective"] - losses.mean()) < 4 * error + 1e-4 * losses.mean()
        means.append((losses.mean(), error))
    assert abs(means[0][0] - means[2][0]) > 8 * means[2][1]  # so that the noise can be told
    assert score_of(problem.replace(start_noise=3.0), key, solution) == score_of(problem, key, solution)


# Influence balancing


def influence(thetas, size=23, num_positive=10, decay=0.5):
    """Returns the first entry of the state after each step."""
    matrix = decay * (np.eye(size) + np.eye(size, k=1))
    direction = np.array([1.0] * num_positive + [-1.0] * (size - num_positive))
    state, first = np.ones(size), []
    for theta in thetas:
        state = matrix @ state + theta * direction
        first.append(state[0])
    return np.array(first)


def loss_of(first, target=1.0):
    return (first - target) ** 2 / 2


def test_influence_balancing_with_windows_of_one_step_is_a_loop_by_hand(key):
    """The solution changes from step to step, the state goes on, and nothing is ever reset."""
    problem = zoo.make_problem(INFLUENCE)
    assert problem.initial_solution(key) == 0.5
    thetas = np.random.default_rng(0).normal(0, 0.5, (60, 2)).astype(np.float32)
    evaluations, states = windows_of(problem, key, jnp.asarray(thetas), num_windows=60)
    for member in range(2):
        expected = loss_of(influence(thetas[:, member]))
        np.testing.assert_allclose(evaluations.fitness[:, member], expected, rtol=1e-4, atol=1e-5)
    assert not evaluations.done.any()
    np.testing.assert_array_equal(evaluations.steps, 2)
    np.testing.assert_array_equal(states.time[:, 0], np.arange(1, 61))


@pytest.mark.parametrize("window", [1, 100])
def test_the_loss_of_influence_balancing_is_at_the_end_of_each_window(window, key):
    problem = zoo.make_problem(INFLUENCE, window=window)

    @jit
    def losses(inner):
        def step(inner, _):
            inner, loss, terminated = problem.step(key, jnp.asarray(0.3), inner)
            return inner, (loss, terminated)

        return jax.lax.scan(step, inner, None, length=250)[1]

    loss, terminated = losses(problem.reset(key))
    time = np.arange(1, 251)
    expected = np.where(time % window == 0, loss_of(influence([0.3] * 250)), 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(loss) == 250 // window
    assert not terminated.any()


def test_windows_of_influence_balancing_of_a_hundred_steps_go_on_from_each_other(key):
    problem = zoo.make_problem(INFLUENCE, window=100)
    thetas = jnp.array([[0.5], [-0.2], [0.1]])
    evaluations, _ = windows_of(problem, key, thetas, num_windows=3)
    expected = loss_of(influence(np.repeat(np.float32(thetas[:, 0]), 100)))[99::100]
    np.testing.assert_allclose(evaluations.fitness[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert not evaluations.done.any()


def test_a_horizon_for_influence_balancing(key):
    """Reset to ones after 25 steps, the last window being cut."""
    problem = zoo.make_problem(INFLUENCE, window=10, horizon=25)
    evaluations, states = windows_of(problem, key, jnp.full((4, 1), 0.3), num_windows=4)
    np.testing.assert_array_equal(evaluations.done[:, 0], [False, False, True, False])
    np.testing.assert_array_equal(states.time[:, 0], [10, 20, 0, 10])
    np.testing.assert_array_equal(evaluations.steps, [10, 10, 5, 10])
    np.testing.assert_array_equal(states.inner.state[2, 0], np.ones(23))
    at_ends = loss_of(influence([0.3] * 25))[[9, 19, 24, 9]]
    np.testing.assert_allclose(evaluations.fitness[:, 0] / evaluations.fitness[0, 0], at_ends / at_ends[0], rtol=1e-4)


def test_score_of_influence_balancing_is_the_loss_after_many_steps(key):
    """500 by default. The optimum, where s_0 = -6 theta settles at 1, is -1/6."""
    problem = zoo.make_problem(INFLUENCE)
    for theta in (0.5, -1 / 6, 0.0):
        score = score_of(problem, key, jnp.asarray(theta))
        np.testing.assert_allclose(score["objective"], loss_of(influence([theta] * 500)[-1]), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(score["objective"], (-6 * theta - 1) ** 2 / 2, rtol=1e-4, atol=1e-9)
    few = score_of(problem.replace(num_score_steps=7), key, jnp.asarray(0.5))["objective"]
    np.testing.assert_allclose(few, loss_of(influence([0.5] * 7)[-1]), rtol=1e-5)
    assert abs(few - score_of(problem, key, jnp.asarray(0.5))["objective"]) > 1


@pytest.mark.parametrize("setting", [{"size": 12}, {"num_positive": 15}, {"decay": 0.4}, {"target": -2.0}])
def test_every_constant_of_influence_balancing_is_a_setting(setting, key):
    names = {"num_dims" if name == "size" else name: value for name, value in setting.items()}
    problem = zoo.make_problem(INFLUENCE, num_score_steps=30, **names)
    target = setting.pop("target", 1.0)
    expected = loss_of(influence([0.3] * 30, **setting)[-1], target)
    np.testing.assert_allclose(fitness_of(problem, key, jnp.asarray(0.3)), expected, rtol=1e-4)
    assert abs(expected - loss_of(influence([0.3] * 30)[-1])) > 0.05
    assert zoo.make_problem(INFLUENCE, initial_theta=-1).initial_solution(key) == -1.0


# Toy learning-rate schedule


def toy(log_rates, x=(1.0, 1.0), num_steps=100, total=100):
    """Returns the value of the inner function after each step of gradient descent."""
    x0, x1 = x
    losses = []
    for t in range(num_steps):
        rate = np.exp(log_rates[0]) * (total - t) / total + np.exp(log_rates[1]) * t / total
        bump = np.exp(-5 * x0**2)
        slope0 = x0 / np.sqrt(x0**2 + 5) - 10 * x0 * bump * np.sin(x1) ** 2
        slope1 = 2 * np.sin(x1) * np.cos(x1) * bump + 0.25 * np.sign(x1 - 100)
        x0, x1 = x0 - rate * slope0, x1 - rate * slope1
        losses.append(
            np.sqrt(x0**2 + 5) - np.sqrt(5) + np.sin(x1) ** 2 * np.exp(-5 * x0**2) + 0.25 * abs(x1 - 100),
        )
    return np.array(losses)


def test_toy_schedule_is_a_loop_by_hand_in_double_precision(x64):
    """Where the search starts; schedules that rise, fall, and zigzag about the kink at 100 (the last).

    At rates above one the ripples make it chaotic.
    """
    key = jax.random.key(0)
    problem = zoo.make_problem(TOY)
    np.testing.assert_array_equal(problem.initial_solution(key), [-4.0, -4.0])
    for log_rates, x in (([-4, -4], (1, 1)), ([-0.5, -3], (1, 1)), ([-3, -0.5], (1, 1)), ([-0.5, -0.7], (0.5, 95))):
        expected = toy(log_rates, tuple(map(float, x))).sum()
        started = problem.replace(start=tuple(map(float, x)))
        np.testing.assert_allclose(fitness_of(started, key, jnp.array(log_rates, float)), expected, rtol=1e-8)
    np.testing.assert_allclose(toy([-4.0, -4.0]).sum(), 2487.77, atol=0.01)


def test_windows_of_the_toy_schedule_sum_to_its_objective(key):
    """Ten windows from a group at the start; and one window from each of ten groups that are at all phases."""
    problem = zoo.make_problem(TOY)
    theta = jnp.array([0.5, -2.0])
    expected = toy([0.5, -2.0])
    evaluations, _ = windows_of(problem, key, jnp.tile(theta, (10, 1, 1)), num_windows=10)
    # Each window's fitness is an estimate of the objective, so ten times its share.
    np.testing.assert_allclose(evaluations.fitness[:, 0], 10 * expected.reshape(10, 10).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(np.mean(evaluations.fitness), expected.sum(), rtol=1e-4)
    assert list(evaluations.done[:, 0]) == [False] * 9 + [True]

    @jit
    def evaluate():
        state = problem.init(key, np.arange(10), theta)
        return problem.evaluate(key, jnp.tile(theta, (10, 1)), state)

    evaluation, _ = evaluate()
    np.testing.assert_allclose(np.mean(evaluation.fitness), expected.sum(), rtol=1e-4)
    assert evaluation.done.sum() == 1


def test_every_constant_of_the_toy_schedule_is_a_setting(key):
    theta = jnp.array([0.5, -2.0])
    problem = zoo.make_problem(TOY, start=(-0.5, 3.0), horizon=40)
    expected = toy([0.5, -2.0], x=(-0.5, 3.0), num_steps=40, total=40).sum()
    np.testing.assert_allclose(fitness_of(problem, key, theta), expected, rtol=1e-4)
    mean = zoo.make_problem(TOY, start=(-0.5, 3.0), horizon=40, objective="mean")
    np.testing.assert_allclose(fitness_of(mean, key, theta), expected / 40, rtol=1e-4)
    moved = zoo.make_problem(TOY, initial_log_rates=(-1.0, 2))
    np.testing.assert_array_equal(moved.initial_solution(key), [-1.0, 2.0])
    np.testing.assert_allclose(score_of(problem, key, theta)["objective"], expected, rtol=1e-4)


# Inner training


class Notebook:
    """Takes down the keys that a problem's fitness is called with; hashed by identity, as a static setting is."""

    def __init__(self):
        self.keys = []


class Recorder(zoo.Problem):
    """Another problem, whose batches can be repeated: by the keys that its fitness was called with."""

    task: zoo.Problem = zoo.leaf()
    notebook: Notebook = zoo.static()

    def initial_solution(self, key):
        return self.task.initial_solution(key)

    def fitness(self, key, solution):
        self.notebook.keys.append(key)
        return self.task.fitness(key, solution)


class Recorded:
    """A problem of inner training, stepped by hand, with the keys that its tasks were evaluated with."""

    def __init__(self, problem, key, solution, num_steps, time=0):
        notebooks = {"task": Notebook(), "outer_task": Notebook()}
        tasks = {name: Recorder(task=getattr(problem, name), notebook=n) for name, n in notebooks.items()}
        recording = problem.replace(**(tasks if problem.outer_task is not None else {"task": tasks["task"]}))

        @jit
        def step(inner):
            for notebook in notebooks.values():
                notebook.keys = []
            return *recording.step(key, solution, inner), [notebook.keys for notebook in notebooks.values()]

        inner = jit(recording.reset)(key)
        self.inners, self.losses = [inner._replace(time=inner.time + time)], []
        self.keys, self.outer_keys = [], []
        for _ in range(num_steps):
            inner, loss, terminated, (keys, outer_keys) = step(self.inners[-1])
            assert not terminated
            self.inners.append(inner)
            self.losses.append(loss)
            self.keys += keys
            self.outer_keys += outer_keys


def check_sgd(task, recorded, optimizer, start=0):
    """Trains with an optimizer of optax on the same batches; returns the loss of each, before it was learned from."""
    loss_and_gradient = jit(jax.value_and_grad(task.fitness, argnums=1))
    params, state = recorded.inners[0].params, optimizer.init(recorded.inners[0].params)
    state = jax.tree.map(lambda x: jnp.asarray(start, x.dtype) if x.ndim == 0 else x, state)  # the schedule's clock
    losses = []
    for key, inner in zip(recorded.keys, recorded.inners[1:], strict=True):
        loss, gradient = loss_and_gradient(key, params)
        losses.append(loss)
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(params, updates)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), inner.params, params)
    return losses


def num_different(keys):
    return len({str(jax.random.key_data(key)) for key in keys})


def quadratic(x, center, scale):
    return scale * sum(jnp.sum(jnp.square(x[name] - center[name])) for name in x)


def quadratic_task(scale=1.0, dtype=float):
    """A deterministic task with two tensors, as a small layer has."""
    rng = np.random.default_rng(0)
    center, solution = ({"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)} for _ in range(2))
    cast = functools.partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    return zoo.from_function(quadratic, cast(solution), data=(cast(center), jnp.asarray(scale, dtype)))


def noisy(key, x):
    return jnp.sum(jnp.square(x - jax.random.normal(key, x.shape)))


def random_start(key):
    return jax.random.normal(key, (3,))


# A task whose start and batches are random, and which compiles in no time.
NOISY = zoo.from_function(noisy, random_start, takes_key=True)


def test_mlp_schedule_is_sgd_with_momentum_on_the_same_batches(key):
    """As optax has it. With data held out, the loss of a step is on a batch of them, after the update."""
    problem = zoo.make_problem(MLP, hidden=(4,), batch_size=8, decay_time=10.0, held_out=0.2)
    recorded = Recorded(problem, key, jnp.array([-0.5, 0.4]), num_steps=3)

    def rate(t):
        return np.exp(-0.5) / (1 + t / 10) ** np.exp(0.4)

    losses = check_sgd(problem.task, recorded, optax.sgd(rate, momentum=0.9))
    assert num_different(recorded.keys + recorded.outer_keys) == 6  # other batches in each step
    held_out = jit(problem.outer_task.fitness)
    for i in range(3):
        np.testing.assert_allclose(
            recorded.losses[i], held_out(recorded.outer_keys[i], recorded.inners[i + 1].params), rtol=1e-5
        )
        assert abs(recorded.losses[i] - held_out(recorded.outer_keys[i], recorded.inners[i].params)) > 1e-3
        assert abs(recorded.losses[i] - losses[i]) > 1e-3


@pytest.mark.parametrize(
    ("settings", "momentum", "decay_time", "time"),
    [({}, 0.9, 5000, 200), ({"momentum": 0.5, "decay_time": 20}, 0.5, 20, 3)],
)
def test_mlp_schedule_trains_any_task_with_a_gradient(settings, momentum, decay_time, time, key):
    """The loss of a step is that of the batch, before the model learned from it."""
    problem = zoo.make_problem(MLP, task=NOISY, **settings)
    recorded = Recorded(problem, key, jnp.log(jnp.array([0.03, 30.0])), num_steps=3, time=time)
    rate = lambda t: 0.03 / (1 + t / decay_time) ** 30  # noqa: E731
    losses = check_sgd(NOISY, recorded, optax.sgd(rate, momentum=momentum), start=time)
    np.testing.assert_allclose(recorded.losses, losses, rtol=1e-5)
    assert num_different(recorded.keys) == 3


def test_the_search_for_an_mlp_schedule_starts_at_a_setting(key):
    problem = zoo.make_problem(MLP, task=NOISY)
    np.testing.assert_allclose(problem.initial_solution(key), [np.log(0.003), np.log(30)], rtol=1e-6)
    moved = problem.replace(initial_theta=(1.0, 2.0))
    np.testing.assert_array_equal(moved.initial_solution(key), [1.0, 2.0])


# Learned optimizer

MOMENTA = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


def learned_update(weights, params, gradients, momenta, time, decays, time_scales, step_size, magnitude_scale):
    """One update of a learned optimizer, a parameter at a time; all in dictionaries of NumPy arrays.

    Args:
        weights: Of the optimizer's layers, as pairs (kernel, bias); the first has the time features last.
    """
    new_momenta = {k: [d * m + (1 - d) * gradients[k] for d, m in zip(decays, momenta[k], strict=True)] for k in params}
    new_params = {}
    for name, values in params.items():
        features = [x / np.sqrt(np.mean(x**2)) for x in (gradients[name], values, *new_momenta[name])]
        updated = np.empty_like(values)
        for index in np.ndindex(values.shape):
            x = np.array([feature[index] for feature in features] + [np.tanh(time / s - 1) for s in time_scales])
            for kernel, bias in weights[:-1]:
                x = np.maximum(x @ kernel + bias, 0)
            direction, magnitude = x @ weights[-1][0] + weights[-1][1]
            updated[index] = values[index] - step_size * direction * np.exp(magnitude_scale * magnitude)
        new_params[name] = updated
    return new_params, new_momenta


def layers_of(solution):
    """The layers of the optimizer's network, whose first comes in two parts: features and time."""
    parts = jax.tree.map(lambda x: np.asarray(x, np.float64), solution["params"])
    features, time, *rest = [parts[f"Dense_{i}"] for i in range(len(parts))]
    assert "bias" not in time
    first = (np.concatenate([features["kernel"], time["kernel"]]), features["bias"])
    return [first, *[(layer["kernel"], layer["bias"]) for layer in rest]]


def test_the_optimizer_network_has_1762_weights(key):
    solution = jax.eval_shape(zoo.make_problem(LEARNED).initial_solution, key)
    assert sum(x.size for x in jax.tree.leaves(solution)) == 1762 == (19 + 1) * 32 + (32 + 1) * 32 + (32 + 1) * 2


@pytest.mark.parametrize(
    ("settings", "time"),
    [
        ({}, 0),
        (
            {
                "step_size": 0.02,
                "magnitude_scale": 0.5,
                "momenta": (0.2, 0.7),
                "time_scales": (2.0, 500.0, 40.0),
                "optimizer_hidden": (5,),
            },
            250,
        ),
    ],
)
def test_updates_of_the_learned_optimizer_are_those_by_hand(settings, time, x64):
    """Four steps on a task with large gradients, where what keeps a root mean square from zero does not matter."""
    key = jax.random.key(0)
    problem = zoo.make_problem(LEARNED, task=quadratic_task(1e4, np.float64), **settings)
    solution = jax.tree.map(
        lambda x: x.astype(np.float64) + 0.3 * jax.random.normal(key, x.shape, np.float64),
        jit(problem.initial_solution)(key),
    )
    recorded = Recorded(problem, key, solution, num_steps=4, time=time)
    center, scale = jax.tree.map(np.asarray, problem.task.data)
    params = jax.tree.map(np.asarray, recorded.inners[0].params)
    constants = {
        "decays": settings.get("momenta", MOMENTA),
        "time_scales": settings.get("time_scales", TIME_SCALES),
        "step_size": settings.get("step_size", 0.001),
        "magnitude_scale": settings.get("magnitude_scale", 0.001),
    }
    momenta = {name: [np.zeros_like(value)] * len(constants["decays"]) for name, value in params.items()}
    for i in range(4):
        gradients = {name: 2 * scale * (params[name] - center[name]) for name in params}
        before = params
        params, momenta = learned_update(layers_of(solution), params, gradients, momenta, time + i, **constants)
        inner = recorded.inners[i + 1]
        assert inner.time == time + i + 1
        for name in params:
            got = np.asarray(inner.params[name] - recorded.inners[i].params[name])
            step = params[name] - before[name]
            assert np.abs(step).max() > 0.1 * constants["step_size"]
            np.testing.assert_allclose(got, step, rtol=1e-3, atol=1e-4 * np.abs(step).max())
            np.testing.assert_allclose(inner.optimizer_state[name], momenta[name], rtol=1e-4, atol=1e-4)


def test_a_learned_optimizer_takes_no_harm_from_a_zero_gradient(key):
    """As that of a unit which is dead."""
    problem = zoo.make_problem(LEARNED, task=quadratic_task(0.0), optimizer_hidden=(4,))

    def end(solution):
        inner, loss, _ = problem.step(key, solution, problem.reset(key))
        return loss + sum(jnp.sum(p) for p in jax.tree.leaves(inner.params)), inner

    (value, inner), gradient = jit(jax.value_and_grad(end, has_aux=True))(jit(problem.initial_solution)(key))
    assert is_finite((value, inner, gradient))
    assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(gradient))


def test_what_is_held_out_is_the_rest_of_the_training_data():
    whole = zoo.make_problem("supervised/digits")
    for fraction, num_held_out in ((None, 287), (0.5, 718), (0.01, 14)):
        settings = {} if fraction is None else {"held_out": fraction}
        problem = zoo.make_problem(LEARNED, **settings)
        sizes = [task.train_inputs.shape[0] for task in (problem.task, problem.outer_task)]
        assert sizes == [1437 - num_held_out, num_held_out]
        for name in ("train_inputs", "train_labels"):
            parts = [getattr(task, name) for task in (problem.task, problem.outer_task)]
            np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))
        # Nobody sees the test data before the score.
        np.testing.assert_array_equal(problem.task.test_inputs, whole.test_inputs)
        assert problem.outer_task.batch_size == problem.task.batch_size == 128
    for id, settings in ((LEARNED, {"held_out": 0}), (MLP, {})):
        problem = zoo.make_problem(id, **settings)
        assert problem.outer_task is None
        assert problem.task.train_inputs.shape[0] == 1437


@pytest.mark.parametrize("seed", [0, None])
def test_episodes_are_the_same_under_a_seed_and_else_the_groups_own(seed, key):
    """At the start, and after the reset at the end of the episode. Partners always see the same."""
    problem = zoo.make_problem(MLP, task=NOISY, horizon=2, window=2, seed=seed)

    @jit
    def play(key):
        solution = jnp.array([-2.0, 0.0])
        key_init, key_evaluate = jax.random.split(key)
        state = problem.init(key_init, np.array([0, 1, 0, 1]), solution)
        evaluation, after = problem.evaluate(key_evaluate, jnp.tile(solution, (4, 1)), state)
        return state.inner, evaluation.fitness, after.inner

    before, fitness, after = play(key)
    others = play(jax.random.key(1))
    starts = []
    for inner in (before, after, others[0], others[2]):
        rows = np.concatenate([inner.params, inner.data_seed[:, None], inner.time[:, None]], axis=1)
        np.testing.assert_array_equal(rows[:2], rows[2:])
        starts += [tuple(row) for row in rows[:2]]
    assert len(set(starts)) == (8 if seed is None else 1)
    np.testing.assert_array_equal(fitness[:2], fitness[2:])
    assert (seed is None) == bool(fitness[0] != fitness[1])
    if seed is not None:
        other = problem.replace(seed=seed + 1).reset(key)
        assert other.data_seed != before.data_seed[0]
        assert np.all(other.params != before.params[0])


def test_score_of_inner_training_is_the_accuracy_of_fresh_models_at_the_end(key):
    """The mean over training runs: their objective, and the test accuracy of the models that they end with."""
    problem = zoo.make_problem(MLP, hidden=(8,), batch_size=32, horizon=60, window=20, num_score_episodes=3)
    theta = jnp.array([np.log(0.1), 0.0])
    score = score_of(problem, key, theta)
    assert set(score) == {"objective", "final_test_accuracy", "final_test_loss"}

    @jit
    def train(key):
        end = problem.replace(seed=None).rollout(key, theta)
        return end.loss / 60, problem.task.score(key, end.inner.params), end.inner.data_seed

    losses, finals, data_seeds = zip(*[train(k) for k in jax.random.split(key, 3)], strict=True)
    assert len(set(map(int, data_seeds))) == 3
    np.testing.assert_allclose(score["objective"], np.mean(losses), rtol=1e-5)
    for name in ("test_accuracy", "test_loss"):
        np.testing.assert_allclose(score[f"final_{name}"], np.mean([final[name] for final in finals]), rtol=1e-5)
    assert 0.6 < score["final_test_accuracy"] < 1
    assert score["final_test_loss"] < score["objective"] < np.log(10)


def test_score_of_inner_training_does_not_depend_on_the_seed_of_the_episodes(key):
    """Only on its own key; nor are the models' final scores a matter of the objective."""
    problem = zoo.make_problem(MLP, task=NOISY, horizon=50, window=10)
    theta = jnp.array([np.log(0.05), -10.0])
    score = score_of(problem, key, theta)
    assert set(score) == {"objective", "final_fitness"}
    assert score_of(problem, jax.random.key(1), theta)["objective"] != score["objective"]
    changed = score_of(problem.replace(seed=5, objective="sum"), key, theta)
    np.testing.assert_allclose(changed["objective"], 50 * score["objective"], rtol=1e-5)
    np.testing.assert_allclose(changed["final_fitness"], score["final_fitness"], rtol=1e-5)
    assert problem.differentiable


def test_a_task_without_a_gradient_gives_no_surrogate(key):
    error = zoo.make_problem("supervised/digits", hidden=(2,), loss="error")
    entropy = zoo.make_problem("supervised/digits", hidden=(2,))
    for task, outer_task, expected in ((entropy, None, True), (error, None, False), (entropy, error, False)):
        problem = zoo.make_problem(MLP, task=task, outer_task=outer_task, horizon=2, window=2)
        assert problem.differentiable == expected
        state = jax.eval_shape(lambda p=problem: p.init(key, np.zeros(2, int), p.initial_solution(key)))
        assert (problem.surrogate_gradient(key, state) is not None) == expected


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"task": "supervised/digit"},
            ValueError,
            r"Unknown problem 'supervised/digit'. Did you mean 'supervised/",
        ),
        ({"task": MLP}, TypeError, r"task is made from ids of supervised problems, got 'unrolled/mlp_.*as an instance"),
        ({"held_out": 1.0}, ValueError, r"fraction that leaves data on both sides, got 1.0"),
        ({"held_out": 1e-5}, ValueError, r"fraction that leaves data on both sides, got 1e-05"),
        ({"held_out": -0.1}, ValueError, r"LearnedOptimizer.held_out must be at least 0, got -0.1"),
        ({"held_out": "half"}, TypeError, r"LearnedOptimizer.held_out must be a number, got 'half'"),
        ({"activation": "cube"}, ValueError, r"activation must be one of relu, tanh, gelu, silu, got 'cube'"),
        ({"hidden": (0,)}, ValueError, r"hidden must be positive whole numbers, one per layer, got \(0,\)"),
        ({"batch_size": 0}, ValueError, r"LearnedOptimizer.batch_size must be at least 1, got 0"),
        ({"step_size": 0}, ValueError, r"LearnedOptimizer.step_size must be greater than 0, got 0"),
        ({"num_score_episodes": 0}, ValueError, r"LearnedOptimizer.num_score_episodes must be at least 1, got 0"),
    ],
)
def test_invalid_settings_of_inner_training(settings, error, message):
    with pytest.raises(error, match=message):
        zoo.make_problem(LEARNED, **settings)


@pytest.mark.parametrize("id", ["blackbox/sphere", "rl/CartPole-v1", LORENZ])
def test_a_task_by_id_must_be_supervised(id):
    with pytest.raises(TypeError, match=id):
        zoo.make_problem(MLP, task=id)


# What is promised for all of them

SMALL = {
    INFLUENCE: {"num_dims": 4, "num_positive": 2, "window": 2, "num_score_steps": 5},
    LORENZ: {"horizon": 6, "window": 2},
    TOY: {"horizon": 6, "window": 2},
    MLP: {"hidden": (4,), "batch_size": 8, "horizon": 6, "window": 2, "num_score_episodes": 1},
    LEARNED: {"hidden": (4,), "optimizer_hidden": (4,), "batch_size": 8, "horizon": 6, "window": 2},
}


def make_small(id):
    return zoo.make_problem(id, **SMALL[id])


def test_all_ids_are_tested():
    assert sorted(SMALL) == [id for id in zoo.list_problems() if id.startswith("unrolled/")]


@jit
def initial_solution_of(problem, key):
    return problem.initial_solution(key)


@jit
def play(strategy, problem, key, solution):
    """Three generations of the loop; returns it before and after, and the fitness in each."""
    key_start, key_loop = jax.random.split(key)
    before = start(strategy, problem, key_start, solution)
    body = functools.partial(generation, strategy, problem)
    return before, *jax.lax.scan(body, before, jax.random.split(key_loop, 3))


def ones(x):
    return jnp.sum(jnp.square(x - 1))


def make_simple(id):
    """With a task that compiles in no time; digits have tests of their own."""
    task = zoo.from_function(ones, jnp.array([0.5, 0.3]))
    return zoo.make_problem(id, **SMALL[id], **({"task": task, "outer_task": task} if id in (MLP, LEARNED) else {}))


@pytest.mark.parametrize(("name", "size"), [("nres", 4), ("pes", 2), ("tes", 3), ("tbptt", 1)])
@pytest.mark.parametrize("id", SMALL)
def test_online_strategies_run_on_every_problem(id, name, size, key):
    problem = make_simple(id)
    strategy = zoo.make_strategy(name, problem=problem, population_size=size, learning_rate=0.01)
    solution = initial_solution_of(problem, key)
    before, after, fitness = play(strategy, problem, key, solution)
    assert signature(after) == signature(before)
    assert fitness.shape == (3, size)
    assert is_finite((after, fitness))
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), strategy.mean(after.state), solution)
    assert any(jax.tree.leaves(moved))
    if name == "tbptt":  # zero where it is not finite
        assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(after.state.gradient))


@pytest.mark.parametrize("id", SMALL)
def test_numbers_never_recompile(id, key):
    problem = make_simple(id)
    solution = initial_solution_of(problem, key)
    expected = fitness_of(problem, key, solution)
    num_programs = fitness_of._cache_size()
    leaves, structure = jax.tree.flatten(problem)
    assert fitness_of(jax.tree.unflatten(structure, leaves), key, solution) == expected
    numbers = [f.name for f in dataclasses.fields(problem) if isinstance(getattr(problem, f.name), (float, tuple))]
    numbers = [name for name in numbers if name not in ("hidden", "optimizer_hidden")]
    assert numbers
    for name in numbers:
        changed = problem.replace(**{name: jax.tree.map(lambda x: 1.1 * x + 0.01, getattr(problem, name))})
        assert np.isfinite(fitness_of(changed, key, solution)), name
    assert fitness_of._cache_size() == num_programs


@pytest.mark.parametrize("id", SMALL)
def test_a_problem_goes_through_jit_as_a_pytree(id):
    """With its data, its task and what is held out of it."""
    problem = make_small(id)
    through = jax.jit(lambda p: p)(problem)
    assert type(through) is type(problem)
    assert jax.tree.structure(through) == jax.tree.structure(problem)
    assert hash(jax.tree.structure(through)) == hash(jax.tree.structure(make_small(id)))
    for x, y in zip(jax.tree.leaves(through), jax.tree.leaves(problem), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    if id == LEARNED:
        assert through.outer_task.train_inputs.shape == (287, 8, 8, 1)


def test_a_setting_can_be_swept_with_vmap(key):
    problem = make_small(LORENZ)
    solution = {"log_a": jnp.asarray(2.0), "log_r": jnp.asarray(3.5)}
    values = jnp.array([20.0, 28.0, 35.0])
    swept = jit(jax.vmap(lambda r: problem.replace(r=r).fitness(key, solution)))(values)
    expected = [lorenz(2.0, 3.5, num_steps=6, r=float(r)).mean() for r in values]
    np.testing.assert_allclose(swept, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("id", "settings"),
    [
        (LORENZ, ["start=(0, 1.5, 2)", "r=30", "horizon=50", "window=none", "objective=sum"]),
        (INFLUENCE, ["num_dims=5", "num_positive=2", "horizon=10", "initial_theta=1"]),
        (TOY, ["start=2,3", "initial_log_rates=(-1, 0)", "num_score_episodes=2"]),
        (MLP, ["hidden=8", "batch_size=4", "task=supervised/digits", "seed=none", "initial_theta=(0, 1)"]),
        (LEARNED, ["hidden=(3,4)", "momenta=(0.5,)", "time_scales=(1, 10)", "optimizer_hidden=(4,)", "held_out=0.1"]),
    ],
)
def test_settings_come_as_the_command_line_parses_them(id, settings, key):
    parsed = _parse_settings(settings)
    problem = zoo.make_problem(id, **parsed)
    solution = jax.eval_shape(problem.initial_solution, key)
    assert jax.eval_shape(problem.fitness, key, solution).shape == ()
    assert jax.eval_shape(problem.score, key, solution)["objective"].shape == ()
    for name, value in parsed.items():
        if name != "task":
            np.testing.assert_array_equal(getattr(problem, name), value)


# Control, with windows


@pytest.mark.parametrize(
    ("id", "network", "name", "size"),
    [
        ("Pendulum-v1", "mlp", "pes", 4),
        ("Swimmer-misc", "linear", "nres", 4),
        ("Reacher-misc", "linear", "pes", 2),
        ("Reacher-misc", "mlp", "nres", 2),
    ],
)
def test_online_strategies_control_in_windows(id, network, name, size, key):
    problem = zoo.make_problem(f"rl/{id}", network=network, hidden=(3,), horizon=6, window=2)
    strategy = zoo.make_strategy(name, population_size=size)

    @jit
    def play(key):
        before = start(strategy, problem, key)

        def body(loop, key):
            key_ask, key_evaluate = jax.random.split(key)
            population, state = strategy.ask(key_ask, loop.state, None)
            evaluation, problem_state = problem.evaluate(key_evaluate, population, loop.problem_state)
            return type(loop)(strategy.tell(state, population, evaluation), problem_state), evaluation

        return before, *jax.lax.scan(body, before, jax.random.split(key, 4))

    before, after, evaluations = play(key)
    assert signature(after) == signature(before)
    assert is_finite((after, evaluations))
    num_pairs = size // 2
    phases = before.problem_state.time[:num_pairs]
    assert set(np.asarray(phases)) <= ({0, 2, 4} if num_pairs > 1 else {0})
    assert len(set(np.asarray(phases))) == num_pairs
    # Every member takes two steps; the first generation pays for the pairs' warm-up.
    np.testing.assert_array_equal(evaluations.steps, [2 * size + phases.sum(), 2 * size, 2 * size, 2 * size])
    np.testing.assert_array_equal(evaluations.done[:, :num_pairs], evaluations.done[:, num_pairs:])
    np.testing.assert_array_equal(evaluations.done[:3].sum(axis=0), 1)  # in an episode's three windows
    assert np.all(evaluations.fitness != 0)


def test_a_linear_policy_starts_at_zero_without_bias(key):
    for id, shape in (("Pendulum-v1", (3, 1)), ("Swimmer-misc", None), ("Reacher-misc", None)):
        problem = zoo.make_problem(f"rl/{id}", network="linear")
        (kernel,) = jax.tree.leaves(jit(problem.initial_solution)(key))
        observation = problem._observation_size
        assert kernel.shape[0] == observation
        assert kernel.ndim == 2
        assert shape is None or kernel.shape == shape
        assert not kernel.any()
        outputs = problem._network.apply({"params": {"Dense_0": {"kernel": kernel + 2}}}, jnp.ones((5, observation)))
        np.testing.assert_allclose(outputs, 2 * observation * np.ones((5, kernel.shape[1])))
