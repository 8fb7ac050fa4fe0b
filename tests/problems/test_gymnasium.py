"""Tests gymnasium environments against a loop by hand, and the errors for unsupported ones."""

import sys
import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import zoo
from zoo.loop.identity import identify
from zoo.problems.networks import FunctionNetwork
from zoo.problems.rl.gymnasium import GymnasiumProblem

LINEAR = FunctionNetwork(lambda key, x: jnp.zeros((x.shape[1], 2)), lambda w, x: x @ w)


class Clock(gymnasium.Env):
    """Rewards the action, and terminates after 2 to 4 steps, by its seed. A second episode gives a large reward."""

    num_steps = 0  # over all clocks

    def __init__(self, observation_space=None, action_space=None):
        self.observation_space = spaces.Box(-1, 9, (2, 1)) if observation_space is None else observation_space
        self.action_space = spaces.Discrete(2, start=3) if action_space is None else action_space
        self.num_episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_episodes += 1 if seed is None else -self.num_episodes
        self.time, self.life = 0, self.np_random.integers(2, 5)
        return self._observation(), {}

    def step(self, action):
        self.time += 1
        Clock.num_steps += 1
        reward = float(np.sum(action)) + 1000 * self.num_episodes
        return self._observation(), reward, self.time >= self.life, False, {}

    def _observation(self):
        return np.full((2, 1), self.time, np.float32)


gymnasium.register("ZooTest/Clock-v0", Clock)


def play(env, policy, seeds):
    """Returns the returns and lengths of one environment, in a loop by hand."""
    returns, lengths = [], []
    for seed in seeds:
        observation, _ = env.reset(seed=int(seed))
        total, length, over = 0.0, 0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy(observation))
            total, length, over = total + reward, length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    return np.mean(returns), sum(lengths)


def seeds_of(seed, num):
    """Returns the seeds of a member's episodes. The first child seed is for its actions."""
    return np.random.SeedSequence(seed).generate_state(1 + num)[1:]


def one_hot(observation):
    return np.eye(16)[observation]


def squashed(weights, observation):
    low, high = -2, 2
    return (low + (np.tanh(observation @ weights) + 1) / 2 * (high - low)).astype(np.float32)


ENVIRONMENTS = {
    "CartPole-v1": (4, 2, {}, lambda w, x: int(np.argmax(x @ w))),
    "FrozenLake-v1": (16, 4, {"is_slippery": False}, lambda w, x: int(np.argmax(one_hot(x) @ w))),
    "Pendulum-v1": (3, 1, {"g": 5.0}, squashed),
    "ZooTest/Clock-v0": (2, 2, {}, lambda w, x: 3 + int(np.argmax(x.ravel() @ w))),
}


@pytest.mark.parametrize("id", ENVIRONMENTS)
def test_episodes_are_a_loop_by_hand(id):
    """Several members and episodes at once give the results of a loop by hand, also if they end at different times."""
    num_inputs, num_outputs, kwargs, policy = ENVIRONMENTS[id]
    problem = zoo.make_problem(
        f"rl/gymnasium/{id}", network=LINEAR, num_episodes=2, make_kwargs=kwargs, max_episode_steps=40
    )
    weights = np.random.default_rng(0).normal(size=(3, num_inputs, num_outputs)).astype(np.float32)
    seeds = np.array([11, 2**32 - 1, 11])
    for _ in range(2):  # the second time reuses the environments
        fitness, steps = problem.host_function.fn(seeds, weights)
    env = gymnasium.make(id, max_episode_steps=40, **kwargs)
    expected = [play(env, lambda x, w=w: policy(w, x), seeds_of(s, 2)) for w, s in zip(weights, seeds, strict=True)]
    np.testing.assert_allclose(fitness, [-r for r, _ in expected], rtol=1e-4)
    assert steps.tolist() == [s for _, s in expected]


def test_no_step_is_taken_after_the_end():
    """An environment takes no step after its episode, although vector environments step together and reset."""
    problem = zoo.make_problem("rl/gymnasium/ZooTest/Clock-v0", network=LINEAR)
    before = Clock.num_steps
    _, steps = problem.host_function.fn(np.arange(9), np.zeros((9, 2, 2), np.float32))
    assert set(steps) == {2, 3, 4}
    assert Clock.num_steps - before == steps.sum()


def test_sampled_actions():
    def episodes(sample_actions):
        problem = zoo.make_problem(
            "rl/gymnasium/CartPole-v1", network=LINEAR, sample_actions=sample_actions, num_episodes=3
        )
        return problem.host_function.fn

    seeds = np.array([1, 2, 1, 3])
    weights = np.random.default_rng(0).normal(size=(4, 4, 2)).astype(np.float32)
    sure = np.tile(1e6 * weights[:1], (4, 1, 1))
    np.testing.assert_array_equal(episodes(True)(seeds, sure), episodes(False)(seeds, sure))
    fitness, _ = episodes(True)(seeds, np.zeros_like(weights))
    assert fitness[0] == fitness[2]
    assert len(set(fitness)) == 3


def test_a_run_in_worker_processes():
    """Worker processes run an environment that only this process has registered, and CartPole is learned."""
    problem = zoo.make_problem("rl/gymnasium/ZooTest/Clock-v0", network=LINEAR, num_processes=1)
    key = jax.random.key(3)
    state = problem.init(key, zoo.Groups(np.array([0, 1, 0])), jnp.zeros((2, 2)))
    always_4 = jnp.broadcast_to(jnp.array([-1.0, 1.0]), (3, 2, 2))
    evaluation, _ = problem.evaluate(key, always_4, state)
    # The first action is at time 0, when all outputs are equal.
    assert int(evaluation.steps) == -jnp.sum((evaluation.fitness - 1) / 4)
    assert evaluation.fitness[0] == evaluation.fitness[2]
    score = problem.score(key, always_4[0])
    assert score["return"] == 4 * score["episode_length"] - 1
    assert 2 < score["episode_length"] < 4

    problem = zoo.make_problem("rl/gymnasium/CartPole-v1", network="linear", num_processes=1, num_score_episodes=4)
    strategy = zoo.make_strategy("open_es", problem=problem, population_size=16)
    result = zoo.run(strategy, problem, num_generations=12, num_scores=2)
    assert result.scores["return"][0] < 20
    assert result.score > 60
    assert result.num_steps > 12 * 16 * 8


# The registry


def test_ids():
    ids = [id for id in zoo.list_problems() if id.startswith("rl/gymnasium/")]
    assert {"rl/gymnasium/CartPole-v1", "rl/gymnasium/Pendulum-v1"} <= set(ids)
    assert not any("CartPole-v0" in id or "phys2d" in id for id in ids)
    assert zoo.make_problem("rl/gymnasium/CartPole-v0").environment == "CartPole-v0"  # older versions work by their id
    assert type(zoo.make_problem("rl/CartPole-v1")) is not GymnasiumProblem
    with pytest.raises(ValueError, match=r"Unknown problem 'rl/gymnasium/CartPole-v9'.*'rl/gymnasium/CartPole-v1'"):
        zoo.make_problem("rl/gymnasium/CartPole-v9")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        zoo.make_problem("rl/gymnasium/no_such_module:Env-v0")


def test_without_gymnasium(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert not any("gymnasium" in id for id in zoo.list_problems())
    with pytest.raises(ModuleNotFoundError, match=r"gymnasium is not installed: pip install es-zoo\[gymnasium\]"):
        zoo.make_problem("rl/gymnasium/CartPole-v1")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"observation_space": spaces.Tuple([spaces.Discrete(2)])},
            r"observation space is Tuple\(.*must be Box or Disc",
        ),
        ({"action_space": spaces.MultiBinary(2)}, r"action space is MultiBinary\(2\).*must be Discrete or Box"),
        ({"action_space": spaces.Box(-np.inf, 1, (2,))}, r"action space is Box\(-inf.*must have finite bounds"),
    ],
)
def test_unsupported_spaces(kwargs, message):
    gymnasium.register("ZooTest/Unsupported-v0", lambda: Clock(**kwargs))
    try:
        with pytest.raises(ValueError, match=r"rl/gymnasium/ZooTest/Unsupported-v0 is not supported: its " + message):
            zoo.make_problem("rl/gymnasium/ZooTest/Unsupported-v0")
    finally:
        del gymnasium.registry["ZooTest/Unsupported-v0"]


MINE = """
import gymnasium, numpy as np

class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, True, False, {}
"""


@pytest.mark.parametrize("by_name", [False, True])
def test_another_environment_under_the_same_id_is_another_program(by_name, monkeypatch):
    def identity_of(source):
        module = types.ModuleType("user_environments")
        exec(source, vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.delitem(gymnasium.registry, "ZooTest/Mine-v0", raising=False)
        gymnasium.register("ZooTest/Mine-v0", "user_environments:Mine" if by_name else module.Mine)
        return identify(zoo.make_strategy("snes", population_size=4), zoo.make_problem("rl/gymnasium/ZooTest/Mine-v0"))

    one, again, other = (identity_of(source) for source in (MINE, MINE, MINE.replace("1.0, True", "2.0, True")))
    assert one.differences(again.facts()) == []
    assert one.differences(other.facts()) == ["code of the problem"]
    assert one.unseen == []
