"""Wraps functions of the host (NumPy, a solver, a game engine, any Python) so that JAX programs can call them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from zoo.core.arguments import checks_arguments
from zoo.host.interrupts import remembered_errors

_Spec = tuple[Any, list[tuple[tuple[int, ...], Any]]]
"""The structure of a result, and the shape and dtype of each leaf."""


@checks_arguments
def from_numpy(fn: Callable[..., Any], *, result: Any = None, vectorized: bool = False) -> "HostFunction":
    """Wraps a function of NumPy arrays so that it can be called under `jit`, `vmap` and `scan`.

    The wrapped function has no derivative, and autodiff of it raises an error. `zoo.smooth` gives it a gradient. The
    result of `fn` should depend only on its arguments, since JAX may call it more or less often than the program does.

    Args:
        fn: `fn(*args)` takes pytrees of NumPy arrays and returns a pytree of arrays or numbers. The arrays are copies,
            so `fn` may write to them.
        result: The shapes and dtypes that `fn` returns: a pytree of `jax.ShapeDtypeStruct` or of arrays, or a function
            from the shapes and dtypes of the arguments to such a pytree. By default they are found by one call of `fn`
            on zeros for each set of argument shapes.
        vectorized: Whether all arguments and results of `fn` have one leading batch axis. If so, `vmap` makes one call,
            even if it is nested. Otherwise it makes one call per example. `result` always describes one example,
            without the batch axis.

    Returns:
        A function of arrays. `run`, `minimize` and `benchmark` raise the errors of `fn`. Your own JAX programs raise
        them too, with the traceback as text where JAX cannot pass on the exception itself. Results are cast if that is
        safe (double to single precision, booleans and integers to floating point).

    Raises:
        TypeError: If `fn` is not callable, or if the wrapped function is differentiated.
        ValueError: When called, if the result of `fn` does not have the declared structure, shapes or dtypes.

    >>> import jax, numpy as np, zoo
    >>> sort = zoo.from_numpy(np.sort)
    >>> jax.jit(jax.vmap(sort))(np.array([[3.0, 1.0], [2.0, 5.0]]))
    Array([[1., 3.],
           [2., 5.]], dtype=float32)
    """
    if not callable(fn):
        raise TypeError(f"from_numpy expects a function of NumPy arrays, got {type(fn).__name__}.")
    return HostFunction(fn, result, vectorized)


@dataclasses.dataclass(frozen=True, eq=False)
class HostFunction:
    """A host function that JAX can call, made by `from_numpy`.

    Attributes:
        fn: The function of NumPy arrays.
        result: The shapes and dtypes that it returns, as given to `from_numpy`.
        vectorized: Whether it takes a batch axis.
    """

    fn: Callable[..., Any]
    result: Any = None
    vectorized: bool = False
    _inferred: dict[Any, _Spec] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The name of the function, for messages."""
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __reduce__(self) -> Any:
        return HostFunction, (self.fn, self.result, self.vectorized)  # without the shapes that calls inferred

    def __call__(self, *args: Any) -> Any:
        """Returns `fn(*args)` as JAX arrays."""
        args = jax.tree.map(jnp.asarray, args)
        leaves, structure = jax.tree.flatten(args)
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
        out_structure, out_leaves = self._result_spec(shapes, structure)
        expected = [
            jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=False))
            for shape, dtype in out_leaves
        ]

        def on_host(*flat: Any) -> list[np.ndarray]:
            with remembered_errors():
                return compute(*flat)

        def compute(*flat: Any) -> list[np.ndarray]:
            arrays = [np.array(x) for x in flat]  # copies, because JAX's arrays are read-only
            if not self.vectorized:
                return self._checked(self.fn(*jax.tree.unflatten(structure, arrays)), out_structure, expected, None)
            batch = arrays[0].shape[: arrays[0].ndim - len(shapes[0].shape)] if arrays else ()
            size = math.prod(batch)
            arrays = [x.reshape((size, *s.shape)) for x, s in zip(arrays, shapes, strict=True)]
            results = self._checked(self.fn(*jax.tree.unflatten(structure, arrays)), out_structure, expected, size)
            return [x.reshape((*batch, *x.shape[1:])) for x in results]

        def call(*flat: Any) -> list[jax.Array]:
            method = "broadcast_all" if self.vectorized else "sequential"
            return jax.pure_callback(on_host, expected, *flat, vmap_method=method)

        call = jax.custom_jvp(call)

        def no_derivative(primals: Any, tangents: Any) -> Any:
            if any(type(t) is not SymbolicZero for t in tangents):
                raise TypeError(
                    f"The host function {self.name!r} has no derivative with respect to its arguments. Inside "
                    "zoo.smooth, put the inputs that need a gradient in x (its first argument) and wrap the others in "
                    "jax.lax.stop_gradient. Elsewhere, wrap the function: zoo.smooth(fn, sigma=...)."
                )
            out = call(*primals)
            return out, jax.tree.map(_no_tangent, out)

        call.defjvp(no_derivative, symbolic_zeros=True)
        return jax.tree.unflatten(out_structure, call(*leaves))

    def _result_spec(self, shapes: list[jax.ShapeDtypeStruct], structure: Any) -> _Spec:
        result = self.result
        if result is None:
            key = (structure, tuple((s.shape, s.dtype) for s in shapes))
            if key not in self._inferred:
                self._inferred[key] = self._infer(shapes, structure)
            return self._inferred[key]
        if callable(result):
            result = result(*jax.tree.unflatten(structure, shapes))
        leaves, out_structure = jax.tree.flatten(result)
        for leaf in leaves:
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise TypeError(
                    "from_numpy expects `result` to be a pytree of jax.ShapeDtypeStruct, or a function that returns "
                    f"one, got a leaf {leaf!r}."
                )
        return out_structure, [(tuple(leaf.shape), np.dtype(leaf.dtype)) for leaf in leaves]

    def _infer(self, shapes: list[jax.ShapeDtypeStruct], structure: Any) -> _Spec:
        batch = (1,) if self.vectorized else ()
        zeros = [np.zeros((*batch, *s.shape), s.dtype) for s in shapes]
        try:
            result = self.fn(*jax.tree.unflatten(structure, zeros))
        except Exception as error:
            error.add_note(
                f"zoo.from_numpy called {self.name!r} on zeros of shapes {[z.shape for z in zeros]} to learn what "
                "it returns. If it cannot take zeros, declare its result: from_numpy(fn, "
                "result=jax.ShapeDtypeStruct(...))."
            )
            raise
        leaves, out_structure = jax.tree.flatten(result)
        arrays = [np.asarray(leaf) for leaf in leaves]
        for array in arrays:
            if _kind(array.dtype) is None:
                raise ValueError(
                    f"The host function {self.name!r} must return a pytree of numeric arrays, got a leaf of dtype "
                    f"{array.dtype}. Return numbers or arrays."
                )
            if array.shape[: len(batch)] != batch:
                raise ValueError(
                    f"The host function {self.name!r} is vectorized=True, so every result must have the leading batch "
                    f"axis of the arguments, here of size 1, got shape {array.shape}."
                )
        return out_structure, [(array.shape[len(batch) :], array.dtype) for array in arrays]

    def _checked(
        self, result: Any, structure: Any, expected: list[jax.ShapeDtypeStruct], size: int | None
    ) -> list[np.ndarray]:
        leaves, got = jax.tree.flatten(result)
        if got != structure:
            raise ValueError(
                f"The host function {self.name!r} must return the structure {_outline(structure)}, got "
                f"{_outline(got)}. Declare what it returns with from_numpy(fn, result=...)."
            )
        batch = () if size is None else (size,)
        arrays = []
        for leaf, spec in zip(leaves, expected, strict=True):
            array = np.asarray(leaf)
            if array.shape != (*batch, *spec.shape):
                raise ValueError(
                    f"The host function {self.name!r} must return shape {(*batch, *spec.shape)}"
                    f"{' (batch axis first)' if batch else ''}, got {array.shape}. Declare what it returns with "
                    "from_numpy(fn, result=...)."
                )
            kind, wanted = _kind(array.dtype), _kind(spec.dtype)
            if kind is None or wanted is None or kind > wanted:
                raise ValueError(
                    f"The host function {self.name!r} must return dtype {np.dtype(spec.dtype)}, got {array.dtype}, "
                    "which cannot be cast safely. Cast it in the function, or declare it: from_numpy(fn, result=...)."
                )
            cast = array.astype(spec.dtype)
            is_integer = np.issubdtype(array.dtype, np.integer) and np.issubdtype(spec.dtype, np.integer)
            if is_integer and not np.array_equal(cast.astype(object), array.astype(object)):
                raise ValueError(
                    f"The host function {self.name!r} returned whole numbers from {array.min()} to {array.max()}, "
                    f"which do not fit {np.dtype(spec.dtype)}. Return floating-point numbers, or switch on "
                    "jax_enable_x64."
                )
            arrays.append(cast)
        return arrays


def _kind(dtype: Any) -> int | None:
    """Returns the rank of a dtype's kind, or `None` if it is not numeric. A kind can be cast to kinds of higher rank.

    The ranks are: boolean, unsigned integer, signed integer, floating point, complex.
    """
    kinds = (np.bool_, np.unsignedinteger, np.signedinteger, np.floating, np.complexfloating)
    return next((rank for rank, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)), None)


def _outline(structure: Any) -> str:
    """Returns a structure as text with a star for each leaf, such as `{'a': *, 'b': (*, *)}`."""
    return str(structure).removeprefix("PyTreeDef(").removesuffix(")")


def _no_tangent(out: jax.Array) -> Any:
    floating = jnp.issubdtype(out.dtype, jnp.inexact)
    return jnp.zeros_like(out) if floating else np.zeros(out.shape, jax.dtypes.float0)
