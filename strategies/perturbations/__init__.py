"""How a population is stored: as `Dense` arrays, as the keys of `Seeded` noise, or as `LowRank` factors."""

from zoo.strategies.perturbations.base import Perturbation
from zoo.strategies.perturbations.dense import Dense
from zoo.strategies.perturbations.forms import get_perturbation
from zoo.strategies.perturbations.low_rank import LowRank
from zoo.strategies.perturbations.seeded import Seeded

__all__ = ["Dense", "LowRank", "Perturbation", "Seeded", "get_perturbation"]
