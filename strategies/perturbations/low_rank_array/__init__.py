"""A shared array plus a low-rank product, in place of a kernel in an unchanged model.

Built on quax: operations on such an array are dispatched to the rules in this folder. A rule splits an operation, so
that the part that members share is computed once for all of them, and only the part of the factors member by member:

    x @ (W + sum_j c_j D_j + A B^T) = x @ W + sum_j c_j (x @ D_j) + (x @ A) @ B^T

With a mask M on the product, x @ (M * A B^T) = sum_k ((x * a_k) @ M) * b_k, again a product with a shared matrix. An
operation without a rule gets the materialised array, and a warning says so, once per operation. Importing this package
registers the rules.
"""

from zoo.strategies.perturbations.low_rank_array import (  # noqa: F401
    control_flow,
    convolutions,
    elementwise,
    products,
    structure,
)
from zoo.strategies.perturbations.low_rank_array.array import LowRankArray, dense

__all__ = ["LowRankArray", "dense"]
