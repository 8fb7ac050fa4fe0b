"""Running normalisation of observations (Salimans et al. 2017, arXiv 1703.03864; merging as in Chan et al. 1983)."""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

_CLIP = 10.0


class Moments(NamedTuple):
    """Sums over observations, relative to a reference point to avoid cancellation."""

    num: jax.Array  # []
    total: jax.Array  # [observation_size] sum of deviations
    squares: jax.Array  # [observation_size] sum of squared deviations

    @classmethod
    def zeros(cls, size: int) -> Self:
        """Returns the moments of zero observations."""
        return cls(jnp.zeros(()), jnp.zeros(size), jnp.zeros(size))

    def add(self, deviations: jax.Array, mask: jax.Array) -> Self:
        """Adds the rows of `deviations`, `[num, size]`, where `mask` is true."""
        kept = jnp.where(mask[:, None], deviations, 0)
        return type(self)(
            self.num + jnp.sum(mask).astype(self.num.dtype),
            self.total + jnp.sum(kept, axis=0),
            self.squares + jnp.sum(jnp.square(kept), axis=0),
        )


class Normalizer(NamedTuple):
    """Mean and variance of all observations of a run."""

    num: jax.Array  # []
    mean: jax.Array  # [observation_size]
    variance: jax.Array  # [observation_size]

    @classmethod
    def identity(cls, size: int) -> Self:
        """Returns the normaliser that changes nothing."""
        return cls(jnp.zeros(()), jnp.zeros(size), jnp.ones(size))

    def normalize(self, observation: jax.Array) -> jax.Array:
        """Returns the observation in standard deviations from the mean, clipped to ±10."""
        mean, std = (jnp.broadcast_to(x, observation.shape) for x in (self.mean, jnp.sqrt(self.variance + 1e-8)))
        return jnp.clip((observation - mean) / std, -_CLIP, _CLIP)

    def add(self, moments: Moments) -> Self:
        """Returns the statistics after adding moments, which must be relative to the current mean."""
        count = self.num + moments.num
        safe = jnp.maximum(count, 1)
        shift = moments.total / safe  # shift of the mean
        # The squared deviations are from the old mean. Subtracting shift^2 moves them to the new mean.
        squares = jnp.where(self.num > 1, self.num * self.variance, 0) + moments.squares
        variance = jnp.maximum(squares / safe - jnp.square(shift), 0)
        return type(self)(count, self.mean + shift, jnp.where(count > 1, variance, self.variance))
