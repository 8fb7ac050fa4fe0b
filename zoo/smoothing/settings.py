"""The settings of `smooth`, checked when they are made."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.core
import numpy as np

from zoo.core.checks import check_number, checked_by_annotation

_CHOICES = {
    "sampler": ("normal", "orthogonal", "sobol"),
    "forward": ("exact", "mean"),
    "baseline": (None, "leave_one_out", "value", "none"),
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Settings:
    """The settings of `smooth`. `Smooth` describes the fields."""

    fn: Callable[..., Any] = dataclasses.field(kw_only=False)
    sigma: Any
    num_samples: int = 64
    antithetic: bool = True
    baseline: str | None = None
    sampler: str = "normal"
    forward: str = "exact"
    batched: bool = False
    subspace: Any = None
    batch_size: int | None = None
    target_rate: float = 0.7
    num_probes: int = 16
    sigma_range: tuple[float, float] = (1e-3, 1e3)
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not callable(self.fn):
            raise TypeError(f"zoo.smooth expects a function fn(x, *args), got {type(self.fn).__name__}.")
        for name in ("num_samples", "num_probes", *(["batch_size"] if self.batch_size is not None else [])):
            checked_by_annotation(getattr(self, name), f"zoo.smooth: {name}", int)
        for name in ("antithetic", "batched"):
            checked_by_annotation(getattr(self, name), f"zoo.smooth: {name}", bool)
        for name in ("target_rate", "tolerance"):
            check_number(getattr(self, name), f"zoo.smooth: {name}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"zoo.smooth: {name} must be one of {choices}, got {getattr(self, name)!r}.")
        if self.num_samples < 1 or (self.antithetic and self.num_samples % 2):
            raise ValueError(
                f"zoo.smooth: num_samples must be positive, and even with antithetic=True, got {self.num_samples}. "
                "Choose another number, or antithetic=False."
            )
        if self.antithetic and self.baseline is not None:
            raise ValueError(
                f"zoo.smooth: baseline={self.baseline!r} has no effect with antithetic=True, because it cancels in "
                "each pair. Leave it out, or set antithetic=False."
            )
        if not self.antithetic and self.baseline in (None, "leave_one_out") and self.num_samples == 1:
            raise ValueError(
                "zoo.smooth: num_samples must be at least 2 for a leave-one-out baseline, got 1. Choose more samples, "
                "or baseline='value'."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"zoo.smooth: batch_size must be at least 1, got {self.batch_size}.")
        if not 0 < self.target_rate < 1 or self.num_probes < 1 or not self.tolerance >= 0:
            raise ValueError(
                "zoo.smooth: expected 0 < target_rate < 1, num_probes >= 1 and tolerance >= 0, got "
                f"{self.target_rate}, {self.num_probes} and {self.tolerance}."
            )
        if not isinstance(self.sigma_range, (tuple, list)) or len(self.sigma_range) != 2:
            raise ValueError(f"zoo.smooth: sigma_range must be a pair (low, high), got {self.sigma_range!r}.")
        low, high = self.sigma_range
        if not 0 < low < high < math.inf:
            raise ValueError(f"zoo.smooth: sigma_range must be 0 < low < high, got {self.sigma_range}.")
        check_sigma(self.sigma)


def check_sigma(sigma: Any) -> Any:
    """Returns sigma.

    Raises:
        ValueError: If it is neither positive and finite nor `"auto"`.
    """
    if isinstance(sigma, jax.core.Tracer) or (isinstance(sigma, str) and sigma == "auto"):
        return sigma
    values = np.asarray(sigma)
    if values.size and values.dtype.kind in "fiu" + "V" and np.all((values > 0) & np.isfinite(values)):
        return sigma
    raise ValueError(f"zoo.smooth: sigma must be a positive number or 'auto', got {sigma!r}.")
