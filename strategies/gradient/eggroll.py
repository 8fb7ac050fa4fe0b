"""EGGROLL: OpenAI-ES with low-rank perturbations.

Kernels are perturbed by products of thin factors in place of full Gaussian matrices. The product of the inputs with the
mean's kernel is then one matrix product for all members, so that a generation costs about as much as evaluating the
mean once for every member. All else is `open_es`.

Reference: Sarkar et al. 2025, "Evolution Strategies at the Hyperscale", arXiv 2511.16652. What the estimate targets is
written in `zoo.strategies.perturbations.low_rank`.
"""

from typing import Any

from zoo.core import static
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.perturbations import LowRank


class EGGROLL(OpenES):
    """OpenAI-ES with low-rank perturbations of kernels: products of thin factors, which share one matrix product.

    Works with any model; see `zoo.strategies.perturbations.LowRank` for how, and for what the estimate then targets.

    Attributes:
        perturbation: How the population is stored, as in `open_es`. Defaults to factors of rank one.

    References:
        Sarkar et al. 2025, arXiv 2511.16652.
    """

    perturbation: Any = static(default=LowRank())
