"""Tables are read exactly as pandas wrote them, without a warning."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest

from zoo.loop.csv_file import read_csv

KINDS = {"label": str, "count": int}


def read(text):
    with warnings.catch_warnings(action="error"):
        return read_csv(io.BytesIO(text.encode()), lambda name: KINDS.get(name, float))


def test_what_was_written():
    values = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    frame = pd.DataFrame({"label": ["nan", "", 'a,"b"\n', "1"] * 50, "count": 2**62 + np.arange(200), "value": values})
    frame.loc[3:6, "value"] = [np.nan, np.inf, -np.inf, 0.1]
    pd.testing.assert_frame_equal(read(frame.to_csv(index=False)), frame.astype({"label": str}))
    empty = frame.iloc[:0]
    assert read(empty.to_csv(index=False)).dtypes.tolist() == frame.astype({"label": str}).dtypes.tolist()


@pytest.mark.parametrize(
    "text", ["", "value\nx", "count\n1.5", "count\n" + "9" * 30, "value,count\n1", "value\n1,2", "a\n\n"]
)
def test_what_is_no_such_table(text):
    with pytest.raises((ValueError, OverflowError)):
        read(text)
