"""A learned optimizer: a small network that computes the updates of another network's parameters.

Reference: Metz, Maheswaranathan, Nixon, Freeman, Sohl-Dickstein 2019, "Understanding and correcting pathologies in
the training of learned optimizers", arXiv 1810.10180; constants as in Li et al. 2023, arXiv 2304.12180
and its authors' code.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.core import Solution, leaf, number, static
from zoo.core.promotion import promotion_of_others
from zoo.problems.unrolled.inner_training import InnerTraining, InnerTrainingState

_EPSILON = 1e-5  # as in the authors' mlp_lopt.py; it damps features of small gradients


class OptimizerNetwork(nn.Module):
    """The optimizer's network. It is applied to every parameter of the inner model separately.

    Attributes:
        hidden: Units of each hidden layer.
    """

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, features: jax.Array, time_features: jax.Array) -> jax.Array:
        """Returns a direction and a log magnitude per parameter, `[num_params, 2]`.

        Args:
            features: Features of each parameter, `[num_params, num_features]`.
            time_features: Features of the time, the same for all parameters, `[num_time_features]`.
        """
        with promotion_of_others():  # flax promotes features and parameters of different precision
            # Equals one dense layer over both, without repeating the time features for every parameter.
            x = nn.Dense(self.hidden[0])(features) + nn.Dense(self.hidden[0], use_bias=False)(time_features)[None]
            for size in self.hidden[1:]:
                x = nn.Dense(size)(nn.relu(x))
            return nn.Dense(2)(nn.relu(x))


class LearnedOptimizer(InnerTraining):
    """Learned optimizer: a per-parameter MLP that is meta-trained to lower held-out loss in an inner training run.

    The inputs of the network for a parameter p are its gradient, its value, its momenta and the time. All but the time
    are divided by their root mean square over the tensor, sqrt(1e-5 + mean of squares). With outputs d and m, the
    update is p <- p - step_size * d * exp(magnitude_scale * m).

    Attributes:
        optimizer_hidden: Units of each hidden layer of the optimizer's network.
        momenta: Decay rates of the momenta.
        time_scales: Time scales tau of the time features tanh(t / tau - 1), in inner steps.
        step_size: Factor of the whole update.
        magnitude_scale: Factor of the log magnitude m.
    """

    horizon: int | None = static(default=1000, at_least=1)
    window: int | None = static(default=1, at_least=1)
    hidden: tuple[int, ...] = static(default=(32, 32, 32), at_least=1)
    activation: str = static(default="gelu")
    held_out: float = number(default=0.2, at_least=0)
    optimizer_hidden: tuple[int, ...] = static(default=(32, 32), at_least=1)
    momenta: tuple[float, ...] = leaf(default=(0.1, 0.5, 0.9, 0.99, 0.999, 0.9999))
    time_scales: tuple[float, ...] = leaf(default=(1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5))
    step_size: float = number(default=0.001, above=0)
    magnitude_scale: float = number(default=0.001, at_least=0)

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """The paper's settings for NRES."""
        return {"sigma": 0.01, "learning_rate": 3e-4}

    @property
    def suggested_num_steps(self) -> int:
        """Two hundred full training runs."""
        return 200 * (self.horizon or 1000)

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the network's initial parameters."""
        num_features = 2 + len(self.momenta)
        return self._network.init(key, jnp.zeros((1, num_features)), jnp.zeros(len(self.time_scales)))

    def init_optimizer(self, params: Any) -> Any:
        """Returns zero momenta, each leaf `[num_momenta, *leaf.shape]`."""
        return jax.tree.map(lambda p: jnp.zeros((len(self.momenta), *p.shape), p.dtype), params)

    def update(self, solution: Solution, gradient: Any, state: InnerTrainingState) -> tuple[Any, Any]:
        """Applies the network to every parameter."""
        leaves, structure = jax.tree.flatten(state.params)
        gradients, momenta = jax.tree.leaves(gradient), jax.tree.leaves(state.optimizer_state)
        decay = jnp.asarray(self.momenta, leaves[0].dtype)
        momenta = [
            jax.vmap(lambda d, m, g=g: d * m + (1 - d) * g)(decay, m) for m, g in zip(momenta, gradients, strict=True)
        ]
        features = [
            _normalize(jnp.concatenate([jnp.stack([g, p]), m]))
            for g, p, m in zip(gradients, leaves, momenta, strict=True)
        ]
        time = jnp.tanh(state.time.astype(decay.dtype) / jnp.asarray(self.time_scales, decay.dtype) - 1)
        outputs: Any = self._network.apply(solution, jnp.concatenate(features), time)
        direction, magnitude = outputs.T
        updates = self.step_size * direction * jnp.exp(self.magnitude_scale * magnitude)
        new, position = [], 0
        for leaf_ in leaves:
            new.append(leaf_ - updates[position : position + leaf_.size].reshape(leaf_.shape))
            position += leaf_.size
        return jax.tree.unflatten(structure, new), jax.tree.unflatten(structure, momenta)

    @property
    def _network(self) -> OptimizerNetwork:
        return OptimizerNetwork(self.optimizer_hidden)


def _normalize(features: jax.Array) -> jax.Array:
    """Divides each feature `[num_features, *shape]` by its root mean square. Returns `[size, num_features]`."""
    flat = features.reshape(features.shape[0], -1)
    return (flat * jax.lax.rsqrt(jnp.mean(jnp.square(flat), axis=1, keepdims=True) + _EPSILON)).T
