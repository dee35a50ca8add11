"""Tidy tables as CSV files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lib import UserError
from lib.store.files import atomic

COLUMNS = ("experiment", "method", "seed", "labeled_songs", "fold", "song", "stem", "metric", "value")
INTEGERS = ("seed", "labeled_songs", "fold")  # integers, or missing (a baseline has no seed)
TEXTS = dict.fromkeys(("song", "axis", "level", "condition", "participant", "file", "source"), str)
"""Columns of free names, which may look like numbers."""


def song_rows(song: str, scores: list[tuple[str, str, float]], **facts: object) -> list[dict]:
    """Table rows of one song from the ``scores`` of `score_song`; ``facts`` are the other columns (experiment, ...)."""
    return [{**facts, "song": song, "stem": stem, "metric": metric, "value": value} for stem, metric, value in scores]


def table(rows: Iterable[dict]) -> pd.DataFrame:
    """A tidy score table with `COLUMNS`; ``seed``, ``labeled_songs`` and ``fold`` may be missing (baselines)."""
    return whole(pd.DataFrame(list(rows), columns=list(COLUMNS)))


def whole(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns of `INTEGERS` as nullable integers."""
    return frame.astype({name: "Int64" for name in INTEGERS if name in frame})


def write_table(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table as CSV, atomically, with six decimals (equal numbers give equal bytes); nan is an empty field."""
    frame = whole(frame).copy()
    for name in frame.select_dtypes("floating"):
        frame[name] = frame[name].astype(float).round(6) + 0.0  # no "-0.000000"
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a table of `write_table`; only an empty field is missing (a song may be called "NA", or "01").

    Raises: UserError if the table is missing or damaged.
    """
    try:
        return whole(pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=TEXTS))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such table; run its notebook first (./run_all.sh)") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no table ({error}); delete it and run ./run_all.sh") from error
