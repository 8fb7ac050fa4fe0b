"""Tests gymnax environments against a loop by hand, and promises for all registered ones."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import zoo
import zoo.problems.rl.gymnax as module
from zoo.core.grouping import group_keys
from zoo.core.promotion import promotion_of_others
from zoo.problems.networks import FunctionNetwork
from zoo.problems.rl.gymnax import GymnaxProblem
from zoo.problems.rl.normalizer import Moments, Normalizer

BOX = spaces.Box(-100.0, 100.0, (2,))


@struct.dataclass
class FakeParams(environment.EnvParams):
    bonus: float = 0.0
    shortest: int = 1000
    max_steps_in_episode: int = 6


@struct.dataclass
class FakeState(environment.EnvState):
    action: jax.Array
    life: jax.Array


class Fake(environment.Environment):
    """Observes the clock, rewards the sum of the action and a bonus, and terminates after a random time."""

    def __init__(self, action_space, observation_space=BOX):
        self.spaces = action_space, observation_space

    default_params = FakeParams()

    def action_space(self, params=None):
        return self.spaces[0]

    def observation_space(self, params=None):
        return self.spaces[1]

    def reset_env(self, key, params):
        action = jnp.zeros(self.spaces[0].shape, self.spaces[0].dtype)
        state = FakeState(0, action, params.shortest + jax.random.randint(key, (), 0, 3))
        return self.observation(state), state

    def step_env(self, key, state, action, params):
        new = FakeState(state.time + 1, action, state.life)
        return self.observation(new), new, jnp.sum(action) + params.bonus, new.time >= new.life, {}

    def observation(self, state):
        if isinstance(self.spaces[1], spaces.Discrete):
            return state.time % 3
        return jnp.array([state.time, 5.0])


@pytest.fixture
def make(monkeypatch):
    """Returns a function that makes a problem from a fake environment."""

    def make(*args, **settings):
        monkeypatch.setitem(gymnax.registration._registry, "Fake-v0", lambda: Fake(*args))
        module._make.cache_clear()
        return GymnaxProblem(environment="Fake-v0", **settings)

    yield make
    module._make.cache_clear()


def constant(params, inputs):
    """A network whose outputs are its parameters for every input."""
    return jnp.broadcast_to(params, (inputs.shape[0], *params.shape))


def no_init(key, inputs):
    return jnp.zeros(2)


def in_one_program(fn, *args):
    """Calls a function in a new program, because all fake environments have the same name."""
    return jax.jit(lambda *args: fn(*args))(*args)


def first_step(problem, key, outputs):
    return in_one_program(lambda: problem.step(key, outputs, problem.reset(key)))


def initial_state(problem, key, groups):
    return in_one_program(lambda: problem.init(key, zoo.Groups(np.asarray(groups)), jnp.zeros(2)))


CONSTANT = FunctionNetwork(no_init, constant)
LINEAR = FunctionNetwork(lambda key, x: jnp.zeros((x.shape[1], 2)), lambda w, x: x @ w)


@functools.cache
def compiled(id):
    env, params = gymnax.make(id)

    @promotion_of_others()
    @jax.jit
    def step_env(*args):
        observation, state, reward, terminated, _ = env.step_env(*args)
        return observation, state, reward, terminated | env.is_truncated(state, params)

    @functools.partial(jax.jit, static_argnames=("num_episodes", "max_steps"))
    def keys_of_steps(key, num_episodes, max_steps):
        """Returns the key of each step of each episode's environment, `[max_steps, num_episodes]`."""
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(max_steps))
        keys = jax.vmap(lambda k: jax.random.split(k, num_episodes))(keys)
        return jax.vmap(jax.vmap(lambda k: jax.random.split(k)[1]))(keys)

    reset_env = promotion_of_others()(jax.jit(jax.vmap(env.reset_env, (0, None))))
    return params, reset_env, step_env, keys_of_steps


def play(id, policy, key_reset, key_steps, num_episodes, max_steps):
    """Plays episodes by hand. Returns the returns, lengths and observations of each."""
    params, reset_env, step_env, keys_of_steps = compiled(id)
    keys = keys_of_steps(key_steps, num_episodes, max_steps)
    starts = jax.device_get(reset_env(jax.random.split(key_reset, num_episodes), params))
    returns, lengths, seen = [], [], []
    for episode in range(num_episodes):
        observation, state = jax.tree.map(lambda x, episode=episode: x[episode], starts)
        total, observations = 0.0, []
        for t in range(max_steps):
            observations.append(np.asarray(observation))
            action = policy(observations[-1])
            observation, state, reward, ended = step_env(keys[t, episode], state, action, params)
            total += float(reward)
            if ended:
                break
        returns.append(total)
        lengths.append(len(observations))
        seen += observations
    return np.array(returns), np.array(lengths), np.array(seen)


def spec(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


# Against a loop by hand

WEIGHTS = np.array(
    [
        [[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.5]],  # a policy that balances for a while
        [[0.0, 0.0], [0.0, 0.0], [0.0, -1.0], [0.0, 0.0]],  # a policy that pushes in the wrong direction
        [[0.0, 1.0], [0.0, 0.0], [0.0, 0.3], [0.0, -0.2]],
    ],
    np.float32,
)


def test_cartpole_is_a_loop_by_hand(key):
    """Equals a loop by hand, with two episodes per evaluation, two groups, and a horizon that cuts some episodes."""
    horizon = 30
    problem = zoo.make_problem("rl/CartPole-v1", network=LINEAR, horizon=horizon, num_episodes=2)
    groups = np.array([0, 1, 0])
    evaluate_key = jax.random.key(3)

    @jax.jit
    def evaluate():
        state = problem.init(key, zoo.Groups(groups), jnp.zeros((4, 2)))
        keys = group_keys(jax.random.split(key, 3)[1], 2), group_keys(jax.random.fold_in(evaluate_key, 0), 2)
        return problem.evaluate(evaluate_key, WEIGHTS, state), keys

    (evaluation, state), (reset_keys, step_keys) = evaluate()
    lengths = []
    for member, group in enumerate(groups):
        weights = WEIGHTS[member]
        returns, length, _ = play(
            "CartPole-v1", lambda o, w=weights: int(np.argmax(o @ w)), reset_keys[group], step_keys[group], 2, horizon
        )
        np.testing.assert_allclose(np.asarray(evaluation.fitness)[member], -returns.mean(), rtol=1e-6)
        lengths.append(length)
    lengths = np.array(lengths)
    assert lengths.max() == horizon
    assert lengths.min() < 15
    assert np.any(lengths[:, 0] != lengths[:, 1])
    assert evaluation.steps == lengths.sum()
    assert np.all(evaluation.done)
    assert np.all(state.inner.alive)


def test_pendulum_is_a_loop_by_hand_under_jit(key):
    """Continuous actions are the outputs, squashed by tanh into the action space."""
    problem = zoo.make_problem("rl/Pendulum-v1", network=CONSTANT, horizon=4)
    output = jnp.array([0.6])
    fitness = jax.jit(problem.fitness)(key, output)
    returns, _, _ = play(
        "Pendulum-v1", lambda _: 2 * np.tanh(np.array([0.6], np.float32)), *jax.random.split(key), 1, 4
    )
    np.testing.assert_allclose(fitness, -returns[0], rtol=1e-5)


# Actions


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([0.0, 0.0], [1.0, 3.5]),
        ([1e6, -1e6], [3.0, 2.0]),
        ([np.arctanh(0.5), np.arctanh(-0.2)], [2.0, 3.2]),
    ],
)
def test_continuous_actions_are_squashed_into_the_space(outputs, expected, make, key):
    space = spaces.Box(jnp.array([-1.0, 2.0]), jnp.array([3.0, 5.0]), (2,))
    problem = make(space, network=CONSTANT)
    inner, loss, _ = first_step(problem, key, jnp.asarray(outputs, jnp.float32))
    np.testing.assert_allclose(inner.state.action, [expected], rtol=1e-6)
    np.testing.assert_allclose(loss, -np.sum(expected), rtol=1e-6)


def test_bounds_and_shapes_of_any_number_of_axes(make, key):
    problem = make(spaces.Box(-2.0, 2.0, (2, 1)), network=CONSTANT)
    inner, _, _ = first_step(problem, key, jnp.array([50.0, -50.0]))
    np.testing.assert_array_equal(inner.state.action, [[[2.0], [-2.0]]])


def test_discrete_actions_are_the_arg_max(make, key):
    problem = make(spaces.Discrete(3), network=CONSTANT, num_episodes=2)
    inner, loss, _ = first_step(problem, key, jnp.array([0.0, -1.0, 0.5]))
    assert inner.state.action.dtype == np.int32
    np.testing.assert_array_equal(inner.state.action, [2, 2])
    assert float(loss) == -2.0


def test_discrete_actions_are_sampled_from_the_softmax(make, key):
    """Action 1 is drawn with probability 0.8: a binomial count within 5 sigma."""
    num = 2000
    problem = make(spaces.Discrete(2), network=CONSTANT, num_episodes=num, sample_actions=True)
    step = jax.jit(problem.step)
    start, outputs = in_one_program(problem.reset, key), np.log(np.array([0.2, 0.8], np.float32))
    inner, loss, _ = step(key, outputs, start)
    actions, others = (np.asarray(x.state.action) for x in (inner, step(jax.random.key(1), outputs, start)[0]))
    assert abs(actions.mean() - 0.8) < 5 * np.sqrt(0.8 * 0.2 / num)
    np.testing.assert_allclose(loss, -np.mean(actions), rtol=1e-6)
    assert np.any(actions != others)


def test_discrete_observations_are_one_hot(make, key):
    problem = make(spaces.Discrete(2), spaces.Discrete(3), network=LINEAR)
    assert problem.initial_solution(key).shape == (3, 2)
    np.testing.assert_array_equal(in_one_program(problem.reset, key).observation, [[1, 0, 0]])
    np.testing.assert_array_equal(first_step(problem, key, jnp.zeros((3, 2)))[0].observation, [[0, 1, 0]])


# Episodes and settings


def test_horizon_objective_and_steps(make, key):
    """Two members play three episodes each, of six steps with reward 1, in windows of two steps."""
    problem = make(spaces.Discrete(2), network=CONSTANT, window=2, num_episodes=3, objective="mean")
    assert problem.horizon == 6  # from the environment
    evaluation, _ = jax.jit(problem.evaluate)(key, 1 - np.eye(2, dtype=np.float32), initial_state(problem, key, [0, 0]))
    np.testing.assert_allclose(evaluation.fitness, [-2 * 3 / 6, 0.0], rtol=1e-6)
    assert evaluation.steps == 2 * 2 * 3


def test_environment_parameters_can_be_swept(make, key):
    problems = [make(spaces.Discrete(2), network=CONSTANT, env_params=FakeParams(bonus=b)) for b in (1.0, 2.0)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *problems)
    fitness = jax.jit(jax.vmap(lambda problem: problem.fitness(key, jnp.zeros(2))))(stacked)
    np.testing.assert_array_equal(fitness, [-6.0, -12.0])


def test_episodes_end_one_by_one(make, key):
    """An episode that ended costs no step, earns no reward and keeps its state while the others continue."""
    params = FakeParams(shortest=2, bonus=1.0)
    problem = make(spaces.Discrete(2), network=CONSTANT, num_episodes=8, env_params=params, normalize_observations=True)
    start = in_one_program(problem.reset, jax.random.split(key)[0])
    lives = np.asarray(start.state.life)
    assert set(lives) == {2, 3, 4}
    end = jax.jit(problem.rollout)(key, jnp.zeros(2))
    assert end.terminated
    assert (end.time, end.steps) == (4, lives.sum())
    np.testing.assert_allclose(end.loss, -lives.mean(), rtol=1e-6)
    np.testing.assert_array_equal(end.inner.state.time, lives)
    np.testing.assert_array_equal(end.inner.observation[:, 0], lives)
    assert not np.any(end.inner.alive)
    assert float(end.inner.moments.num) == lives.sum()
    np.testing.assert_array_equal(end.inner.moments.total, [sum(n * (n - 1) / 2 for n in lives), 5 * lives.sum()])


def test_episodes_end_at_the_time_limit_of_the_environment(make, key):
    params = FakeParams(bonus=1.0, max_steps_in_episode=3)
    problem = make(spaces.Discrete(2), network=CONSTANT, env_params=params, horizon=5)
    end = in_one_program(problem.rollout, key, jnp.zeros(2))
    assert (end.loss, end.time, end.terminated) == (-3.0, 3, True)


@pytest.mark.parametrize("max_steps", [3, 9])
def test_episodes_are_as_long_as_the_environment_parameters_say(max_steps, make, key):
    params = FakeParams(max_steps_in_episode=max_steps, bonus=1.0)
    problem = make(spaces.Discrete(2), network=CONSTANT, env_params=params, num_score_episodes=2)
    score = in_one_program(problem.score, key, jnp.zeros(2))
    assert score == {"return": max_steps, "episode_length": max_steps}


def test_score(make, key):
    """The score is the undiscounted return and length per episode, for any objective and number of episodes."""
    problem = make(spaces.Discrete(2), network=CONSTANT, num_episodes=3, objective="mean", num_score_episodes=4)
    state = initial_state(problem, key, [0, 0])
    score = in_one_program(problem.evaluate_score, key, jnp.array([0.0, 1.0]), state)
    assert score == {"return": 6.0, "episode_length": 6.0}
    assert (problem.headline, problem.maximize) == ("return", True)
    assert problem.surrogate_gradient(key, state) is None


# Normalisation


@jax.jit
def add_chunk(normalizer, chunk):
    """Adds a chunk to a normaliser like a run: row by row, relative to the mean at the start of the chunk."""

    def body(moments, row):
        return moments.add((row - normalizer.mean)[None], jnp.ones(1, bool)), None

    return normalizer.add(jax.lax.scan(body, Moments.zeros(chunk.shape[1]), chunk)[0])


@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-5), (30.0, 1e-3), (1000.0, 1e-2)])
def test_normalizer_is_mean_and_variance_of_all_chunks(offset, tolerance):
    """Mean and variance are precise even if the mean is a thousand standard deviations from zero."""
    rng = np.random.default_rng(0)
    chunks = [(offset + rng.normal(0.3 * i, [1, 3], (40, 2))).astype(np.float32) for i in range(10)]
    normalizer = functools.reduce(add_chunk, chunks, Normalizer.identity(2))
    everything = np.concatenate(chunks).astype(np.float64)
    assert normalizer.num == 400
    np.testing.assert_allclose(normalizer.mean, everything.mean(axis=0), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(normalizer.variance, everything.var(axis=0), rtol=tolerance)
    got = jax.jit(Normalizer.normalize)(normalizer, chunks[0])
    expected = (chunks[0] - everything.mean(axis=0)) / everything.std(axis=0)
    np.testing.assert_allclose(got, expected, atol=10 * tolerance)


def test_normalizer_of_little():
    def assert_is(normalizer, num, mean, variance):
        np.testing.assert_allclose(np.hstack(normalizer), [num, mean, variance], rtol=1e-6)

    @jax.jit
    def add(normalizer, value):
        return normalizer.add(Moments.zeros(1).add(value[None, None], jnp.ones(1, bool)))

    add_nothing = jax.jit(lambda normalizer: normalizer.add(Moments.zeros(1)))
    normalizer = Normalizer.identity(1)
    assert_is(add_nothing(normalizer), 0, 0, 1)
    one = add(normalizer, np.float32(3))
    assert_is(one, 1, 3, 1)  # the variance of one value would be 0, so it stays 1
    assert_is(add_nothing(one), 1, 3, 1)
    two = add(one, np.float32(2))  # 5, relative to 3
    assert_is(two, 2, 4, 1)
    assert_is(add_nothing(two), 2, 4, 1)
    assert_is(add(two, np.float32(-3)), 3, 3, 8 / 3)  # 3, 5, 1


def test_moments_leave_out_what_is_masked():
    rows = jnp.array([[1.0, 2.0], [jnp.nan, 7.0], [3.0, -4.0]])
    moments = jax.jit(lambda: Moments.zeros(2).add(rows, jnp.array([True, False, True])))()
    assert moments.num == 2
    np.testing.assert_array_equal(moments.total, [4.0, -2.0])
    np.testing.assert_array_equal(moments.squares, [10.0, 20.0])


def test_statistics_are_of_all_members_and_stop_with_their_episodes(key):
    """Statistics cover all members until their episodes end. Actions are constant, so trajectories are known."""
    problem = zoo.make_problem("rl/CartPole-v1", network=CONSTANT, horizon=16, window=4, normalize_observations=True)
    population = np.eye(2, dtype=np.float32)
    state = initial_state(problem, key, [0, 0])
    reset_key = in_one_program(lambda: group_keys(jax.random.split(key, 3)[1], 1)[0])
    played = [play("CartPole-v1", lambda _, a=a: a, reset_key, key, 1, 16) for a in (0, 1)]
    lengths = [int(p[1][0]) for p in played]
    assert max(lengths) <= 12
    evaluate = jax.jit(problem.evaluate)
    steps = 0
    for i, k in enumerate(jax.random.split(key, 4)):
        evaluation, state = evaluate(k, population, state)
        steps += int(evaluation.steps)
        seen = np.concatenate([p[2][: 4 * (i + 1)] for p in played])
        assert state.statistics.num == steps == len(seen)
        np.testing.assert_allclose(state.statistics.mean, seen.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.statistics.variance, seen.var(axis=0), rtol=1e-3, atol=1e-7)
        assert all(np.all(np.asarray(m) == 0) for m in jax.tree.leaves(state.inner.moments))
    assert steps == sum(lengths)
    assert np.all(evaluation.done)


def test_statistics_count_every_step_once(make, key):
    """Statistics count every step once, steps of the groups' warm-up included."""
    problem = make(spaces.Discrete(2), network=CONSTANT, window=2, normalize_observations=True)
    state = initial_state(problem, key, [0, 0, 1, 1, 2, 2])
    evaluate = jax.jit(problem.evaluate)
    steps = 0
    for k in jax.random.split(key, 3):
        evaluation, state = evaluate(k, np.zeros((6, 2), np.float32), state)
        steps += int(evaluation.steps)
        assert state.statistics.num == steps


def test_the_network_sees_normalised_observations(make, key):
    inputs = []

    def spy(params, observation):
        inputs.append(observation)
        return constant(params, observation)

    def step(problem):
        new, _, _ = problem.step(key, jnp.zeros(2), inner)
        return new, inputs[-1]

    normalizer = Normalizer(jnp.float32(3), jnp.array([2.0, 1.0]), jnp.array([4.0, 0.04]))
    problem = make(
        spaces.Discrete(2), network=FunctionNetwork(no_init, spy), normalize_observations=True, num_episodes=2
    )
    inner = in_one_program(problem.reset, key)
    inner = inner._replace(alive=jnp.array([True, False]))
    for settings, expected in (
        (problem.replace(normalize_observations=False), [0.0, 5.0]),
        (problem, [0.0, 5.0]),
        (problem.with_statistics(normalizer), [-1.0, 10.0]),  # (5 - 1) / 0.2 = 20, clipped
    ):
        new, seen = in_one_program(step, settings)
        np.testing.assert_allclose(seen, [expected] * 2, rtol=1e-6)
    # The moments are deviations from the mean in use, over episodes that have not ended.
    np.testing.assert_array_equal(new.moments.num, 1)
    np.testing.assert_allclose(new.moments.total, [-2.0, 4.0])
    np.testing.assert_allclose(new.moments.squares, [4.0, 16.0])


def test_a_run_normalises_with_its_own_statistics(make, key):
    """A run normalises by its own statistics: the observation becomes 0, and action 1 is no longer chosen."""
    network = FunctionNetwork(no_init, lambda w, x: jnp.stack([0 * x[:, 1], x[:, 1] - 4], axis=1) + w[None])
    problem = make(spaces.Discrete(2), network=network, normalize_observations=True, num_score_episodes=2)
    x = np.zeros(2, np.float32)
    states = [initial_state(problem, key, [0, 0])]
    fitness = []
    evaluate, score = jax.jit(problem.evaluate), jax.jit(problem.evaluate_score)
    for _ in range(2):
        evaluation, state = evaluate(key, np.stack([x, x]), states[-1])
        fitness.append(np.asarray(evaluation.fitness)[0])
        states.append(state)
    np.testing.assert_array_equal(fitness, [-6.0, 0.0])
    assert [score(key, x, state)["return"] for state in states] == [6.0, 0.0, 0.0]
    assert [state.statistics.num for state in states] == [0, 12, 24]
    np.testing.assert_allclose(states[1].statistics.mean, [2.5, 5.0])
    plain = problem.replace(normalize_observations=False)
    assert initial_state(plain, key, [0, 0]).statistics == ()


# All environments


@pytest.fixture
def fake_mnist(monkeypatch):
    """Replaces the download of the MNIST bandit's images."""
    images, labels = np.zeros((3, 28, 28), np.uint8), np.arange(3, dtype=np.int32)
    monkeypatch.setattr(gymnax.utils.load_mnist, "load_mnist", lambda *_: ((images, labels), (images, labels)))
    yield
    module._make.cache_clear()


@pytest.mark.parametrize("id", gymnax.registered_envs)
def test_every_environment_can_be_evaluated_and_scored(id, fake_mnist, monkeypatch):
    """Evaluates abstractly, without compiling: shapes are right, and a loop can carry the state."""
    problem = zoo.make_problem(f"rl/{id}", hidden=(3,), num_score_episodes=2, normalize_observations=True)
    env, params, *_ = module._make(id)
    assert problem.horizon == int(params.max_steps_in_episode)
    for name in ("reset_env", "step_env"):  # tracing is slow, so it happens once
        monkeypatch.setattr(env, name, jax.jit(getattr(env, name)))

    def evaluate(key):
        solution = problem.initial_solution(key)
        state = problem.init(key, zoo.Groups(np.array([0, 0, 1])), solution)
        population = jax.tree.map(lambda x: jnp.stack([x] * 3), solution)
        evaluation, new_state = problem.evaluate(key, population, state)
        return state, evaluation, new_state, problem.evaluate_score(key, solution, new_state)

    state, evaluation, new_state, score = jax.eval_shape(evaluate, jax.random.key(0))
    assert spec(new_state) == spec(state)
    assert spec(evaluation) == (((3,), np.float32), ((3,), bool), ((), np.int32), None, {}, None)
    assert spec(score) == {"return": ((), np.float32), "episode_length": ((), np.float32)}


def test_every_environment_is_listed():
    ids = [id.removeprefix("rl/") for id in zoo.list_problems() if id.startswith("rl/") and "gymnasium" not in id]
    assert ids == sorted(gymnax.registered_envs)


# Errors


@pytest.mark.parametrize("network", ["mlp", CONSTANT])
@pytest.mark.parametrize(
    ("action", "observation", "message"),
    [
        (spaces.Tuple([BOX, BOX]), BOX, r"action space Tuple\(.*not supported; expected Discrete or Box"),
        (spaces.Discrete(2), spaces.Dict({"a": BOX}), r"observation space Dict\(.*not supported; expected Box or Disc"),
        (spaces.Box(-jnp.inf, jnp.inf, (2,)), BOX, r"unbounded action space Box\(low=-inf.*expected finite bounds"),
        (spaces.Box(jnp.array([-1.0, -1.0]), jnp.array([1.0, jnp.inf]), (2,)), BOX, r"unbounded action space"),
    ],
)
def test_unsupported_spaces(action, observation, message, network, make):
    with pytest.raises(ValueError, match=r"rl/Fake-v0 has the " + message):
        make(action, observation, network=network)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, r"GymnaxProblem.horizon must be at least 1"),
        ({"num_episodes": 0}, r"GymnaxProblem.num_episodes must be at least 1"),
        ({"window": 501}, r"GymnaxProblem.window must be at most its horizon 500, got 501"),
        ({"activation": "cube"}, r"activation must be one of"),
        ({"network": "transformer"}, r"network must be 'mlp'"),
        ({"objective": "max"}, r"GymnaxProblem.objective must be 'mean' or 'sum'"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        zoo.make_problem("rl/CartPole-v1", **settings)


def test_unknown_environment():
    with pytest.raises(ValueError, match=r"Unknown problem 'rl/CartPole-v2'.*'rl/CartPole-v1'"):
        zoo.make_problem("rl/CartPole-v2")
    with pytest.raises(ValueError, match=r"CartPole-v2"):
        GymnaxProblem(environment="CartPole-v2")
