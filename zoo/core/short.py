"""Short text for values that may hold large arrays, for the `repr` of settings."""

import dataclasses
import functools
import reprlib
import textwrap
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_WIDTH = 100
_MAX_LINES = 15
_FEW = 6  # an array with at most this many numbers is shown in full


def short(value: Any) -> str:
    """Returns a value as one line. Shows large arrays by dtype and shape and functions by name. Cuts off long lists."""
    return _Short().repr(value)


def short_call(name: str, fields: Iterable[tuple[str, Any]]) -> str:
    """Returns `name(field=value, ...)` on at most 15 lines."""
    text = f"{name}({', '.join(f'{field}={short(value)}' for field, value in fields)})"
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines[: _MAX_LINES - 1], "    ..."] if len(lines) > _MAX_LINES else lines)


class _Short(reprlib.Repr):
    """A `reprlib.Repr` that also shortens arrays, functions and dataclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 80, 80

    def repr1(self, x: Any, level: int) -> str:
        """Returns the text of a value, with at most `level` further levels of nesting."""
        if isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
            return _short_array(x)
        if isinstance(x, functools.partial):
            return self._call(self.repr1(x.func, level), x.keywords.items(), level)
        if callable(x) and hasattr(x, "__qualname__"):
            return x.__qualname__
        if isinstance(x, tuple) and (names := getattr(x, "_fields", None)):
            return self._call(type(x).__name__, zip(names, x, strict=True), level)
        if dataclasses.is_dataclass(x) and not isinstance(x, type):
            fields = [(field.name, getattr(x, field.name)) for field in dataclasses.fields(x) if field.repr]
            return self._call(type(x).__name__, fields, level)
        return " ".join(super().repr1(x, level).split())

    def _call(self, name: str, fields: Iterable[tuple[str, Any]], level: int) -> str:
        if level <= 0:
            return f"{name}(...)"
        return f"{name}({', '.join(f'{field}={self.repr1(value, level - 1)}' for field, value in fields)})"


def _short_array(x: Any) -> str:
    is_here = not isinstance(x, (Tracer, jax.ShapeDtypeStruct)) and getattr(x, "is_fully_addressable", True)
    if is_here and x.size <= _FEW and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.array2string(np.asarray(x), separator=",", precision=6).replace("\n", "")
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
