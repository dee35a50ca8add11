"""Answers of listeners, on disk before the next page: one CSV file per test and participant."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from lib import UserError
from lib.store.files import file_lock

COLUMNS = ["time", "test", "participant", "trial", "question", "song", "stem"]
COLUMNS += ["slot", "condition", "value", "submitted"]
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class Answers:
    """The answers of one participant to one test: ``FOLDER/TEST-CODE.csv``.

    `append` writes complete lines under a lock and flushes them to disk; readers drop a line that a power failure cut.
    Later lines replace earlier ones of the same trial and slot.

    Raises: UserError if the code is not 2 to 12 letters and digits.
    """

    def __init__(self, folder: Path, test: str, participant: str):
        participant = participant.strip().upper()
        if not re.fullmatch(r"[A-Z0-9]{2,12}", participant):
            raise UserError("A code has 2 to 12 letters and digits. Please do not use your name.")
        self.test, self.participant = test, participant
        self.path = folder / f"{test}-{participant}.csv"

    @classmethod
    def of_new(cls, folder: Path, test: str, draw: np.random.Generator) -> Answers:
        """Answers under a new random code."""
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            answers = cls(folder, test, "".join(draw.choice(list(ALPHABET), 4)))
            try:
                answers.path.touch(exist_ok=False)
                return answers
            except FileExistsError:
                continue

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Append rows (without time, test and participant)."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        for row in rows:
            writer.writerow({"time": now, "test": self.test, "participant": self.participant, **row})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self.path.with_suffix(".lock")), open(self.path, "a+b") as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
            header = b"" if whole else ",".join(COLUMNS).encode() + b"\n"
            file.write(header + text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> pd.DataFrame:
        """The last row of every trial and slot, ordered by trial."""
        return latest(_lines(self.path)) if self.path.exists() else pd.DataFrame(columns=COLUMNS)

    def finished(self) -> set[int]:
        """Numbers of the submitted trials."""
        rows = self.read()
        return set(rows.loc[rows["submitted"] == 1, "trial"])


def _lines(path: Path) -> pd.DataFrame:
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    if not content:
        return pd.DataFrame(columns=COLUMNS)
    texts = dict.fromkeys(("participant", "song", "condition"), str)  # a code may read 007, a song NA
    numbers = dict.fromkeys(("trial", "slot", "value", "submitted"), "int64")
    try:
        table = pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""], dtype=texts | numbers)
        return table[COLUMNS]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not answers to a listening test ({error}): repair or remove it") from error


def latest(lines: pd.DataFrame) -> pd.DataFrame:
    """The last line of every participant, trial and slot; submitted lines take precedence."""
    keys = ["test", "participant", "trial", "slot"]
    order = lines.sort_values("submitted", kind="stable").drop_duplicates(keys, keep="last")
    return order.sort_values(keys, ignore_index=True)


def collected(folder: Path, test: str) -> pd.DataFrame:
    """The submitted answers of all participants; empty if there are none."""
    frames = [latest(_lines(path)) for path in sorted(folder.glob(f"{test}-*.csv"))]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(frames, ignore_index=True)
    return table[table["submitted"] == 1].reset_index(drop=True)
