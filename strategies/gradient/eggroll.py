"""EGGROLL: OpenAI-ES with low-rank perturbations, at about the cost of evaluating the mean for every member.

Reference: Sarkar et al. 2025, "Evolution Strategies at the Hyperscale", arXiv 2511.16652.
"""

from typing import Any

from zoo.core import static
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.perturbations import LowRank


class EGGROLL(OpenES):
    """OpenAI-ES whose kernels are perturbed by products of thin factors, which share one matrix product.

    Works with any model; see `zoo.strategies.perturbations.LowRank` for how, and for what the estimate then targets.

    Attributes:
        perturbation: As in `OpenES`; by default of rank one.

    References:
        Sarkar et al. 2025, arXiv 2511.16652.
    """

    perturbation: Any = static(default=LowRank())
