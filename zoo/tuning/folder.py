"""The finished blocks of a sweep in a folder, so that an interrupted sweep goes on where it was.

The identity of the sweep lies beside the blocks, in `identity.json`, and is compared before anything is computed.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from zoo.loop.csv_file import csv_of, read_csv
from zoo.loop.files import (
    DamagedError,
    below,
    make_below,
    named_once,
    opened,
    read_json,
    read_parts,
    remove,
    write_json,
    write_parts,
)
from zoo.loop.identity import Identity
from zoo.tuning.result import KINDS

_MAX_SHOWN = 2  # differences that a message names


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a sweep and its blocks are saved.

    Attributes:
        root: The folder that the user named, which is locked.
        names: Names of the folders below it that lead to the sweep.
        fresh: Whether no saved block is used.
        accept_versions: Whether blocks of other versions are used.
        replaces: Whether another sweep is replaced. Otherwise it is an error.
    """

    root: pathlib.Path
    names: tuple[str, ...] = ()
    fresh: bool = False
    accept_versions: bool = False
    replaces: bool = False

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the sweep, for messages."""
        return self.root.joinpath(*self.names)

    def below(self, *names: str) -> pathlib.Path:
        """Returns the path of a folder or a file in the folder of the sweep. Links on the way are damage."""
        return below(self.root, *self.names, *names)

    def make(self, *names: str) -> pathlib.Path:
        """Makes the folder of the sweep, or a folder in it."""
        return make_below(self.root, *self.names, *names)


class BlockFolder:
    """Saves blocks of runs, and finds those that the same program made.

    Args:
        place: Where they are.
        identity: What the program is.
    """

    def __init__(self, place: Place, identity: Identity):
        self._place, self._identity = place, identity
        self._num_found = 0
        self._damaged: dict[str, DamagedError] = {}  # by message, since a link may be on the way to several files
        self._is_begun = False  # whether a block was saved
        self._is_replaced = place.fresh  # whether the blocks that are there are removed first

    def check(self) -> None:
        """Compares the sweep that the folder holds with this one.

        Raises:
            ValueError: If it is another one, and is not to be replaced.
        """
        if self._place.fresh:
            return
        for name in ("sweep.json", "identity.json"):
            try:
                facts = read_json(self._place.below(name))
            except FileNotFoundError:
                continue
            except DamagedError as error:
                self._damaged[str(error)] = error
                continue
            self._is_replaced |= self._is_another(facts.get("identity"))

    def load(self, name: str, runs: pd.DataFrame) -> pd.DataFrame | None:
        """Returns a saved block of these runs, if there is one of this program."""
        if self._is_replaced:
            return None

        def read(info: dict[str, Any], digests: Mapping[str, str]) -> tuple[Any, pd.DataFrame]:
            with opened(self._place.below("blocks", name, "runs.csv"), digests.get("runs.csv", "")) as file:
                frame = read_csv(file, lambda column: KINDS.get(column, float))
                if list(frame.columns) != list(KINDS):
                    raise ValueError(f"its columns are {', '.join(map(str, frame.columns))}")
            return info.get("identity"), frame

        try:
            identity, frame = read_parts(self._place.below("blocks", name), "block.json", read)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self._damaged[str(error)] = error
            return None
        if self._is_another(identity) or not frame[["setting", "seed"]].equals(runs):
            return None
        self._num_found += 1
        return frame

    def save(self, name: str, frame: pd.DataFrame) -> None:
        """Writes a finished block. The first one replaces the sweep that is there, which has other blocks."""
        if not self._is_begun:
            folder = self._place.make()
            remove(folder / "sweep.json")
            if self._is_replaced:
                remove(folder / "blocks")
            write_json(folder / "identity.json", {"identity": self._identity.facts()})
            self._is_begun = True
        place = self._place.make("blocks", name)
        write_parts(place, "block.json", {"identity": self._identity.facts()}, {"runs.csv": csv_of(frame)})

    def lines(self) -> list[str]:
        """Returns what is said of blocks that were there; warns of damaged ones."""
        if self._damaged:
            warnings.warn(f"Computed again: {named_once(self._damaged.values())}", stacklevel=3)
        return [f"{self._num_found} blocks reused from {self._place.folder}/"] if self._num_found else []

    def _is_another(self, identity: Any) -> bool:
        """Returns whether a stored identity is that of another sweep. Raises an error if it is not to be replaced."""
        found = self._identity.differences(identity, accept_versions=self._place.accept_versions)
        if not found or self._place.replaces:
            return bool(found)
        more = f"; and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
        raise ValueError(
            f"{self._place.folder} holds another sweep: {'; '.join(found[:_MAX_SHOWN])}{more}. Choose another folder, "
            "or replace it with fresh=True (in a terminal --fresh)."
        )
