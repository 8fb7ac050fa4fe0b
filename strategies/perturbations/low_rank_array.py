"""An array that is a shared one plus a low-rank product, in place of a kernel in a model that knows nothing of it.

Built on quax: operations on such an array are dispatched to the rules below, which take the operation apart so that
what members share is computed for all of them at once, and only the factors member by member:

    x @ (W + sum_j c_j D_j + A B^T) = x @ W + sum_j c_j (x @ D_j) + (x @ A) @ B^T

With a mask M on the product, x @ (M * A B^T) = sum_k ((x * a_k) @ M) * b_k, again a product with a shared matrix.
An operation without a rule gets the materialised array, and a warning says so, once per operation.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jexc
import jax.numpy as jnp
import quax
from jax._src.callback import pure_callback_p
from jax._src.core import set_current_trace
from jax.core import ShapedArray
from jax.extend.core.primitives import remat_p, stop_gradient_p
from jaxtyping import ArrayLike
from quax._compat import unpack_scan_args
from quax._trace import _QuaxTrace

_warned: set[str] = set()


class LowRankArray(quax.ArrayValue):
    """base + sum_j c_j D_j + mask * (A B^T), of which the last axes of the array are the columns of the product.

    Attributes:
        base: `[*rows, *columns]`.
        directions: `[*rows, *columns, k]` further shared arrays D_j, or `None`.
        coefficients: `[k]` their factors c_j, or `None`.
        left: `[*rows, rank]`, A.
        right: `[*columns, rank]`, B.
        mask: `[*rows, *columns]` by which the product is multiplied, or `None`.
        num_columns: How many axes the columns are.
    """

    base: Any
    directions: Any
    coefficients: Any
    left: Any
    right: Any
    mask: Any
    num_columns: int = eqx.field(static=True)

    def aval(self) -> ShapedArray:
        """Returns shape and dtype."""
        return ShapedArray(self.base.shape, self.base.dtype)

    def materialise(self) -> jax.Array:
        """Returns the array."""
        product = jnp.tensordot(self.left, self.right, (-1, -1))
        if self.mask is not None:
            product = product * self.mask
        total = self.base + product
        return total if self.directions is None else total + self.directions @ self.coefficients

    @staticmethod
    def default(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
        """Applies an operation without a rule to the materialised array."""
        _warn(primitive, next(x for x in values if isinstance(x, LowRankArray)))
        return primitive.bind(*(dense(x) for x in values), **params)


def _warn(primitive: Any, value: LowRankArray) -> None:
    if str(primitive) not in _warned:
        _warned.add(str(primitive))
        warnings.warn(
            f"The operation {primitive!s} has no low-rank rule for an array of shape {tuple(value.base.shape)} as used "
            "here, so that array is materialised for every member that is evaluated at a time: right, but slow.",
            stacklevel=2,
        )


def dense(x: Any) -> Any:
    """Returns an array of low rank as an ordinary one; anything else as it is."""
    return LowRankArray.materialise(x) if isinstance(x, LowRankArray) else x


def _fall_back(primitive: Any, *values: Any, **params: Any) -> Any:
    return LowRankArray.default(primitive, values, params)


def _replace(x: LowRankArray, **updates: Any) -> LowRankArray:
    fields = ("base", "directions", "coefficients", "left", "right", "mask", "num_columns")
    return LowRankArray(**{name: updates.get(name, getattr(x, name)) for name in fields})


def _map(
    x: LowRankArray,
    on_array: Callable[[Any], Any],
    on_left: Callable[[Any], Any],
    on_right: Callable[[Any], Any],
    *,
    on_mask: Callable[[Any], Any] | None = None,
    swap: bool = False,
    num_columns: int | None = None,
) -> LowRankArray:
    """Returns the array with a linear operation applied to each of its parts.

    Args:
        x: The array.
        on_array: What it does to an array of this shape.
        on_left: What it does to A; `on_right`: to B.
        on_right: See there.
        on_mask: What it does to the mask, where that is not what it does to an array.
        swap: Whether rows and columns change places.
        num_columns: How many axes the columns are afterwards; default: as many as before.
    """
    left, right = on_left(x.left), on_right(x.right)
    directions = None if x.directions is None else jax.vmap(on_array, in_axes=-1, out_axes=-1)(x.directions)
    base = on_array(x.base)
    return LowRankArray(
        base=base,
        directions=directions,
        coefficients=x.coefficients,
        left=right if swap else left,
        right=left if swap else right,
        mask=None if x.mask is None else (on_mask or on_array)(x.mask),
        num_columns=x.num_columns if num_columns is None else num_columns,
    )


# --- What leaves the values as they are, or scales them -------------------------------------------------------------


@quax.register(jax.lax.convert_element_type_p)
def _convert(x: LowRankArray, *, new_dtype: Any, **params: Any) -> Any:
    if not jnp.issubdtype(new_dtype, jnp.floating):
        return _fall_back(jax.lax.convert_element_type_p, x, new_dtype=new_dtype, **params)
    return jax.tree.map(lambda part: part.astype(new_dtype), x)


@quax.register(jax.lax.copy_p)
@quax.register(stop_gradient_p)
def _copy(x: LowRankArray, **params: Any) -> Any:
    return x


@quax.register(jax.lax.neg_p)
def _negate(x: LowRankArray) -> Any:
    return _map(x, jnp.negative, jnp.negative, lambda b: b, on_mask=lambda m: m)


@quax.register(jax.lax.mul_p)
def _multiply(x: LowRankArray, y: ArrayLike, **params: Any) -> Any:
    if any(value is not None for value in params.values()):
        return _fall_back(jax.lax.mul_p, x, y, **params)
    if jnp.size(y) == 1:
        y = jnp.reshape(y, ())
        return _map(x, lambda w: w * y, lambda a: a * y, lambda b: b, on_mask=lambda m: m)
    if jnp.broadcast_shapes(x.base.shape, jnp.shape(y)) != x.base.shape:
        return jnp.multiply(dense(x), y)  # no kernel, but a scale of a larger array
    y = jnp.broadcast_to(y, x.base.shape)
    mask = y if x.mask is None else x.mask * y
    scaled = _map(_replace(x, mask=None), lambda w: w * y, lambda a: a, lambda b: b)
    return _replace(scaled, mask=mask)


@quax.register(jax.lax.mul_p)
def _multiply_from_left(x: ArrayLike, y: LowRankArray, **params: Any) -> Any:
    return _multiply(y, x, **params)


@quax.register(jax.lax.div_p)
def _divide(x: LowRankArray, y: ArrayLike, **params: Any) -> Any:
    return _multiply(x, 1 / jnp.asarray(y), **params)


def _register_sum(primitive: Any) -> None:
    """A bias is added to what is no smaller than itself, and there is an array of that for every member in any case."""

    @quax.register(primitive)
    def _to_array(x: LowRankArray, y: ArrayLike, **params: Any) -> Any:
        return primitive.bind(dense(x), y, **params)

    @quax.register(primitive)
    def _of_array(x: ArrayLike, y: LowRankArray, **params: Any) -> Any:
        return primitive.bind(x, dense(y), **params)


_register_sum(jax.lax.add_p)
_register_sum(jax.lax.sub_p)


# --- What moves the entries -----------------------------------------------------------------------------------------


@quax.register(jax.lax.transpose_p)
def _transpose(x: LowRankArray, *, permutation: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns
    for swap, first in ((False, num_rows), (True, x.num_columns)):
        front, back = permutation[:first], permutation[first:]
        rows, columns = (back, front) if swap else (front, back)
        if all(axis < num_rows for axis in rows) and all(axis >= num_rows for axis in columns):
            return _map(
                x,
                lambda w: jnp.transpose(w, permutation),
                lambda a, rows=rows: jnp.transpose(a, (*rows, num_rows)),
                lambda b, columns=columns: jnp.transpose(b, (*(c - num_rows for c in columns), x.num_columns)),
                swap=swap,
                num_columns=num_rows if swap else x.num_columns,
            )
    return _fall_back(jax.lax.transpose_p, x, permutation=permutation)


@quax.register(jax.lax.reshape_p)
def _reshape(x: LowRankArray, *, new_sizes: Any, dimensions: Any, **params: Any) -> Any:
    num_rows = math.prod(x.left.shape[:-1])
    for split in range(len(new_sizes) + 1):
        if dimensions is None and math.prod(new_sizes[:split]) == num_rows:
            return _map(
                x,
                lambda w: jnp.reshape(w, new_sizes),
                lambda a, split=split: jnp.reshape(a, (*new_sizes[:split], a.shape[-1])),
                lambda b, split=split: jnp.reshape(b, (*new_sizes[split:], b.shape[-1])),
                num_columns=len(new_sizes) - split,
            )
    return _fall_back(jax.lax.reshape_p, x, new_sizes=new_sizes, dimensions=dimensions, **params)


@quax.register(jax.lax.broadcast_in_dim_p)
def _broadcast(x: LowRankArray, *sizes: ArrayLike, shape: Any, **params: Any) -> Any:
    if sizes or math.prod(shape) != x.base.size:
        return _fall_back(jax.lax.broadcast_in_dim_p, x, *sizes, shape=shape, **params)
    return _reshape(x, new_sizes=shape, dimensions=None, sharding=None)  # new axes of size one


@quax.register(jax.lax.squeeze_p)
def _squeeze(x: LowRankArray, *, dimensions: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns
    rows = [axis for axis in dimensions if axis < num_rows]
    columns = [axis - num_rows for axis in dimensions if axis >= num_rows]
    squeezed = _map(
        x,
        lambda w: jnp.squeeze(w, dimensions),
        lambda a: jnp.squeeze(a, rows),
        lambda b: jnp.squeeze(b, columns),
        num_columns=x.num_columns - len(columns),
    )
    is_matrix = len(rows) < num_rows and len(columns) < x.num_columns
    return squeezed if is_matrix else dense(squeezed)


@quax.register(jax.lax.slice_p)
def _slice(x: LowRankArray, *, start_indices: Any, limit_indices: Any, strides: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns
    limits = list(zip(start_indices, limit_indices, strides or (1,) * x.base.ndim, strict=True))

    def cut(array: Any, limits: list[tuple[int, int, int]]) -> Any:
        return array[tuple(slice(*each) for each in limits)]

    return _map(x, lambda w: cut(w, limits), lambda a: cut(a, limits[:num_rows]), lambda b: cut(b, limits[num_rows:]))


@quax.register(jax.lax.dynamic_slice_p)
def _dynamic_slice(x: LowRankArray, *indices: ArrayLike, slice_sizes: Any) -> Any:
    num_rows = x.base.ndim - x.num_columns

    def cut(factor: Any, axes: slice) -> Any:
        return jax.lax.dynamic_slice(
            factor, (*indices[axes], jnp.zeros_like(indices[0])), (*slice_sizes[axes], factor.shape[-1])
        )

    return _map(
        x,
        lambda w: jax.lax.dynamic_slice(w, indices, slice_sizes),
        lambda a: cut(a, slice(num_rows)),
        lambda b: cut(b, slice(num_rows, None)),
    )


@quax.register(jax.lax.gather_p)
def _gather(x: LowRankArray, indices: ArrayLike, *, dimension_numbers: Any, slice_sizes: Any, **params: Any) -> Any:
    """Looks up parts of the factors. What is found, as in an embedding, is no kernel but an input: an array."""
    numbers, num_rows, num_batch = dimension_numbers, x.base.ndim - x.num_columns, jnp.ndim(indices) - 1
    if numbers.operand_batching_dims:
        return _fall_back(jax.lax.gather_p, x, indices, dimension_numbers=numbers, slice_sizes=slice_sizes, **params)
    kept = [axis for axis in range(x.base.ndim) if axis not in numbers.collapsed_slice_dims]
    # What is out of bounds is so in the base, and filled there.
    add_nothing = {**params, "fill_value": 0, "unique_indices": False, "indices_are_sorted": False}

    def gather(array: Any, **params: Any) -> Any:
        return jax.lax.gather_p.bind(array, indices, dimension_numbers=numbers, slice_sizes=slice_sizes, **params)

    def of_factor(factor: Any, first: int) -> Any:
        """Returns `[*batch, *kept axes, rank]` of a factor whose first axis is that of the array."""
        axes = range(first, first + factor.ndim - 1)
        looked_up = [i for i, axis in enumerate(numbers.start_index_map) if axis in axes]
        num_kept = sum(axis in kept for axis in axes)
        return jax.lax.gather_p.bind(
            factor,
            jnp.asarray(indices)[..., looked_up],
            dimension_numbers=numbers._replace(
                offset_dims=tuple(range(num_batch, num_batch + num_kept + 1)),
                collapsed_slice_dims=tuple(axis - first for axis in axes if axis not in kept),
                start_index_map=tuple(numbers.start_index_map[i] - first for i in looked_up),
            ),
            slice_sizes=(*(slice_sizes[axis] for axis in axes), factor.shape[-1]),
            **add_nothing,
        )

    letters = "abcdefghijklmnopqrstuvwxy"
    batch, own = iter(letters[:num_batch]), iter(letters[num_batch:])
    offset = {axis: next(own) for axis in kept}
    rows = "".join(offset[axis] for axis in kept if axis < num_rows)
    columns = "".join(offset[axis] for axis in kept if axis >= num_rows)
    found = iter(offset.values())
    result = "".join(next(found if i in numbers.offset_dims else batch) for i in range(num_batch + len(kept)))
    left, right, batch = of_factor(x.left, 0), of_factor(x.right, num_rows), letters[:num_batch]
    product = jnp.einsum(f"{batch}{rows}z,{batch}{columns}z->{result}", left, right)
    total = gather(x.base, **params) + (product if x.mask is None else product * gather(x.mask, **add_nothing))
    if x.directions is None:
        return total
    return total + jax.vmap(lambda d: gather(d, **add_nothing), in_axes=-1, out_axes=-1)(x.directions) @ x.coefficients


# --- Control flow, of which what comes out is an array: what goes around or out of each branch has to be alike --------


def _interpret(jaxpr: Any, *args: Any) -> list[Any]:
    return [dense(x) for x in quax.quaxify(jexc.jaxpr_as_fun(jaxpr))(*args)]


@quax.register(jax.lax.scan_p, precedence=1)
def _scan(*args: ArrayLike | quax.ArrayValue, jaxpr: Any, length: Any, reverse: Any, unroll: Any, **params: Any) -> Any:
    consts, carry, scanned = unpack_scan_args(args, params)

    def with_leading_axis(x: Any) -> Any:
        """Returns what is scanned over with that axis in all of its parts."""
        if not isinstance(x, LowRankArray):
            return x
        if x.base.ndim - x.num_columns < 2:
            return dense(x)  # a stack of vectors

        def repeat(part: Any) -> Any:
            return None if part is None else jnp.broadcast_to(part, (x.base.shape[0], *part.shape))

        return _replace(x, right=repeat(x.right), coefficients=repeat(x.coefficients))

    def step(carry: list[Any], scanned: list[Any]) -> tuple[list[Any], list[Any]]:
        out = _interpret(jaxpr, *consts, *carry, *scanned)
        return out[: len(carry)], out[len(carry) :]

    scanned = [with_leading_axis(x) for x in scanned]
    carry, results = jax.lax.scan(step, [dense(x) for x in carry], scanned, length, reverse, unroll)
    return [*carry, *results]


@quax.register(jax.lax.while_p, precedence=1)
def _while(
    *args: ArrayLike | quax.ArrayValue, cond_nconsts: int, cond_jaxpr: Any, body_nconsts: int, body_jaxpr: Any
) -> Any:
    start = cond_nconsts + body_nconsts
    return jax.lax.while_loop(
        lambda carry: _interpret(cond_jaxpr, *args[:cond_nconsts], *carry)[0],
        lambda carry: _interpret(body_jaxpr, *args[cond_nconsts:start], *carry),
        [dense(x) for x in args[start:]],
    )


@quax.register(jax.lax.cond_p, precedence=1)
def _cond(index: ArrayLike, *args: ArrayLike | quax.ArrayValue, branches: Any, **params: Any) -> Any:
    leaves, structure = jax.tree.flatten(args)

    def interpret(branch: Any, *leaves: Any) -> list[Any]:
        return _interpret(branch, *jax.tree.unflatten(structure, leaves))

    interpreted = [jax.make_jaxpr(functools.partial(interpret, branch))(*leaves) for branch in branches]
    return jax.lax.cond_p.bind(index, *leaves, branches=tuple(interpreted), **params)


@quax.register(remat_p)
def _checkpoint(*args: ArrayLike | quax.ArrayValue, jaxpr: Any, **params: Any) -> Any:
    """Without a gradient there is nothing to compute again; with one, it was taken before."""
    return quax.quaxify(jexc.jaxpr_as_fun(jexc.ClosedJaxpr(jaxpr, ())))(*args)


@quax.register(pure_callback_p)
def _call_back(*args: ArrayLike | quax.ArrayValue, **params: Any) -> Any:
    """What leaves JAX is an ordinary array."""
    return pure_callback_p.bind(*map(dense, args), **params)


def _call_custom_vjp(self: Any, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Any, /, **params: Any) -> Any:
    """Calls a function with a derivative of its own; where one is taken, that was done before quax."""
    with set_current_trace(self):
        return fun.call_wrapped(*tracers)


if "process_custom_vjp_call" not in vars(_QuaxTrace):  # which quax 0.4 cannot call at all
    _QuaxTrace.process_custom_vjp_call = _call_custom_vjp


# --- Products -------------------------------------------------------------------------------------------------------


@quax.register(jax.lax.dot_general_p)
def _dot_right(x: ArrayLike, w: LowRankArray, *, dimension_numbers: Any, **params: Any) -> Any:
    (contracted, own), batch = dimension_numbers
    return _dot(w, x, ((own, contracted), (batch[1], batch[0])), array_first=False, **params)


@quax.register(jax.lax.dot_general_p)
def _dot_left(w: LowRankArray, x: ArrayLike, *, dimension_numbers: Any, **params: Any) -> Any:
    return _dot(w, x, dimension_numbers, array_first=True, **params)


@quax.register(jax.lax.dot_general_p)
def _dot_both(v: LowRankArray, w: LowRankArray, *, dimension_numbers: Any, **params: Any) -> Any:
    _warn(jax.lax.dot_general_p, w)
    return _dot_left(v, dense(w), dimension_numbers=dimension_numbers, **params)


def _dot(w: LowRankArray, x: Any, dimension_numbers: Any, *, array_first: bool, **params: Any) -> Any:
    """Returns the product with an array; `dimension_numbers` has the axes of `w` first, the result is as called."""
    (own, other), (own_batch, other_batch) = dimension_numbers
    num_rows = w.base.ndim - w.num_columns

    def dot(matrix: Any) -> Any:
        if array_first:
            return jax.lax.dot_general(matrix, x, dimension_numbers, **params)
        return jax.lax.dot_general(x, matrix, ((other, own), (other_batch, own_batch)), **params)

    total = dot(w.base)
    if w.directions is not None:
        products = jax.vmap(dot, in_axes=-1, out_axes=-1)(w.directions)
        total = total + products @ w.coefficients.astype(total.dtype)
    near, far, start = (w.left, w.right, 0) if own and own[0] < num_rows else (w.right, w.left, num_rows)
    takes_side = not own_batch and sorted(own) == list(range(start, start + near.ndim - 1))
    if w.mask is not None and takes_side:
        product = _column_by_column(x, near, far, start, w.mask, dimension_numbers, array_first=array_first)
        return total + product.astype(total.dtype)
    if w.mask is not None:
        _warn(jax.lax.dot_general_p, w)
        return total + dot((jnp.tensordot(w.left, w.right, (-1, -1)) * w.mask).astype(w.base.dtype))

    # Letters: those of x, of w where they are not shared with x, and z for the rank.
    letters = iter("abcdefghijklmnopqrstuvwxy")
    of_x = [next(letters) for _ in range(jnp.ndim(x))]
    of_w = [next(letters) for _ in range(w.base.ndim)]
    for mine, theirs in zip((*own, *own_batch), (*other, *other_batch), strict=True):
        of_w[mine] = of_x[theirs]
    shared = [of_x[axis] for axis in other_batch]
    rest_of_x = [c for i, c in enumerate(of_x) if i not in (*other, *other_batch)]
    rest_of_w = [c for i, c in enumerate(of_w) if i not in (*own, *own_batch)]
    result = [*shared, *rest_of_w, *rest_of_x] if array_first else [*shared, *rest_of_x, *rest_of_w]

    # First the factor that takes most out of x.
    first, second = (of_w[:num_rows], w.left), (of_w[num_rows:], w.right)
    if sum(axis >= num_rows for axis in own) > sum(axis < num_rows for axis in own):
        first, second = second, first
    contracted = {of_x[axis] for axis in other}
    middle = [c for c in dict.fromkeys([*of_x, *first[0]]) if c not in contracted or c in second[0]]
    options = {name: params[name] for name in ("precision", "preferred_element_type") if name in params}
    inner = jnp.einsum(f"{''.join(of_x)},{''.join(first[0])}z->{''.join(middle)}z", x, first[1], **options)
    inner = inner.astype(second[1].dtype)
    outer = f"{''.join(middle)}z,{''.join(second[0])}z->{''.join(result)}"
    return total + jnp.einsum(outer, inner, second[1], **options).astype(total.dtype)


def _column_by_column(
    x: Any, near: Any, far: Any, start: int, mask: Any, dimension_numbers: Any, *, array_first: bool
) -> Any:
    """Returns the product of an array with mask * A B^T, a sum over the columns of A and B.

    Args:
        x: The array.
        near: The factor whose axes are contracted with it; `far`: the other.
        far: See there.
        start: The first of those axes, in the product.
        mask: The mask.
        dimension_numbers: As in `_dot`.
        array_first: As in `_dot`.
    """
    (own, other), batch = dimension_numbers
    # Where in x the axes of the factor are.
    places = [other[own.index(axis)] for axis in range(start, start + near.ndim - 1)]
    order = sorted(range(len(places)), key=places.__getitem__)
    rest = [axis for axis in range(jnp.ndim(x)) if axis not in places]
    total = 0
    for k in range(near.shape[-1]):
        scaled = x * jnp.expand_dims(jnp.transpose(near[..., k], order), rest).astype(x.dtype)
        factor = far[..., k]
        if array_first:
            factor = jnp.expand_dims(factor, [factor.ndim + i for i in range(len(rest))])
            product = jax.lax.dot_general(mask.astype(x.dtype), scaled, dimension_numbers)
        else:
            product = jax.lax.dot_general(scaled, mask.astype(x.dtype), ((other, own), (batch[1], batch[0])))
        total = total + product * factor
    return total


@quax.register(jax.lax.conv_general_dilated_p)
def _convolve(x: ArrayLike, w: LowRankArray, *, dimension_numbers: Any, **params: Any) -> Any:
    """A product with the factor of kernel and input channels, window by window, then one with that of the outputs."""
    split = _split_kernel(w, dimension_numbers.rhs_spec)
    is_grouped = params["feature_group_count"] != 1 or params["batch_group_count"] != 1
    if split is None or is_grouped or w.mask is not None:
        return _fall_back(jax.lax.conv_general_dilated_p, x, w, dimension_numbers=dimension_numbers, **params)
    convolve = functools.partial(jax.lax.conv_general_dilated_p.bind, dimension_numbers=dimension_numbers, **params)
    total = convolve(x, w.base)
    if w.directions is not None:
        products = jax.vmap(lambda d: convolve(x, d), in_axes=-1, out_axes=-1)(w.directions)
        total = total + products @ w.coefficients.astype(total.dtype)

    window, outputs = split  # [inputs, *window, rank], [outputs, rank]
    lhs, out = dimension_numbers.lhs_spec, dimension_numbers.out_spec
    products = jnp.tensordot(jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1])), window, 1)  # [batch, *image, *window, rank]
    inner = _sum_windows(products, window.shape[1:-1], params)  # [batch, *image, rank]
    outer = jnp.einsum("...z,oz->...o", inner, outputs.astype(inner.dtype))
    # From [batch, *image, outputs] to the order of the call.
    axes = {out[0]: 0, out[1]: outer.ndim - 1, **{axis: 1 + i for i, axis in enumerate(out[2:])}}
    return total + jnp.transpose(outer, [axes[axis] for axis in range(outer.ndim)]).astype(total.dtype)


def _split_kernel(w: LowRankArray, spec: Sequence[int]) -> tuple[Any, Any] | None:
    """Returns the factors `[inputs, *window, rank]` and `[outputs, rank]`, if one of them is of the outputs alone."""
    num_rows = w.base.ndim - w.num_columns
    factors = {
        frozenset(axis for axis in range(num_rows) if w.base.shape[axis] > 1): w.left,
        frozenset(axis for axis in range(num_rows, w.base.ndim) if w.base.shape[axis] > 1): w.right,
    }
    outputs = factors.pop(frozenset([spec[0]]), None)
    if outputs is None or len(factors) != 1:
        return None
    rest = jnp.reshape(next(iter(factors.values())), (*(n for i, n in enumerate(w.base.shape) if i != spec[0]), -1))
    position = {axis: i for i, axis in enumerate(axis for axis in range(w.base.ndim) if axis != spec[0])}
    window = jnp.transpose(rest, [*(position[axis] for axis in spec[1:]), rest.ndim - 1])
    return window, jnp.reshape(outputs, (w.base.shape[spec[0]], -1))


def _sum_windows(products: Any, window: Sequence[int], params: dict[str, Any]) -> Any:
    """Returns sum_s products[batch, image at stride * out + dilation * s, s, rank], the image padded and dilated."""
    num_axes = len(window)
    padding = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    none = [(0, 0, 0)]
    padded = jax.lax.pad(products, jnp.zeros((), products.dtype), [*none, *padding, *none * (num_axes + 1)])
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    total = 0
    for place in itertools.product(*map(range, window)):
        cuts = []
        for axis in range(num_axes):
            start = place[axis] * dilations[axis]
            length = padded.shape[1 + axis] - (window[axis] - 1) * dilations[axis]
            cuts.append(slice(start, start + length, strides[axis]))
        total = total + padded[(slice(None), *cuts, *place)]
    return total
