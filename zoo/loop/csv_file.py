"""Writes tables of text and numbers, and reads them exactly.

`pandas.read_csv` rounds numbers by default in some versions. In other versions it warns if it is told not to.
"""

import csv
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from zoo.loop.files import Write

if TYPE_CHECKING:
    import pandas as pd


def csv_of(frame: "pd.DataFrame") -> Write:
    """Returns a function that writes a table, without its index, to a file."""
    text = frame.to_csv(index=False)
    return lambda file: file.write(text.encode())


def read_csv(file: BinaryIO, kind_of: Callable[[str], type]) -> "pd.DataFrame":
    """Returns the table in a file. An empty cell of a `float` column is NaN.

    Args:
        file: The file.
        kind_of: Returns the type of a column by its name: `str`, `int` or `float`.

    Raises:
        ValueError: If the file holds no such table.
    """
    import pandas as pd

    header, *rows = csv.reader(io.StringIO(file.read().decode(), newline=""))
    if any(len(row) != len(header) for row in rows):
        raise ValueError("its rows are not as long as its header")
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return pd.DataFrame({name: _column(texts, kind_of(name)) for name, texts in zip(header, columns, strict=True)})


def _column(texts: tuple[str, ...], kind: type) -> "pd.Series":
    import pandas as pd

    if kind is str:
        return pd.Series(list(texts), dtype=str)
    if kind is int:
        return pd.Series(np.array([int(text) for text in texts], np.int64))
    return pd.Series(np.array([float(text) if text else np.nan for text in texts], np.float64))
