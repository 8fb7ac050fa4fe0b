"""Control of any registered gymnasium environment (Towers et al. 2024, arXiv 2407.17032), on the host.

Worker processes each evaluate a chunk of the population. A worker has one environment per member and episode, and steps
them together with one compiled call of all policies.
"""

import copy
import functools
import importlib
import importlib.util
import math
import os
import pickle
import re
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Solution, static
from zoo.core.checks import as_pairs
from zoo.host.problem import HostFunction, HostProblem
from zoo.problems.networks import Network, make_network
from zoo.problems.rl.policy import PolicyProblem

_MAX_STEPS = 1000  # the limit of an episode if the environment has none
_NEEDS = {"classic_control": "gymnasium", "toy_text": "gymnasium", "box2d": "Box2D", "mujoco": "mujoco"}
"""Folders of gymnasium's own environments that `names` lists, and the modules that they import."""
_UNSUPPORTED = ("Blackjack",)  # its observation space is a Tuple


class _Registered:
    """Contains the ids of all environments that gymnasium can make, including environments of other packages."""

    def __contains__(self, id: object) -> bool:
        try:
            return isinstance(id, str) and _find_spec(id) is not None
        except _gymnasium().error.Error:
            return False


class GymnasiumProblem(PolicyProblem, HostProblem):
    """A gymnasium environment controlled by a network. Fitness is the negative undiscounted return.

    Discrete actions are the argmax of the network's outputs, or are sampled from their softmax. Continuous actions are
    the outputs, squashed by tanh into the action space. Discrete observations are one-hot. Members of a group share the
    seeds of their episodes.

    Attributes:
        environment: Id of a registered gymnasium environment, for example `"CartPole-v1"`, `"ALE/Pong-v5"` or
            `"my_module:MyEnv-v0"`.
        make_kwargs: Keyword arguments of the environment, as a mapping or pairs, for example `{"g": 9.81}`.
        network: `"mlp"`, `"linear"` (no bias, initially zero), or a network of your own from `[batch,
            observation_size]` to `[batch, num_outputs]`.
        hidden: Units of each hidden layer.
        activation: Activation of the network: `"relu"`, `"tanh"`, `"gelu"` or `"silu"`.
        sample_actions: Samples discrete actions from the softmax of the outputs instead of taking the argmax.
        num_episodes: Episodes per evaluation. Fitness is their mean.
        num_score_episodes: Held-out episodes per score, rounded up to a multiple of `num_episodes`.
        max_episode_steps: Steps after which an episode is truncated. Defaults to the environment's limit, or to 1000 if
            it has none.
        num_processes: Number of worker processes that share the members. Defaults to one per core.
        timeout: Seconds that one process may take for all episodes of its members.
    """

    environment: str = static()
    make_kwargs: Any = static(default=())
    network: str | Network = static(default="mlp")
    hidden: tuple[int, ...] = static(default=(32,))
    activation: str = static(default="tanh")
    sample_actions: bool = static(default=False)
    num_episodes: int = static(default=1, at_least=1)
    num_score_episodes: int = static(default=32, at_least=1)
    max_episode_steps: int | None = static(default=None, at_least=1)
    num_processes: int | None = static(default=None, at_least=1)

    aliases: ClassVar[_Registered] = _Registered()

    def __post_init__(self) -> None:
        """Checks that the spaces are supported."""
        object.__setattr__(self, "make_kwargs", as_pairs(self.make_kwargs, f"{type(self).__name__}.make_kwargs"))
        super().__post_init__()
        _ = self._network

    @staticmethod
    def names() -> list[str]:
        """Returns the latest versions of gymnasium's own environments whose requirements are installed."""
        try:
            registry = _gymnasium().registry
        except ModuleNotFoundError:
            return []
        latest: dict[str, Any] = {}
        for spec in registry.values():
            folder = re.match(r"gymnasium\.envs\.(\w+)", str(spec.entry_point))
            module = folder and _NEEDS.get(folder[1])
            if module is None or spec.name in _UNSUPPORTED or importlib.util.find_spec(module) is None:
                continue
            if spec.name not in latest or (spec.version or 0) > (latest[spec.name].version or 0):
                latest[spec.name] = spec
        return sorted(spec.id for spec in latest.values())

    @staticmethod
    def check_installed() -> None:
        """Raises a `ModuleNotFoundError` that says what to install if gymnasium is missing."""
        _gymnasium()

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns the mean undiscounted return and the mean length of held-out episodes."""
        keys = jax.random.split(key, -(-self.num_score_episodes // self.num_episodes))
        losses, steps = jax.vmap(self.evaluate_on_host, in_axes=(0, None))(keys, solution)
        lengths = steps.astype(losses.dtype) / self.num_episodes
        return {"return": -jnp.mean(losses), "episode_length": jnp.mean(lengths)}

    @property
    def host_function(self) -> HostFunction:
        """Plays the episodes of a chunk of members."""
        episodes = Episodes(self._spec, self._network, self.sample_actions, self.num_episodes)
        return HostFunction(episodes, batched=True, takes_seed=True, returns_steps=True)

    @property
    def _num_workers(self) -> int:
        return self.num_processes or os.cpu_count() or 1

    @property
    def _spaces(self) -> "Spaces":
        return _spaces(self._spec)

    @property
    def _observation_size(self) -> int:
        return self._spaces.observation_size

    @property
    def _spec(self) -> bytes:
        return _pickled(_Identity(_find_spec(self.environment)), self.make_kwargs, self.max_episode_steps)

    @property
    def _network(self) -> Network:
        return make_network(self.network, self._spaces.num_outputs, hidden=self.hidden, activation=self.activation)


class Episodes(NamedTuple):
    """Plays episodes of a chunk of members: `episodes(seeds, population)` returns fitness and steps, `[num_members]`.

    Attributes:
        spec: The environment's `EnvSpec`, pickled, because its id may not be registered in the worker.
        network: Network from observations to outputs.
        sample_actions: Whether to sample discrete actions.
        num_episodes: Episodes per member.
    """

    spec: bytes
    network: Network
    sample_actions: bool
    num_episodes: int

    @property
    def __name__(self) -> str:
        return f"rl/gymnasium/{pickle.loads(self.spec).id}"

    def host_code(self) -> Any:
        """Returns its identity, including the class or function that makes the environment."""
        spec = pickle.loads(self.spec)
        creator = spec.entry_point
        if isinstance(creator, str):
            creator = importlib.import_module("gymnasium.envs.registration").load_env_creator(creator)
        return (creator, vars(spec), *self[1:])

    def __call__(self, seeds: np.ndarray, population: Any) -> tuple[np.ndarray, np.ndarray]:
        """Plays `num_episodes` episodes per member. A member's seed decides all of its randomness."""
        shape = len(seeds), self.num_episodes
        spaces, policy, envs = _spaces(self.spec), _policy(self), _envs(self.spec, math.prod(shape))
        # [num_members, 1 + num_episodes]: a seed for the actions, then one for each episode's environment.
        children = np.stack([np.random.SeedSequence(int(s)).generate_state(1 + self.num_episodes) for s in seeds])
        observation, _ = envs.reset(seed=[int(s) for s in children[:, 1:].ravel()])
        returns, lengths = np.zeros(math.prod(shape)), np.zeros(math.prod(shape), np.int64)
        alive, step, population = np.ones(math.prod(shape), bool), 0, jax.device_put(population)
        while alive.any():
            inputs = spaces.flatten(observation).reshape(*shape, -1)
            actions = np.asarray(policy(children[:, 0], np.uint32(step), population, inputs))
            observation, reward, terminated, truncated, _ = envs.step(actions.reshape(-1, *actions.shape[2:]))
            returns += reward  # zero after the end of an episode
            lengths += alive
            alive &= ~(terminated | truncated)
            step += 1
        return -returns.reshape(shape).mean(axis=1), lengths.reshape(shape).sum(axis=1)


class Spaces(NamedTuple):
    """The spaces of an environment, and the sizes of the policy's inputs and outputs."""

    observation: Any
    action: Any
    observation_size: int
    num_outputs: int

    def flatten(self, observations: np.ndarray) -> np.ndarray:
        """Returns a batch of observations as vectors, `[num, observation_size]`."""
        if hasattr(self.observation, "n"):
            return np.eye(self.observation_size, dtype=np.float32)[observations - self.observation.start]
        return np.asarray(observations, np.float32).reshape(len(observations), -1)

    def act(self, key: jax.Array | None, outputs: jax.Array) -> jax.Array:
        """Returns the action for one vector of outputs. With a key, samples discrete actions."""
        if hasattr(self.action, "n"):
            choice = jnp.argmax(outputs) if key is None else jax.random.categorical(key, outputs)
            return choice + int(self.action.start)
        low, high = jnp.asarray(self.action.low), jnp.asarray(self.action.high)
        return low + (jnp.tanh(outputs.reshape(self.action.shape)) + 1) / 2 * (high - low)


def _gymnasium() -> Any:
    try:
        return importlib.import_module("gymnasium")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "gymnasium is not installed: pip install es-zoo[gymnasium]", name=error.name
        ) from error


def _find_spec(environment: str) -> Any:
    module, _, id = environment.rpartition(":")
    if module:  # importing it registers the environment
        importlib.import_module(module)
    return _gymnasium().spec(id)


class _Identity:
    """Compares objects that cannot be hashed by identity: an id may be registered again with another spec."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@functools.lru_cache(maxsize=64)
def _pickled(spec: _Identity, make_kwargs: tuple[tuple[str, Any], ...], max_episode_steps: int | None) -> bytes:
    import cloudpickle

    complete = copy.deepcopy(spec.value)
    complete.kwargs.update(make_kwargs)
    complete.max_episode_steps = max_episode_steps or complete.max_episode_steps or _MAX_STEPS
    return cloudpickle.dumps(complete)


@functools.lru_cache(maxsize=64)
def _spaces(pickled_spec: bytes) -> Spaces:
    gymnasium = _gymnasium()
    spec = pickle.loads(pickled_spec)
    env = gymnasium.make(spec)
    observation, action = env.observation_space, env.action_space
    env.close()
    sizes = []
    for kind, space, expected in (
        ("observation", observation, "Box or Discrete"),
        ("action", action, "Discrete or Box"),
    ):
        if not isinstance(space, (gymnasium.spaces.Box, gymnasium.spaces.Discrete)):
            raise ValueError(
                f"rl/gymnasium/{spec.id} is not supported: its {kind} space is {space}, and it must be {expected}. "
                "Choose another environment, or register this one with a wrapper that converts the space."
            )
        sizes.append(int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else math.prod(space.shape))
    if isinstance(action, gymnasium.spaces.Box) and not action.is_bounded():
        raise ValueError(
            f"rl/gymnasium/{spec.id} is not supported: its action space is {action}, and it must have finite bounds. "
            "Choose another environment, or register this one with a wrapper that bounds the actions."
        )
    return Spaces(observation, action, *sizes)


@functools.lru_cache(maxsize=4)  # enough for one problem: chunks, the last chunk, and scores
def _envs(pickled_spec: bytes, num: int) -> Any:
    """Returns `num` environments that step together."""
    gymnasium = _gymnasium()

    class FirstEpisode(gymnasium.Wrapper):
        """Stops after its first episode while other episodes continue, which saves the time of further episodes."""

        last: Any = None  # the result of every later step; `None` during the episode

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            if seed is None and self.last is not None:  # the automatic reset of vector environments
                return self.last[0], {}
            self.last = None
            return self.env.reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            if self.last is not None:
                return self.last
            observation, reward, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                self.last = observation, 0.0, terminated, truncated, {}
            return observation, reward, terminated, truncated, info

    spec = pickle.loads(pickled_spec)
    # Natively vectorised environments take one seed for all, so members of a group could not share seeds.
    return gymnasium.make_vec(spec, num, vectorization_mode="sync", wrappers=[FirstEpisode])


@functools.lru_cache(maxsize=4)
def _policy(episodes: Episodes) -> Any:
    """Returns the compiled policies.

    They map seeds, the step, members and inputs to actions `[num_members, num_episodes, ...]`.
    """
    spaces = _spaces(episodes.spec)

    def act(seed: jax.Array, step: jax.Array, solution: Any, inputs: jax.Array) -> jax.Array:
        outputs = episodes.network.apply(solution, inputs)
        if not episodes.sample_actions:
            return jax.vmap(functools.partial(spaces.act, None))(outputs)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), episodes.num_episodes)
        return jax.vmap(spaces.act)(keys, outputs)

    return jax.jit(jax.vmap(act, in_axes=(0, None, 0, 0)))
