"""The forms of a population by name."""

from collections.abc import Mapping
from typing import Any

from zoo.strategies.perturbations.base import Perturbation
from zoo.strategies.perturbations.dense import Dense
from zoo.strategies.perturbations.low_rank import LowRank
from zoo.strategies.perturbations.seeded import Seeded


def get_perturbation(perturbation: Any, name: str = "perturbation") -> Perturbation:
    """Returns a form from an instance, its name, or a dictionary of name and settings, `{"id": "low_rank", "rank": 2}`.

    Raises:
        ValueError: If no form has that name.
        TypeError: If the value is none of these three, or the form does not have the settings.
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
            f"{{'id': 'low_rank', 'rank': 2}}, or an instance such as zoo.strategies.perturbations.LowRank(rank=2), "
            f"got {perturbation!r}."
        )
    if perturbation not in forms:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, forms))}, got {perturbation!r}.")
    try:
        return forms[perturbation](**settings)
    except TypeError as error:
        raise TypeError(f"{name}={perturbation!r} does not take the settings {settings}: {error}") from None
