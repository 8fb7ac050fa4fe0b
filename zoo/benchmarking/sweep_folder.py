"""The finished blocks of a sweep in a folder, so that an interrupted sweep goes on where it was."""

import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from zoo.benchmarking.sweep_result import KINDS
from zoo.loop.csv_file import read_csv
from zoo.loop.files import DamagedError, Write, below, make_below, named_once, opened, read_parts, write_parts
from zoo.loop.identity import Identity

_MAX_SHOWN = 2  # differences that a message names


class AnotherSweepError(Exception):
    """The blocks in a folder are those of another sweep."""

    def __init__(self, differences: list[str]):
        super().__init__()
        self.differences = differences


class BlockFolder:
    """Saves blocks of runs, and finds those that the same program made.

    Args:
        folder: The folder of the sweep.
        identity: What the program is.
        fresh: Whether no block is found.
        accept_versions: Whether blocks of other versions are found.
    """

    def __init__(self, folder: pathlib.Path, identity: Identity, *, fresh: bool, accept_versions: bool):
        self._folder, self._identity, self._fresh = folder, identity, fresh
        self._accept_versions = accept_versions
        self._num_found = 0
        self._damaged: list[DamagedError] = []

    def load(self, name: str, runs: pd.DataFrame) -> pd.DataFrame | None:
        """Returns a saved block of these runs, if there is one of this program."""
        if self._fresh:
            return None
        place = below(self._folder, "blocks", name)

        def read(info: dict[str, Any], digests: Mapping[str, str]) -> pd.DataFrame | None:
            found = self._identity.differences(info.get("identity"), accept_versions=self._accept_versions)
            if found:
                raise AnotherSweepError(found)
            with opened(place / "runs.csv", digests.get("runs.csv", "")) as file:
                frame = read_csv(file, lambda column: KINDS.get(column, float))
                if list(frame.columns) != list(KINDS):
                    raise ValueError(f"its columns are {', '.join(map(str, frame.columns))}")
            return frame

        try:
            frame = read_parts(place, "block.json", read)
        except FileNotFoundError:
            return None
        except AnotherSweepError as error:
            more = f"; and {len(error.differences) - _MAX_SHOWN} more" if len(error.differences) > _MAX_SHOWN else ""
            raise ValueError(
                f"{self._folder} holds another sweep: {'; '.join(error.differences[:_MAX_SHOWN])}{more}. Choose "
                "another folder, or replace it with fresh=True (in a terminal --fresh)."
            ) from None
        except DamagedError as error:
            self._damaged.append(error)
            return None
        if frame is None or not frame[["setting", "seed"]].equals(runs):
            return None
        self._num_found += 1
        return frame

    def save(self, name: str, frame: pd.DataFrame) -> None:
        """Writes a finished block."""
        text = frame.to_csv(index=False)
        place = make_below(self._folder, "blocks", name)
        write_parts(place, "block.json", {"identity": self._identity.facts()}, {"runs.csv": _writer(text)})

    def lines(self) -> list[str]:
        """Returns what is said of blocks that were there; warns of damaged ones."""
        if self._damaged:
            warnings.warn(f"Computed again: {named_once(self._damaged)}", stacklevel=3)
        return [f"{self._num_found} blocks reused from {self._folder}/"] if self._num_found else []


def _writer(text: str) -> Write:
    return lambda file: file.write(text.encode())
