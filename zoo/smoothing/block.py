"""One call of a smoothed function: the program of `fn`, and its results at perturbed points."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from zoo.core.population import map_members
from zoo.core.promotion import common_dtype
from zoo.smoothing import samplers
from zoo.smoothing.settings import Settings, check_sigma
from zoo.smoothing.subspace import check_subspace, span


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """One call of a smoothed function: the program of `fn` on flat lists of arrays, its settings and its arguments.

    Below, `[*lead]` is `[batch]` if `batched=True`, and `[]` otherwise. Noise has the shape of one example of x, or
    `[k]` in a subspace of k directions.
    """

    settings: Settings
    jaxpr: Any
    out_structure: Any
    outs: list[Any]
    x: list[jax.Array]
    rest: list[Any]  # leaves of args, then the arrays that fn closes over
    num_args: int
    directions: list[jax.Array] | None  # of the subspace, [k, ...]
    size: int | None  # of a batch

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading axes of x and of the results."""
        return () if self.size is None else (self.size,)

    @property
    def dtype(self) -> Any:
        """The dtype of sigma, scores, weights and flat noise: at least single precision."""
        floats = [o.dtype for o in self.outs if jnp.issubdtype(o.dtype, jnp.floating)]
        return common_dtype(jnp.float32, *(leaf.dtype for leaf in self.x), *floats)

    @property
    def is_float(self) -> list[bool]:
        """Which results are floating-point, and so have a gradient."""
        return [jnp.issubdtype(o.dtype, jnp.floating) for o in self.outs]

    def constants(self) -> tuple[list[jax.Array], list[Any], list[jax.Array] | None]:
        """Returns x, the rest and the directions, and stops gradients through them."""
        return jax.lax.stop_gradient((self.x, self.rest, self.directions))

    def traced(self, x: list[jax.Array], rest: list[Any]) -> list[jax.Array]:
        """Returns the results of `fn` as a flat list."""
        args, consts = rest[: self.num_args], rest[self.num_args :]
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, consts))(*x, *args)

    def check_sigma(self, sigma: Any) -> jax.Array:
        """Returns sigma as an array.

        Raises:
            ValueError: If its shape does not fit the call, or it is not positive.
        """
        sigma = jax.lax.stop_gradient(jnp.asarray(check_sigma(sigma), self.dtype))
        if sigma.shape not in ((), self.lead):
            raise ValueError(
                f"zoo.smooth: sigma must be a scalar{' or one per example' if self.lead else ''}, of shape "
                f"{' or '.join(str(s) for s in dict.fromkeys(((), self.lead)))}, got shape {sigma.shape}."
                f"{'' if self.lead else ' For one sigma per example, vmap over it or set batched=True.'}"
            )
        return sigma

    @property
    def num_directions(self) -> int:
        """Number of directions to draw: one per sample, or one per antithetic pair."""
        return self.settings.num_samples // 2 if self.settings.antithetic else self.settings.num_samples

    def keys(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the keys of the noise and of the probes, each `[*lead]`.

        A batch has the same keys as a `vmap` over `jax.random.split(key, batch)`.
        """
        if self.size is None:
            noise_key, probe_key = jax.random.split(key)
            return noise_key, probe_key
        pairs = jax.vmap(jax.random.split)(jax.random.split(key, self.size))
        return pairs[:, 0], pairs[:, 1]

    def draw(self, keys: jax.Array, num: int) -> list[jax.Array]:
        """Returns standard normal noise, each leaf `[num, *lead, ...]`."""
        if self.directions is not None:
            space = [jax.ShapeDtypeStruct((self.directions[0].shape[0],), self.dtype)]
        else:
            space = [
                jax.ShapeDtypeStruct(leaf.shape[len(self.lead) :], common_dtype(leaf.dtype, jnp.float32))
                for leaf in self.x
            ]
        draw = functools.partial(samplers.draw, sampler=self.settings.sampler, space=space, num=num)
        return draw(keys) if self.size is None else jax.vmap(draw, out_axes=1)(keys)

    def both_signs(self, noise: list[jax.Array]) -> list[jax.Array]:
        """Returns the noise of all samples, each leaf `[num_samples, *lead, ...]`.

        With pairs, the first half has plus signs and the second half has minus signs.
        """
        return [jnp.concatenate([z, -z]) for z in noise] if self.settings.antithetic else noise

    def evaluate(self, reduce: Callable[[Any], Any], sigma: Any, basis: Any, noise: Any, x: Any, rest: Any) -> Any:
        """Returns `reduce(results of fn)` at x + sigma * noise, stacked over the samples."""

        def one(z: list[jax.Array]) -> Any:
            shifted = [
                (leaf.astype(eps.dtype) + expand(sigma, leaf).astype(eps.dtype) * eps).astype(leaf.dtype)
                for leaf, eps in zip(x, span(z, basis), strict=True)
            ]
            return reduce(self.traced(shifted, rest))

        return map_members(one, noise, batch_size=self.settings.batch_size)

    def floats(self, results: list[Any]) -> list[Any]:
        """Returns those results of the block that are floating-point arrays, in their order."""
        return [r for r, is_float in zip(results, self.is_float, strict=True) if is_float]

    def trailing(self, leaf: jax.Array) -> tuple[int, ...]:
        """Returns the axes after the leading axes."""
        return tuple(range(len(self.lead), leaf.ndim))


def make_block(settings: Settings, x: Any, args: tuple[Any, ...]) -> Block:
    """Returns the block of a call.

    Raises:
        TypeError: If x is not floating-point, or `fn` returns complex numbers or no floating-point array.
        ValueError: If x is empty, or x, the results or the subspace have wrong shapes.
    """
    x = _check_x(x)
    args = jax.tree.map(lambda a: a if hasattr(a, "dtype") else jnp.asarray(a), args)
    # fn is traced once, here: it may close over tracers, which a custom derivative must get as arguments.
    closed, out = jax.make_jaxpr(settings.fn, return_shape=True)(x, *args)
    outs, out_structure = jax.tree.flatten(out)
    if any(jnp.issubdtype(o.dtype, jnp.complexfloating) for o in outs):
        raise TypeError("zoo.smooth: fn must return real numbers, not complex ones. Return real and imaginary part.")
    if not any(jnp.issubdtype(o.dtype, jnp.floating) for o in outs):
        raise TypeError(
            "zoo.smooth: at least one result of fn must be floating-point to have a gradient, got dtypes "
            f"{[str(o.dtype) for o in outs]}. Cast it (fn(x).astype(float)), or wrap block and loss together: "
            "zoo.smooth(lambda x, *args: loss(fn(x, *args)), ...)."
        )
    leaves, structure = jax.tree.flatten(x)
    size = None
    if settings.batched:
        sizes = {leaf.shape[:1] for leaf in leaves}
        if len(sizes) != 1 or () in sizes:
            raise ValueError(
                "zoo.smooth(batched=True): all leaves of x need the same leading axis of examples, got shapes "
                f"{[leaf.shape for leaf in leaves]}. Pass values that all examples share in args."
            )
        ((size,),) = sizes
        if any(o.shape[:1] != (size,) for o in outs):
            raise ValueError(
                f"zoo.smooth(batched=True): every result of fn needs a leading axis of {size} examples, got shapes "
                f"{[o.shape for o in outs]}. Return one loss per example, or use batched=False for a scalar loss over "
                "the batch, which has about batch-size times the variance."
            )
    return Block(
        settings=settings,
        jaxpr=closed.jaxpr,
        out_structure=out_structure,
        outs=outs,
        x=leaves,
        rest=[*jax.tree.leaves(args), *closed.consts],
        num_args=len(jax.tree.leaves(args)),
        directions=check_subspace(settings.subspace, structure, leaves, size),
        size=size,
    )


def _check_x(x: Any) -> Any:
    """Returns x as JAX arrays.

    Raises:
        TypeError: If a leaf is not floating-point.
        ValueError: If x has no entries.
    """
    leaves = jax.tree_util.tree_leaves_with_path(x)
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", type(leaf))
        if dtype is not float and not (hasattr(leaf, "dtype") and jnp.issubdtype(dtype, jnp.floating)):
            raise TypeError(
                "zoo.smooth: x must be a pytree of floating-point arrays, but "
                f"x{jax.tree_util.keystr(path)} is {getattr(dtype, '__name__', dtype)}. Pass what is not perturbed in "
                "args: soft(key, x, *args)."
            )
    if sum(np.size(leaf) for _, leaf in leaves) == 0:
        raise ValueError(
            f"zoo.smooth: x must have at least one entry, got shapes {[np.shape(leaf) for _, leaf in leaves]}. Pass "
            "the values to perturb as the first argument after the key."
        )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jax.dtypes.canonicalize_dtype(jnp.result_type(leaf))), x)


def expand(values: jax.Array, like: jax.Array) -> jax.Array:
    """Appends axes until `values` has as many axes as `like`. Scalars stay scalars."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values
