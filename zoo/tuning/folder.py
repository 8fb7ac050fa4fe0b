"""The finished blocks of a sweep in a folder, so that an interrupted sweep goes on where it was."""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from zoo.loop.csv_file import csv_of, read_csv
from zoo.loop.files import DamagedError, below, make_below, named_once, opened, read_parts, write_parts
from zoo.loop.identity import Identity
from zoo.tuning.result import KINDS

_MAX_SHOWN = 2  # differences that a message names


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the blocks of a sweep are saved.

    Attributes:
        folder: The folder, which is locked.
        fresh: Whether no saved block is used.
        accept_versions: Whether blocks of other versions are used.
        replaces: Whether blocks of another sweep are replaced. Otherwise they are an error.
    """

    folder: pathlib.Path
    fresh: bool = False
    accept_versions: bool = False
    replaces: bool = False


class BlockFolder:
    """Saves blocks of runs, and finds those that the same program made.

    Args:
        place: Where they are.
        identity: What the program is.
    """

    def __init__(self, place: Place, identity: Identity):
        self._place, self._identity, self._folder = place, identity, place.folder
        self._num_found = 0
        self._damaged: list[DamagedError] = []

    def load(self, name: str, runs: pd.DataFrame) -> pd.DataFrame | None:
        """Returns a saved block of these runs, if there is one of this program."""
        if self._place.fresh:
            return None
        place = below(self._folder, "blocks", name)

        def read(info: dict[str, Any], digests: Mapping[str, str]) -> tuple[Any, pd.DataFrame]:
            with opened(place / "runs.csv", digests.get("runs.csv", "")) as file:
                frame = read_csv(file, lambda column: KINDS.get(column, float))
                if list(frame.columns) != list(KINDS):
                    raise ValueError(f"its columns are {', '.join(map(str, frame.columns))}")
            return info.get("identity"), frame

        try:
            identity, frame = read_parts(place, "block.json", read)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self._damaged.append(error)
            return None
        if found := self._identity.differences(identity, accept_versions=self._place.accept_versions):
            if self._place.replaces:
                return None
            more = f"; and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
            raise ValueError(
                f"{self._folder} holds another sweep: {'; '.join(found[:_MAX_SHOWN])}{more}. Choose another folder, or "
                "replace it with fresh=True (in a terminal --fresh)."
            )
        if not frame[["setting", "seed"]].equals(runs):
            return None
        self._num_found += 1
        return frame

    def save(self, name: str, frame: pd.DataFrame) -> None:
        """Writes a finished block."""
        place = make_below(self._folder, "blocks", name)
        write_parts(place, "block.json", {"identity": self._identity.facts()}, {"runs.csv": csv_of(frame)})

    def lines(self) -> list[str]:
        """Returns what is said of blocks that were there; warns of damaged ones."""
        if self._damaged:
            warnings.warn(f"Computed again: {named_once(self._damaged)}", stacklevel=3)
        return [f"{self._num_found} blocks reused from {self._folder}/"] if self._num_found else []
