"""Distributions of settings, for the search spaces of `zoo.sweep` and of strategies."""

from zoo.core.distributions import Choice, Distribution, Factor, Range, choice, integers, log_uniform, times, uniform

__all__ = ["Choice", "Distribution", "Factor", "Range", "choice", "integers", "log_uniform", "times", "uniform"]
