"""The Free Music Archive data set (Defferrard et al., arXiv 1612.01840), or any folder in its layout.

``ROOT/fma_metadata/tracks.csv`` and ``ROOT/[fma_SUBSET/]000/000002.mp3``, as the archives unpack.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib import UserError
from lib.corpora.tracks import Candidate, Rules, Skipped, Track, scan

METADATA = Path("fma_metadata") / "tracks.csv"
SUBSETS = ("small", "medium", "large")
SPLITS = {"training": "train", "validation": "validation", "test": "test"}
RATE = 44100


def read(
    root: Path, subset: str, cache: Path, workers: int, rate: int, min_seconds: float
) -> tuple[list[Track], list[Skipped]]:
    """Tracks of ``subset`` (which includes the smaller ones; "full" is every row), sorted by FMA's track number.

    Left out, with the reason: missing, undecodable, mono, shorter than ``min_seconds``, sampled below 44.1 kHz (or
    below ``rate`` in Hz where that is lower).
    """
    if subset not in (*SUBSETS, "full"):
        raise UserError(f"corpus.fma_subset: {subset!r} is none of {', '.join(SUBSETS)}, full")
    folder = _folder(root, subset)
    candidates = [
        Candidate(f"{track:06d}", SPLITS[split], {"mixture": folder / f"{track // 1000:03d}" / f"{track:06d}.mp3"})
        for track, split in _rows(root / METADATA, subset)
    ]
    return scan(candidates, cache, workers, Rules(min_seconds, min(rate, RATE), stereo=True))


def _folder(root: Path, subset: str) -> Path:
    """Where the clips lie: a larger archive holds the smaller ones too, except that "full" has whole tracks."""
    names = ["full"] if subset == "full" else SUBSETS[SUBSETS.index(subset) :]
    return next((root / f"fma_{name}" for name in names if (root / f"fma_{name}").is_dir()), root)


def _rows(path: Path, subset: str) -> list[tuple[int, str]]:
    """(track number, split) of the subset; under FMA's two header rows a third holds only the index's name."""
    try:
        header = pd.read_csv(path, header=None, nrows=2, dtype=str)
        fields = {field: at for at, field in enumerate(zip(header.loc[0], header.loc[1], strict=True))}
        at = [0, fields["set", "split"], fields["set", "subset"]]
        table = pd.read_csv(path, header=None, skiprows=2, usecols=at, dtype=str)[at]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not FMA's tracks.csv with its columns set/split and set/subset ({error})") from error
    table.columns = ["track", "split", "subset"]
    wanted = table["track"].str.fullmatch(r"\d+", na=False) & table["split"].isin(list(SPLITS))
    if subset != "full":
        wanted &= table["subset"].isin(SUBSETS[: SUBSETS.index(subset) + 1])
    table = table[wanted]
    return sorted(zip(table["track"].astype(int), table["split"], strict=True))
