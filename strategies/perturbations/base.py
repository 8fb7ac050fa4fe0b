"""What the forms of a population share: noise, members, and the weighted sums that make an estimate.

A form says how the perturbations of n rows are drawn, and what a member looks like. All members that differ only in the
scale of a row, such as antithetic partners, share the row, which is drawn once for them.
"""

import abc
import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zoo.core import (
    ImplicitPopulation,
    Population,
    PytreeDataclass,
    Solution,
    apply_mask,
    at_least_float32,
    leaf,
    sharding,
    static,
)
from zoo.core.population import map_rows
from zoo.core.promotion import times

_PRECISION = jax.lax.Precision.HIGHEST  # the same as for stacked arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perturbation(abc.ABC):
    """A form of perturbations: how noise is drawn, and how members are made from it.

    Attributes:
        dtype: Dtype of the members, such as `jnp.bfloat16`, in which they are evaluated. The mean and the update keep
            their own dtype. Defaults to the dtype of the mean.
    """

    dtype: Any = None

    def __post_init__(self) -> None:
        """Checks the dtype and makes it hashable."""
        if self.dtype is not None:
            object.__setattr__(self, "dtype", jnp.dtype(self.dtype))
            if not jnp.issubdtype(self.dtype, jnp.floating):
                raise TypeError(f"{type(self).__name__}.dtype must be a floating-point dtype, got {self.dtype}.")

    @abc.abstractmethod
    def draw(self, key: jax.Array, solution: Solution, num_samples: int) -> Any:
        """Returns noise with mean zero and variance one: stacked arrays, or `Noise`."""

    @abc.abstractmethod
    def perturb(self, mean: Solution, sigma: jax.Array, noise: Any, signs: tuple[int, ...] = (1, -1)) -> Population:
        """Returns the population mean + sign * sigma * noise: all rows with the first sign, then all with the next, ...

        Args:
            mean: A solution.
            sigma: A scalar, or one number for each row of noise.
            noise: What `draw` returned.
            signs: 1, -1 or 0, one for each member that shares a row.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImplicitPerturbation(Perturbation):
    """Base of forms that do not store noise as full arrays.

    Attributes:
        max_blocks: How many perturbations of an episode an online strategy (PES) remembers, at least 1; see
            `OnlineStrategy`.
    """

    max_blocks: int = 32

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        object.__setattr__(self, "max_blocks", positive_integer(self.max_blocks, f"{type(self).__name__}.max_blocks"))

    def perturb(self, mean: Solution, sigma: jax.Array, noise: Any, signs: tuple[int, ...] = (1, -1)) -> Population:
        """Returns the population; see `Perturbation.perturb`."""
        scale = jnp.outer(jnp.asarray(signs, sigma.dtype), jnp.broadcast_to(sigma, (noise.num_samples,)))
        return PerturbedPopulation(mean=mean, noise=noise, scale=scale)

    def rows_at_a_time(self, solution: Solution, num_signs: int) -> int | None:
        """Returns the default batch size in rows, or `None` for no limit."""
        return None

    @abc.abstractmethod
    def draw_rows(self, key: jax.Array, solution: Solution, rows: jax.Array) -> "Noise":
        """Returns the noise of the given rows, each drawn with its own key.

        A row is equal to the row of the same number that `draw` returns for the same key.

        Args:
            key: Keys, `[n]`.
            solution: The solution that is perturbed; only its shapes and dtypes are used.
            rows: `[n]` row numbers.
        """

    @abc.abstractmethod
    def sample(self, shared: Any, row: Any, solution: Solution) -> Any:
        """Returns the perturbation of one row in the structure of the solution: arrays, or what `member` takes."""

    @abc.abstractmethod
    def member(self, mean: jax.Array, z: Any, scale: jax.Array, shared: "Shared") -> Any:
        """Returns one leaf of a member: mean + scale * (z + shared perturbations), and zero where the mask is false."""

    @abc.abstractmethod
    def contract(self, noise: "Noise", weights: jax.Array) -> Solution:
        """Returns the weighted sum of the rows, in float32 or higher precision."""

    @abc.abstractmethod
    def inner_product(self, z: Any, direction: jax.Array) -> jax.Array:
        """Returns the inner product of one leaf of a row with an array."""

    def call(self, fn: Callable[..., Any], member: Solution, *args: Any) -> Any:
        """Returns `fn(member, *args)`."""
        return fn(member, *args)


class Shared(NamedTuple):
    """What one leaf of a member consists of besides its own noise."""

    weight: jax.Array | None  # [] factor of the noise
    directions: jax.Array | None  # [*shape, k] directions that all members share
    coordinates: jax.Array | None  # [k] the member's coordinates along the directions
    mask: jax.Array | None  # [*shape] true where the leaf has an entry, false where it is zero


class Noise(PytreeDataclass):
    """n rows of noise, weight_i z_i + sum_j coordinates_ij directions_j, where a form draws z.

    Attributes:
        form: The form that draws z.
        solution: The solution that is perturbed; only its shapes and dtypes are used.
        shared: What the form keeps once for all rows.
        rows: What the form keeps for each row, leaves `[n, ...]`.
        weights: `[n]`. With `None`, every weight is one.
        coordinates: `[n, k]`, or `None` without directions.
        directions: `[k, ...]` in the structure of the solution, or `None`.
    """

    form: Any = static()
    solution: Any = leaf()
    shared: Any = leaf()
    rows: Any = leaf()
    weights: Any = leaf(default=None)
    coordinates: Any = leaf(default=None)
    directions: Any = leaf(default=None)

    @property
    def num_samples(self) -> int:
        """The number of rows."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    def combine(self, weights: jax.Array, coordinates: jax.Array, directions: Solution) -> "Noise":
        """Returns the noise weights_i z_i + sum_j coordinates_ij directions_j, with the z of this noise.

        Args:
            weights: `[n]`, or a scalar.
            coordinates: `[n, k]`.
            directions: `[k, ...]` in the structure of the solution.
        """
        weights = jnp.broadcast_to(weights, (self.num_samples,))
        return self.replace(weights=weights, coordinates=coordinates, directions=directions)

    def tiled(self, repeats: int) -> "Noise":
        """Returns the noise with the list of its rows repeated `repeats` times."""
        mapped = (self.rows, self.weights, self.coordinates)
        mapped = jax.tree.map(lambda x: jnp.concatenate([x] * repeats), mapped)
        rows, weights, coordinates = mapped
        return self.replace(rows=rows, weights=weights, coordinates=coordinates)

    def weighted_sum(self, weights: jax.Array) -> Solution:
        """Returns the sum of the rows times `weights`, `[n]`, in the structure and the dtypes of the solution."""
        own = weights if self.weights is None else times(weights, self.weights)

        def contract(rows: Any, own: jax.Array) -> Solution:
            return self.form.contract(self.replace(rows=rows), own)

        if sharding.num_shards() > 1:
            contract = sharding.on_shards(contract, axes=(0, 0), out_axis=None)
        total = contract(self.rows, own)
        if self.directions is not None:
            along = weights @ self.coordinates.astype(weights.dtype)
            total = jax.tree.map(
                lambda t, d: t + jnp.tensordot(along.astype(t.dtype), d.astype(t.dtype), 1, precision=_PRECISION),
                total,
                self.directions,
            )
        return jax.tree.map(lambda t, x: t.astype(x.dtype), total, self.solution)

    def inner_products(self, directions: Solution) -> jax.Array:
        """Returns the inner products `[n, m]` of the rows with directions, `[m, ...]`, at least in float32."""

        def of_row(row: Any) -> jax.Array:
            z = self.form.sample(self.shared, row, self.solution)
            products = [
                jax.vmap(functools.partial(self.form.inner_product, each))(d) for each, d in self._leaves(z, directions)
            ]
            return sum(products)  # pyright: ignore[reportReturnType]

        def of_rows(rows: Any) -> jax.Array:
            return map_rows(of_row, (rows,), self.form.rows_at_a_time(self.solution, 1))

        if sharding.num_shards() > 1:
            of_rows = sharding.on_shards(of_rows, axes=(0,), out_axis=0)
        products = of_rows(self.rows)
        if self.directions is None:
            return products

        def gram(one: jax.Array, other: jax.Array) -> jax.Array:
            one, other = (x.reshape(x.shape[0], -1).astype(products.dtype) for x in (one, other))
            return jnp.matmul(one, other.T, precision=_PRECISION)

        between = sum(jax.tree.leaves(jax.tree.map(gram, self.directions, directions)))
        return self.weights[:, None] * products + jnp.matmul(self.coordinates, between, precision=_PRECISION)

    def _leaves(self, z: Any, values: Any) -> list[tuple[Any, Any]]:
        structure = jax.tree.structure(self.solution)
        return list(zip(structure.flatten_up_to(z), structure.flatten_up_to(values), strict=True))


class PerturbedPopulation(ImplicitPopulation):
    """The population mean + scale * noise, whose members are made where they are evaluated.

    Attributes:
        mean: The solution that is perturbed.
        noise: n rows.
        scale: `[num_signs, n]`: the factor of a row in each member that shares it. Members are numbered in C order.
        mask: True where the solution has an entry; the others are zero in every member. With `None`, it has all
            entries.
    """

    mean: Any = leaf()
    noise: Noise = leaf()
    scale: Any = leaf()
    mask: Any = leaf(default=None)

    @property
    def size(self) -> int:
        """The number of members."""
        return self.scale.shape[0] * self.scale.shape[1]

    def map(self, fn: Callable[..., Any], *args: Any, batch_size: int | None = None) -> Any:
        """Applies a function to every member; see `zoo.map_members`."""
        # Arguments of members are split over the devices by the members' numbers, which separates antithetic partners.
        # Without such arguments, a row is made on the device that has all members that share it.
        if jax.tree.leaves(args) and sharding.num_shards() > 1 and self.scale.shape[0] > 1:
            return self.one_member_a_row().map(fn, *args, batch_size=batch_size)
        form, (num_signs, num_rows) = self.noise.form, self.scale.shape
        if batch_size is not None and batch_size < num_signs:  # too small for the members that share a row
            return self.one_member_a_row().map(fn, *args, batch_size=batch_size)
        args = jax.tree.map(lambda x: x.reshape(num_signs, num_rows, *x.shape[1:]), args)

        def of_row(row: tuple[Any, ...], scale: jax.Array, *args: Any) -> Any:
            make = self._maker(row)
            return jax.vmap(lambda s, *a: form.call(fn, make(s), *a))(scale, *args)

        def of_rows(rows: tuple[Any, ...], scale: jax.Array, args: tuple[Any, ...]) -> Any:
            at_a_time = form.rows_at_a_time(self.mean, num_signs) if batch_size is None else batch_size // num_signs
            if at_a_time is None or at_a_time >= scale.shape[1]:
                return jax.vmap(of_row, in_axes=(0, *[1] * (1 + len(args))), out_axes=1)(rows, scale, *args)
            first = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (scale, *args))
            results = map_rows(of_row, (rows, *first), at_a_time)
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), results)

        if sharding.num_shards() > 1:
            of_rows = sharding.on_shards(of_rows, axes=(0, 1, 1), out_axis=1)
        results = of_rows((self.noise.rows, self.noise.weights, self.noise.coordinates), self.scale, args)
        return jax.tree.map(lambda x: x.reshape(num_signs * num_rows, *x.shape[2:]), results)

    def member(self, index: Any) -> Solution:
        """Returns one member as a solution; `index` may be traced."""
        rows = (self.noise.rows, self.noise.weights, self.noise.coordinates)
        row = sharding.take(rows, index % self.scale.shape[1])
        member = self._maker(row)(jnp.take(self.scale.reshape(-1), index))
        return jax.tree.map(lambda x, m: x.astype(m.dtype), self.noise.form.call(lambda x: x, member), self.mean)

    def masked(self, mask: Any) -> "PerturbedPopulation":
        """Returns the population with zeros in every member where `mask` is false."""
        both = mask if self.mask is None else jax.tree.map(jnp.logical_and, self.mask, mask)
        return self.replace(mean=apply_mask(mask, self.mean), mask=both)

    def weighted_sum(self, weights: jax.Array) -> Solution:
        """Returns sum_i weights_i (x_i - mean) over the members."""
        per_row = jnp.sum(times(weights.reshape(self.scale.shape), self.scale), axis=0)
        return apply_mask(self.mask, self.noise.weighted_sum(per_row))

    def one_member_a_row(self) -> "PerturbedPopulation":
        """Returns the population with a separate row for each member."""
        return self.replace(noise=self.noise.tiled(self.scale.shape[0]), scale=self.scale.reshape(1, -1))

    def _maker(self, row: tuple[Any, Any, Any]) -> Callable[[jax.Array], Solution]:
        """Returns a function that makes a member from the scale of a row."""
        noise, (sample, weight, coordinates) = self.noise, row
        z = noise.form.sample(noise.shared, sample, noise.solution)
        structure = jax.tree.structure(self.mean)
        columns = [
            structure.flatten_up_to(x) if x is not None else [None] * structure.num_leaves
            for x in (z, noise.directions, self.mask)
        ]

        def make(scale: jax.Array) -> Solution:
            leaves = []
            for mean, each, directions, mask in zip(jax.tree.leaves(self.mean), *columns, strict=True):
                last = None if directions is None else jnp.moveaxis(directions, 0, -1)
                leaves.append(noise.form.member(mean, each, scale, Shared(weight, last, coordinates, mask)))
            return jax.tree.unflatten(structure, leaves)

        return make


def dense_member(mean: jax.Array, z: jax.Array, scale: jax.Array, shared: Shared, dtype: Any) -> jax.Array:
    """Returns one leaf of a member as an array."""
    if shared.weight is not None:
        z = shared.weight.astype(z.dtype) * z
    if shared.directions is not None:
        coordinates = shared.coordinates.astype(z.dtype)  # pyright: ignore[reportOptionalMemberAccess]
        z = z + jnp.matmul(shared.directions, coordinates, precision=_PRECISION)
    member = (mean + scale.astype(mean.dtype) * z.astype(mean.dtype)).astype(dtype or mean.dtype)
    return member if shared.mask is None else jnp.where(shared.mask, member, jnp.zeros((), member.dtype))


def inner_product(one: jax.Array, other: jax.Array) -> jax.Array:
    """Returns the inner product of two arrays, in float32 or higher precision."""
    dtype = at_least_float32(one.dtype)
    return jnp.vdot(one.astype(dtype), other.astype(dtype), precision=_PRECISION)


def positive_integer(value: Any, name: str) -> int:
    """Returns a positive whole number as an integer.

    Raises:
        ValueError: If the value is not a positive whole number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
    return int(value)
