"""Compiler options for the functions of a run. On a CPU, compiling often takes longer than running."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr

_LOOP = {
    # The default scheduler runs independent operations at once, each on fewer threads. The short loops inside a
    # generation then take up to 50 % longer.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # Takes a fifth (inner training: three quarters) less time to compile than the default, 3. The loops that were
    # measured run no slower.
    "xla_backend_optimization_level": 2,
}

# Compiles in a third of the time. Runs slower, the more so the larger the arrays are.
_ONCE: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jaxlib.version.__version_info__ < (0, 11):  # newer versions have no other way to emit code
    _ONCE["xla_cpu_use_fusion_emitters"] = False

_SMALL = 4096
"""Largest size of an array, in numbers, up to which a program is not worth optimising."""


class Program:
    """A jitted function with compiler options that suit a CPU. On other devices it has no options.

    Options that the environment variable `XLA_FLAGS` sets stay as they are. Within another trace the function is
    inlined.

    Args:
        fn: The function.
        repeats: Whether the function is called often, like the loop of a run. Otherwise it is called a few times in a
            run, and is compiled without optimisation unless it computes large arrays.
        **settings: Arguments of `jax.jit`.
    """

    def __init__(self, fn: Callable[..., Any], *, repeats: bool, **settings: Any):
        functools.update_wrapper(self, fn)
        self.fn = fn
        self._repeats = repeats
        self._chosen: dict[Any, Any] = {}  # by the kind of the arguments
        self._plain = jax.jit(fn, **settings)
        self._loop, self._once = (
            jax.jit(fn, compiler_options=options, **settings) if options else self._plain
            for options in map(_unless_set, (_LOOP, _ONCE))
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the compiled function."""
        if any(isinstance(x, Tracer) for x in jax.tree.leaves((args, kwargs))):
            return self.fn(*args, **kwargs)
        return self.choose(*args, **kwargs)(*args, **kwargs)

    def choose(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the jitted function for arguments like these, so that frequent callers choose it only once."""
        if jax.default_backend() != "cpu":
            return self._plain
        if self._repeats:
            return self._loop
        kind = _kind((args, kwargs))
        if kind not in self._chosen:
            # JAX reuses this trace when it compiles.
            traced: Any = self._plain.trace(*args, **kwargs)
            self._chosen[kind] = self._once if _largest_array(traced.jaxpr) <= _SMALL else self._loop
        return self._chosen[kind]

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the compiled function for arguments like these. Call it without the static arguments."""
        return self.choose(*args, **kwargs).lower(*args, **kwargs).compile()

    @property
    def num_programs(self) -> int:
        """Number of compiled programs that are kept."""
        return sum(jitted._cache_size() for jitted in self._variants)

    def forget(self) -> None:
        """Drops the compiled programs."""
        self._chosen.clear()
        for jitted in self._variants:
            jitted.clear_cache()

    @property
    def _variants(self) -> list[Any]:
        return list({id(jitted): jitted for jitted in (self._plain, self._loop, self._once)}.values())


def _unless_set(options: dict[str, Any]) -> dict[str, Any]:
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags}


def _kind(arguments: Any) -> Any:
    """Returns what a program depends on: the structure of its arguments, shapes and dtypes, and the values of flags."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple(x if isinstance(x, bool) else (jnp.shape(x), jnp.result_type(x)) for x in leaves)


def _largest_array(jaxpr: Any) -> int:
    """Returns the size, in numbers, of the largest array that a program computes."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    sizes = (getattr(x.aval, "size", 0) for equation in jaxpr.eqns for x in equation.outvars)
    inner = (_largest_array(x) for equation in jaxpr.eqns for x in jaxprs_in(tuple(equation.params.values())))
    return max((0, *sizes, *inner))


def jaxprs_in(parameters: Any) -> Iterator[Any]:
    """Yields the inner programs among the parameters of an operation."""
    for parameter in parameters:
        if isinstance(parameter, ClosedJaxpr | Jaxpr):
            yield parameter
        elif isinstance(parameter, tuple | list):
            yield from jaxprs_in(parameter)
