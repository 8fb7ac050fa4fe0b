"""What the forms of a population share: noise, members, and the sums over them that an estimate is made of.

A form says how the perturbations of n rows come about, and what a member looks like. A row serves all members that
differ in its scale alone, such as antithetic partners, and is made once for them.
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

_PRECISION = jax.lax.Precision.HIGHEST  # as for stacked arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perturbation(abc.ABC):
    """A form of perturbations.

    Attributes:
        dtype: Of the members, such as `jnp.bfloat16`, in which they are then evaluated; mean and update keep their own.
            Default: that of the mean.
    """

    dtype: Any = None

    def __post_init__(self) -> None:
        """Checks the dtype, and makes it hashable."""
        if self.dtype is not None:
            object.__setattr__(self, "dtype", jnp.dtype(self.dtype))
            if not jnp.issubdtype(self.dtype, jnp.floating):
                raise TypeError(f"{type(self).__name__}.dtype must be a floating-point dtype, got {self.dtype}.")

    @abc.abstractmethod
    def draw(self, key: jax.Array, solution: Solution, num_samples: int) -> Any:
        """Returns noise of mean zero and variance one: stacked arrays, or `Noise`."""

    @abc.abstractmethod
    def perturb(self, mean: Solution, sigma: jax.Array, noise: Any, signs: tuple[int, ...] = (1, -1)) -> Population:
        """Returns the population mean + sign * sigma * noise: all rows with the first sign, then with the next, ...

        Args:
            mean: A solution.
            sigma: Scalar, or one for each row of noise.
            noise: What `draw` returned.
            signs: 1, -1 or 0.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImplicitPerturbation(Perturbation):
    """Base of forms whose noise is not stacked arrays.

    Attributes:
        max_blocks: How many perturbations of an episode an online strategy (PES) remembers; see `OnlineStrategy`.
    """

    max_blocks: int = 32

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        object.__setattr__(self, "max_blocks", positive_integer(self.max_blocks, f"{type(self).__name__}.max_blocks"))

    def perturb(self, mean: Solution, sigma: jax.Array, noise: Any, signs: tuple[int, ...] = (1, -1)) -> Population:
        """Returns the population; see `Perturbation`."""
        scale = jnp.outer(jnp.asarray(signs, sigma.dtype), jnp.broadcast_to(sigma, (noise.num_samples,)))
        return PerturbedPopulation(mean=mean, noise=noise, scale=scale)

    def rows_at_a_time(self, solution: Solution, num_signs: int) -> int | None:
        """Returns how many rows may be made at a time, if nobody says how many; `None`: all."""
        return None

    @abc.abstractmethod
    def draw_rows(self, key: jax.Array, solution: Solution, rows: jax.Array) -> "Noise":
        """Returns the noise of some rows, a key for each; what `draw` returns with that key in the same row.

        Args:
            key: Keys, `[n]`.
            solution: What is perturbed; of which only shapes and dtypes are used.
            rows: `[n]` their numbers.
        """

    @abc.abstractmethod
    def sample(self, shared: Any, row: Any, solution: Solution) -> Any:
        """Returns the perturbation of one row, in the structure of the solution: arrays, or what `member` takes."""

    @abc.abstractmethod
    def member(self, mean: jax.Array, z: Any, scale: jax.Array, shared: "Shared") -> Any:
        """Returns one leaf of a member: mean + scale * (z + shared perturbations), where the mask keeps it."""

    @abc.abstractmethod
    def contract(self, noise: "Noise", weights: jax.Array) -> Solution:
        """Returns the weighted sum of the rows, at least in float32."""

    @abc.abstractmethod
    def inner_product(self, z: Any, direction: jax.Array) -> jax.Array:
        """Returns the inner product of one leaf of a row and an array."""

    def call(self, fn: Callable[..., Any], member: Solution, *args: Any) -> Any:
        """Returns `fn(member, *args)`."""
        return fn(member, *args)


class Shared(NamedTuple):
    """What goes into one leaf of a member besides its own noise."""

    weight: jax.Array | None  # [] by which the noise is multiplied
    directions: jax.Array | None  # [*shape, k] that all members share
    coordinates: jax.Array | None  # [k] how much of them
    mask: jax.Array | None  # [*shape] what there is


class Noise(PytreeDataclass):
    """n rows of noise: weight_i z_i + sum_j coordinates_ij directions_j, of which z is drawn by a form.

    Attributes:
        form: The form.
        solution: What is perturbed; of which only shapes and dtypes are used.
        shared: What the form keeps for all rows.
        rows: What it keeps for each, leaves `[n, ...]`.
        weights: `[n]`, or `None`: one.
        coordinates: `[n, k]`, or `None`.
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
        """Returns weights_i z_i + sum_j coordinates_ij directions_j.

        Args:
            weights: `[n]`, or a scalar.
            coordinates: `[n, k]`.
            directions: `[k, ...]` in the structure of the solution.
        """
        weights = jnp.broadcast_to(weights, (self.num_samples,))
        return self.replace(weights=weights, coordinates=coordinates, directions=directions)

    def tiled(self, repeats: int) -> "Noise":
        """Returns the rows over and over again."""
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
    """The population mean + scale * noise, of members that are made where they are evaluated.

    Attributes:
        mean: The solution that is perturbed.
        noise: n rows.
        scale: `[num_signs, n]` by what a row is multiplied in each member that shares it, the members in C order.
        mask: What there is of the solution, or `None`: all.
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
        # What the members bring along is split over the devices as they are counted, partners apart; without it, a row
        # is made where all members are that share it.
        if jax.tree.leaves(args) and sharding.num_shards() > 1 and self.scale.shape[0] > 1:
            return self.one_member_a_row().map(fn, *args, batch_size=batch_size)
        form, (num_signs, num_rows) = self.noise.form, self.scale.shape
        if batch_size is not None and batch_size < num_signs:  # not even those that share a row
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
        """Returns the population with zeros in every member where a mask is false."""
        both = mask if self.mask is None else jax.tree.map(jnp.logical_and, self.mask, mask)
        return self.replace(mean=apply_mask(mask, self.mean), mask=both)

    def weighted_sum(self, weights: jax.Array) -> Solution:
        """Returns sum_i weights_i (x_i - mean) over the members."""
        per_row = jnp.sum(times(weights.reshape(self.scale.shape), self.scale), axis=0)
        return apply_mask(self.mask, self.noise.weighted_sum(per_row))

    def one_member_a_row(self) -> "PerturbedPopulation":
        """Returns the population with a row of its own for each member."""
        return self.replace(noise=self.noise.tiled(self.scale.shape[0]), scale=self.scale.reshape(1, -1))

    def _maker(self, row: tuple[Any, Any, Any]) -> Callable[[jax.Array], Solution]:
        """Returns a function from the scale of a row to the member."""
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
    """Returns the inner product of two arrays, at least in float32."""
    dtype = at_least_float32(one.dtype)
    return jnp.vdot(one.astype(dtype), other.astype(dtype), precision=_PRECISION)


def positive_integer(value: Any, name: str) -> int:
    """Returns a whole number as an integer, or a `ValueError` if it is none or not positive."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
    return int(value)
