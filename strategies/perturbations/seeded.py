"""Seeded noise: only keys are stored. Noise is drawn where a member is evaluated, and drawn again for the update.

References: Salimans, Ho, Chen, Sidor, Sutskever 2017, arXiv 1703.03864 (noise is sent as its seed); Qiu et al. 2025,
arXiv 2509.24372 (members are made one after another, each from its seed).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import Solution, at_least_float32, num_dims
from zoo.core.noise import KeyWords, normal_rows, row_numbers
from zoo.strategies.batching import any_in_batch
from zoo.strategies.perturbations.base import ImplicitPerturbation, Noise, Shared, dense_member, inner_product

# How many numbers a batch of members may hold: about 64 MB in float32.
_MANY_NUMBERS = 2**24


class Seed(NamedTuple):
    """Where a row of noise comes from."""

    row: jax.Array  # [n] row number
    key: jax.Array | None  # [n] the row's own key, as words; None: all rows have the same key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeded(ImplicitPerturbation):
    """The Gaussian perturbations of `Dense`, number for number, but only keys are stored.

    Members are made in batches. `map_members(..., batch_size=)` sets their size. By default a batch takes about 64 MB,
    and holds at least the members that share a row of noise. The noise of a population is drawn twice: once to evaluate
    the members, once for the update. Keys must be threefry keys, which is JAX's default.
    """

    def draw(self, key: jax.Array, solution: Solution, num_samples: int) -> Noise:
        """Returns standard normal noise."""
        shared = KeyWords.of_threefry(key)
        return Noise(form=self, solution=solution, shared=shared, rows=Seed(row_numbers(num_samples), None))

    def draw_rows(self, key: jax.Array, solution: Solution, rows: jax.Array) -> Noise:
        """Returns the noise of the given rows, each drawn with its own key."""
        words = KeyWords.of_threefry(key)
        return Noise(form=self, solution=solution, shared=words.replace(words=None), rows=Seed(rows, words.words))

    def rows_at_a_time(self, solution: Solution, num_signs: int) -> int:
        """Returns the number of rows whose members take about 64 MB, at least one."""
        return max(1, _MANY_NUMBERS // ((num_signs + 1) * num_dims(solution)))

    def sample(self, shared: Any, row: Seed, solution: Solution) -> Solution:
        """Returns the noise of one row."""
        key = (shared if row.key is None else shared.replace(words=row.key)).key
        return jax.tree.map(lambda z: z[0], normal_rows(key, solution, row.row[None]))

    def member(self, mean: jax.Array, z: jax.Array, scale: jax.Array, shared: Shared) -> jax.Array:
        """Returns one leaf of a member."""
        return dense_member(mean, z, scale, shared, self.dtype)

    def contract(self, noise: Noise, weights: jax.Array) -> Solution:
        """Returns the weighted sum of the rows, which are drawn in batches."""
        return _sum_rows(noise, weights)

    def inner_product(self, z: jax.Array, direction: jax.Array) -> jax.Array:
        """Returns the inner product of two arrays."""
        return inner_product(z, direction)


@jax.jit  # or a loop without jit would compile it in every call
def _sum_rows(noise: Noise, weights: jax.Array) -> Solution:
    num_rows = noise.num_samples
    at_a_time = min(num_rows, max(1, _MANY_NUMBERS // (8 * num_dims(noise.solution))))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, at_least_float32(x.dtype)), noise.solution)

    def sample(row: Seed) -> Solution:
        return noise.form.sample(noise.shared, row, noise.solution)

    def add(total: Solution, rows: Seed, weights: jax.Array) -> Solution:
        if at_a_time == 1:
            z = sample(jax.tree.map(lambda x: x[0], rows))
            return jax.tree.map(lambda t, z: t + weights[0].astype(t.dtype) * z.astype(t.dtype), total, z)
        z = jax.vmap(sample)(rows)
        return jax.tree.map(lambda t, z: t + jnp.tensordot(weights.astype(t.dtype), z.astype(t.dtype), 1), total, z)

    def step(i: jax.Array, total: Solution) -> Solution:
        rows, chosen = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, i * at_a_time, at_a_time), (noise.rows, weights)
        )
        if noise.rows.key is None:
            return add(total, rows, chosen)
        # A pair whose episode has just begun gives its earlier perturbations no weight. A batch without any weight is
        # not drawn.
        return jax.lax.cond(any_in_batch(jnp.any(chosen != 0)), lambda: add(total, rows, chosen), lambda: total)

    num_steps, rest = divmod(num_rows, at_a_time)
    total = jax.lax.fori_loop(0, num_steps, step, zeros)
    if rest:
        total = add(total, *jax.tree.map(lambda x: x[-rest:], (noise.rows, weights)))
    return total
