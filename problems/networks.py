"""The networks of the problem suite. Anything with `init(key, inputs)` and `apply(params, inputs)` can replace them."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.core.checks import MAX_COUNT, is_whole, shown
from zoo.core.promotion import common_dtype

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "gelu": nn.gelu,
    "silu": nn.silu,
}


class Network(Protocol):
    """The interface of a network. It must be hashable. Every flax linen module is a network."""

    def init(self, key: Any, inputs: Any, /) -> Any:
        """Returns initial parameters for a batch of inputs."""
        ...

    def apply(self, params: Any, inputs: Any, /) -> Any:
        """Returns the outputs, `[batch, num_outputs]`."""
        ...


@dataclasses.dataclass(frozen=True)
class FunctionNetwork:
    """A network given by two functions of your own.

    Attributes:
        init: `init(key, inputs)` returns initial parameters.
        apply: `apply(params, inputs)` returns `[batch, num_outputs]`.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


class MLP(nn.Module):
    """A multilayer perceptron. Inputs are flattened.

    Attributes:
        features: Units of each layer. The last entry is the number of outputs.
        activation: `"relu"`, `"tanh"`, `"gelu"` or `"silu"`.
    """

    features: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns the outputs, `[batch, features[-1]]`."""
        x = inputs.reshape(inputs.shape[0], -1)
        for features in self.features[:-1]:
            x = _ACTIVATIONS[self.activation](nn.Dense(features)(x))
        return nn.Dense(self.features[-1])(x)


class Linear(nn.Module):
    """A linear map without bias, initially zero. Inputs are flattened.

    Attributes:
        num_outputs: Number of outputs.
    """

    num_outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns the outputs, `[batch, num_outputs]`."""
        x = inputs.reshape(inputs.shape[0], -1)
        return nn.Dense(self.num_outputs, use_bias=False, kernel_init=nn.initializers.zeros)(x)


class CNN(nn.Module):
    """A convolutional network: convolutions with 2 x 2 max pooling, then dense layers.

    Attributes:
        channels: Channels of each convolution.
        num_outputs: Number of outputs.
        kernel_size: Height and width of the kernels.
        hidden: Units of each dense layer before the output layer.
    """

    channels: tuple[int, ...]
    num_outputs: int
    kernel_size: int = 5
    hidden: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Returns the outputs, `[batch, num_outputs]`, for inputs `[batch, height, width, channels]`."""
        x = inputs
        for channels in self.channels:
            x = nn.relu(nn.Conv(channels, (self.kernel_size, self.kernel_size))(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for features in self.hidden:
            x = nn.relu(nn.Dense(features)(x))
        return nn.Dense(self.num_outputs)(x)


def apply_network(network: Network, params: Any, inputs: jax.Array) -> jax.Array:
    """Returns a network's outputs in the dtype of the inputs, computed in half precision if its parameters are."""
    dtype = common_dtype(*jax.tree.leaves(params))
    if jnp.finfo(dtype).bits >= jnp.finfo(inputs.dtype).bits:
        return network.apply(params, inputs)
    return network.apply(params, inputs.astype(dtype)).astype(inputs.dtype)


def make_network(network: str | Network, num_outputs: int, *, hidden: tuple[int, ...], activation: str) -> Network:
    """Returns a network by its name, or the given network.

    Raises:
        ValueError: If the name or the activation is unknown, or a size is not a positive whole number.
        TypeError: If the given network lacks `init` or `apply`.
    """
    if not isinstance(network, str):
        if not (callable(getattr(network, "init", None)) and callable(getattr(network, "apply", None))):
            raise TypeError(
                "network must have init(key, inputs) and apply(params, inputs), like a flax linen module or "
                f"zoo.problems.networks.FunctionNetwork(init, apply). Got {type(network).__name__}."
            )
        return network
    sizes: tuple[Any, ...] = tuple(hidden) if isinstance(hidden, (tuple, list)) else (hidden,)
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {shown(activation)}.")
    if not all(is_whole(size) and 0 < size <= MAX_COUNT for size in sizes):
        raise ValueError(f"hidden must be positive whole numbers, one per layer, got {shown(hidden)}.")
    hidden = tuple(int(size) for size in sizes)
    if network == "mlp":
        return MLP((*hidden, num_outputs), activation)
    if network == "linear":
        return Linear(num_outputs)
    if network == "cnn":
        return CNN(hidden, num_outputs)
    raise ValueError(f"network must be 'mlp', 'linear', 'cnn' or a network of your own, got {network!r}.")
