"""Functions of numbers that are either known when the program is compiled, or traced; see `Space.num_dims`.

For known numbers they return Python's numbers, which adopt the precision of the arrays they meet. NumPy's numbers would
promote it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Number = float | jax.Array
"""A constant of the compiled program, or a traced number."""


def _of_either(of_known: Callable[..., Any], of_traced: Callable[..., Any]) -> Callable[..., Any]:
    def fn(*numbers: Number) -> Number:
        is_traced = any(isinstance(x, jax.Array) for x in numbers)
        return (of_traced if is_traced else of_known)(*numbers)

    return fn


sqrt = _of_either(math.sqrt, jnp.sqrt)
log = _of_either(math.log, jnp.log)
log1p = _of_either(math.log1p, jnp.log1p)
ceil = _of_either(math.ceil, jnp.ceil)
minimum = _of_either(min, jnp.minimum)
maximum = _of_either(max, jnp.maximum)
