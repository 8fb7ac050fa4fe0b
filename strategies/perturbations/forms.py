"""The forms of a population by name."""

from collections.abc import Mapping
from typing import Any

from zoo.strategies.perturbations.base import Perturbation
from zoo.strategies.perturbations.dense import Dense
from zoo.strategies.perturbations.low_rank import LowRank
from zoo.strategies.perturbations.seeded import Seeded


def get_perturbation(perturbation: Any, name: str = "perturbation") -> Perturbation:
    """Returns a form: as given, by name, or by a dictionary of name and settings, `{"id": "low_rank", "rank": 2}`.

    Raises:
        ValueError: If there is none of that name.
        TypeError: If it is neither.
    """
    forms = {"dense": Dense, "seeded": Seeded, "low_rank": LowRank}
    if isinstance(perturbation, Perturbation):
        return perturbation
    settings = {}
    if isinstance(perturbation, Mapping) and "id" in perturbation:
        settings = {key: value for key, value in perturbation.items() if key != "id"}
        perturbation = perturbation["id"]
    if not isinstance(perturbation, str):
        raise TypeError(
            f"{name} must be one of {', '.join(map(repr, forms))}, a dictionary such as "
            f"{{'id': 'low_rank', 'rank': 2}}, or such as LowRank(rank=2) of zoo.strategies.perturbations, got "
            f"{perturbation!r}."
        )
    if perturbation not in forms:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, forms))}, got {perturbation!r}.")
    try:
        return forms[perturbation](**settings)
    except TypeError as error:
        raise TypeError(f"{name}={perturbation!r} does not take the settings {settings}: {error}") from None
