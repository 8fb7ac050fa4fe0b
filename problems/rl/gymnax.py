"""Control of any registered gymnax environment (Lange 2022, https://github.com/RobertTLange/gymnax)."""

import functools
import math
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp

from zoo.core import Solution, UnrolledProblem, leaf, static
from zoo.core.checks import shown
from zoo.core.promotion import promotion_of_others
from zoo.core.settings import is_rebuilt
from zoo.problems.networks import Network, apply_network, make_network
from zoo.problems.rl.deferred import deferred_imports
from zoo.problems.rl.normalizer import Moments, Normalizer
from zoo.problems.rl.policy import PolicyProblem

# These imports take longer than all other imports of gymnax together.
with deferred_imports("matplotlib", "matplotlib.colors", "matplotlib.pyplot", "seaborn"):
    import gymnax
    from gymnax.environments import spaces


class GymnaxInner(NamedTuple):
    """Inner state: `num_episodes` environments side by side."""

    state: Any  # the environments' states, [num_episodes, ...]
    observation: jax.Array  # [num_episodes, observation_size]
    alive: jax.Array  # [num_episodes] whether the episode has not ended
    moments: Any  # `Moments` of the observations since the statistics were last pooled, or ()


class GymnaxProblem(PolicyProblem, UnrolledProblem):
    """A gymnax environment controlled by a network. Fitness is the negative undiscounted return.

    Discrete actions are the argmax of the network's outputs, or are sampled from their softmax. Continuous actions are
    the outputs, squashed by tanh into the action space.

    Attributes:
        environment: Id of a registered gymnax environment, for example `"CartPole-v1"`.
        env_params: Parameters of the environment. Default to the environment's own. They are leaves, so they can be
            swept.
        network: `"mlp"`, `"linear"` (no bias, initially zero), or a network of your own from `[batch,
            observation_size]` to `[batch, num_outputs]`.
        hidden: Units of each hidden layer.
        activation: Activation of the network: `"relu"`, `"tanh"`, `"gelu"` or `"silu"`.
        sample_actions: Samples discrete actions from the softmax of the outputs instead of taking the argmax.
        normalize_observations: Subtracts the running mean of observations and divides by their running standard
            deviation, over all members and steps of the run. The statistics are part of the problem state.
        num_episodes: Episodes per evaluation. Fitness is their mean.
        normalizer: Observation statistics to use. A run keeps its own.
    """

    environment: str = static()
    env_params: Any = leaf(default=None)
    network: str | Network = static(default="mlp")
    hidden: tuple[int, ...] = static(default=(32,))
    activation: str = static(default="tanh")
    sample_actions: bool = static(default=False)
    normalize_observations: bool = static(default=False)
    num_episodes: int = static(default=1, at_least=1)
    normalizer: Normalizer | None = leaf(default=None)
    horizon: int | None = static(default=None, at_least=1)
    objective: Literal["mean", "sum"] = static(default="sum")

    def __post_init__(self) -> None:
        """Checks that the spaces are supported, and fills in the horizon."""
        made = _make(self.environment)
        if not (self.env_params is None or is_rebuilt() or isinstance(self.env_params, type(made.params))):
            raise TypeError(
                f"GymnaxProblem.env_params must be None or gymnax's {type(made.params).__name__} for this environment, "
                f"got {shown(self.env_params)}."
            )
        if self.horizon is None:
            given = getattr(self.env_params, "max_steps_in_episode", None)
            horizon = given if isinstance(given, int) else made.params.max_steps_in_episode
            object.__setattr__(self, "horizon", int(horizon))
        super().__post_init__()
        make_network(self.network, made.num_outputs, hidden=self.hidden, activation=self.activation)

    @staticmethod
    def names() -> list[str]:
        """Returns the ids of the registered environments."""
        return list(gymnax.registered_envs)

    @property
    def differentiable(self) -> bool:
        """False: gymnax stops gradients, and a window that may end early has no reverse mode."""
        return False

    def reset(self, key: jax.Array) -> GymnaxInner:
        """Resets the environments."""
        keys = jax.random.split(key, self.num_episodes)
        with promotion_of_others():
            observation, state = jax.vmap(self._environment.reset_env, in_axes=(0, None))(keys, self._params)
        moments = ()
        if self.normalize_observations:
            moments = Moments.zeros(self._observation_size)
        alive = jnp.ones(self.num_episodes, bool)
        return GymnaxInner(state, jax.vmap(self._flatten)(observation), alive, moments)

    def step(self, key: jax.Array, solution: Solution, inner: GymnaxInner) -> tuple[GymnaxInner, jax.Array, jax.Array]:
        """Takes one step in every environment whose episode has not ended."""
        observation, moments = inner.observation, inner.moments
        if self.normalize_observations:
            normalizer = Normalizer.identity(self._observation_size) if self.normalizer is None else self.normalizer
            observation = normalizer.normalize(observation)
            moments = moments.add(inner.observation - normalizer.mean[None], inner.alive)
        outputs = apply_network(self._network, solution, observation)

        def step_one(key: jax.Array, outputs: jax.Array, state: Any) -> tuple[Any, ...]:
            key_action, key_step = jax.random.split(key)
            action = self._action(key_action, outputs)
            with promotion_of_others():  # environments multiply integer actions by floats
                new_observation, new_state, reward, terminated, _ = self._environment.step_env(
                    key_step, state, action, self._params
                )
                truncated = self._environment.is_truncated(new_state, self._params)
            ended = jnp.logical_or(terminated, truncated)
            return new_state, self._flatten(new_observation), jnp.asarray(reward, outputs.dtype), ended

        keys = jax.random.split(key, self.num_episodes)
        state, observation, reward, ended = jax.vmap(step_one)(keys, outputs, inner.state)
        loss = -jnp.mean(jnp.where(inner.alive, reward.reshape(self.num_episodes), 0))
        alive = inner.alive & ~ended.reshape(self.num_episodes)
        state, observation = _freeze(inner.alive, (state, observation), (inner.state, inner.observation))
        new_inner = GymnaxInner(state, observation, alive, moments)
        return new_inner, loss, ~jnp.any(alive)

    def step_cost(self, inner: GymnaxInner) -> jax.Array | int:
        """Returns the number of environments that take this step."""
        return 1 if self.num_episodes == 1 else jnp.sum(inner.alive)

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns the mean undiscounted return and the mean length of held-out episodes."""
        problem = self.replace(num_episodes=1)

        def episode(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            end = problem.rollout(key, solution)
            return -end.loss, end.steps

        returns, lengths = jax.vmap(episode)(jax.random.split(key, self.num_score_episodes))
        return {"return": jnp.mean(returns), "episode_length": jnp.mean(lengths.astype(returns.dtype))}

    def init_statistics(self) -> Normalizer | tuple[()]:
        """Returns empty observation statistics, if observations are normalised."""
        return Normalizer.identity(self._observation_size) if self.normalize_observations else ()

    def with_statistics(self, statistics: Normalizer | tuple[()]) -> Self:
        """Returns the problem with the given observation statistics."""
        return self.replace(normalizer=statistics) if self.normalize_observations else self

    def pool_statistics(self, statistics: Any, inner: GymnaxInner) -> tuple[Any, GymnaxInner]:
        """Adds the members' observations to the statistics."""
        if not self.normalize_observations:
            return statistics, inner
        pooled = jax.tree.map(lambda x: jnp.sum(x, axis=0), inner.moments)
        return statistics.add(pooled), inner._replace(moments=jax.tree.map(jnp.zeros_like, inner.moments))

    def _action(self, key: jax.Array, outputs: jax.Array) -> jax.Array:
        space = self._environment.action_space(self._params)
        if isinstance(space, spaces.Discrete):
            choice = jax.random.categorical(key, outputs) if self.sample_actions else jnp.argmax(outputs)
            return choice.astype(space.dtype)
        low, high = jnp.broadcast_to(space.low, space.shape), jnp.broadcast_to(space.high, space.shape)
        squashed = low + (jnp.tanh(outputs.reshape(space.shape)) + 1) / 2 * (high - low)
        return squashed.astype(space.dtype)

    def _flatten(self, observation: jax.Array) -> jax.Array:
        space = self._environment.observation_space(self._params)
        if isinstance(space, spaces.Discrete):
            return jax.nn.one_hot(observation, space.n)
        return jnp.asarray(observation, float).reshape(-1)

    @property
    def _environment(self) -> Any:
        return _make(self.environment).environment

    @property
    def _params(self) -> Any:
        return _make(self.environment).params if self.env_params is None else self.env_params

    @property
    def _observation_size(self) -> int:
        return _make(self.environment).observation_size

    @property
    def _network(self) -> Network:
        num_outputs = _make(self.environment).num_outputs
        return make_network(self.network, num_outputs, hidden=self.hidden, activation=self.activation)


class _Made(NamedTuple):
    environment: Any
    params: Any
    observation_size: int
    num_outputs: int


@functools.cache
def _make(id: str) -> _Made:
    # The cached arrays must not be tracers of the caller's trace.
    with jax.ensure_compile_time_eval(), promotion_of_others():
        environment, params = gymnax.make(id)
        return _Made(
            environment,
            params,
            _observation_size(environment.observation_space(params), id),
            _num_outputs(environment.action_space(params), id),
        )


def _observation_size(space: spaces.Space, environment: str) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box):
        return math.prod(space.shape)
    raise ValueError(
        f"rl/{environment} has the observation space {space}, which is not supported; expected Box or Discrete."
    )


def _num_outputs(space: spaces.Space, environment: str) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box):
        if not bool(jnp.all(jnp.isfinite(jnp.asarray(space.low)) & jnp.isfinite(jnp.asarray(space.high)))):
            raise ValueError(f"rl/{environment} has the unbounded action space {space}; expected finite bounds.")
        return math.prod(space.shape)
    raise ValueError(
        f"rl/{environment} has the action space {space}, which is not supported; expected Discrete or Box."
    )


def _freeze(alive: jax.Array, new: Any, old: Any) -> Any:
    """Keeps the old state of episodes that ended, and the old dtypes: some environments change a dtype in a step."""

    def select(new: jax.Array, old: jax.Array) -> jax.Array:
        mask = alive.reshape(alive.shape + (1,) * (old.ndim - 1))
        return jnp.where(mask, new.astype(old.dtype), old)

    return jax.tree.map(select, new, old)
