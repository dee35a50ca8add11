"""The Free Music Archive data set (Defferrard et al., arXiv 1612.01840), or any folder in its layout.

``ROOT/fma_metadata/tracks.csv`` and ``ROOT/[fma_SUBSET/]000/000002.mp3``, as the archives unpack. A folder is read
as the small corpora are (`read`); ``fma:SUBSET`` is downloaded where that is allowed (`provide`) and scanned as a
`Collection`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pandas as pd

from lib import UserError
from lib.data.collection import Collection
from lib.data.collection import scan as scan_collection
from lib.data.download import Archive, provide_archive
from lib.data.tracks import Candidate, Rules, Skipped, Track, scan

METADATA = Path("fma_metadata") / "tracks.csv"
SUBSETS = ("small", "medium", "large")
SPLITS = {"training": "train", "validation": "validation", "test": "test"}
RATE = 44100
LONGEST_HEADER = 1 << 20
"""Bytes that the header rows of the table may take: with millions of columns it would fill the memory."""
BASE = "https://os.unil.cloud.switch.ch/fma/"
SHA1 = {
    "metadata": "f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
    "small": "ade154f733639d52e35e32f5593efe5be76c6d70",
    "medium": "c67b69ea232021025fca9231fc1c7c1a063ab50b",
    "large": "497109f4dd721066b5ce5e5f250ec604dc78939e",
    "full": "0f0ace23fbe9ba30ecb7e95f763e435ea802b8ab",
}


def archive(name: str) -> Archive:
    """The published archive of the ``metadata`` or of a subset's clips."""
    return Archive(f"{BASE}fma_{name}.zip", "sha1", SHA1[name], 5.0 if name == "metadata" else 1.05)


def there(root: Path, subset: str) -> bool:
    """Whether ``root`` holds the table and the clips of ``subset``."""
    return (root / METADATA).is_file() and _has_clips(root, subset)


def provide(root: Path, subset: str, download: bool) -> None:
    """Have ``fma_metadata`` and the clips of ``subset`` unpacked in ``root`` (see `provide_archive`).

    Raises: UserError.
    """
    provide_archive(archive("metadata"), root, lambda: (root / METADATA).is_file(), download, "corpus.fma_root")
    provide_archive(archive(subset), root, lambda: _has_clips(root, subset), download, "corpus.fma_root")


def collection(
    root: Path, subset: str, cache: Path, workers: int, rate: int, seconds: float, hop_seconds: float
) -> tuple[Collection, list[Skipped]]:
    """``subset`` by the rules of `read`, and its segments of ``seconds`` every ``hop_seconds`` (see `scan`).

    Tracks that a smaller subset has too are scanned once for both.
    """
    folder, groups = _folder(root, subset).relative_to(root), defaultdict(list)
    for track, split, smallest in _rows(root / METADATA, subset):
        groups[smallest].append((str(folder / _clip(track)), SPLITS[split]))
    rules = Rules(seconds, min(rate, RATE), stereo=True)
    return scan_collection(root, [groups[key] for key in sorted(groups)], rules, hop_seconds, cache, workers)


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
        Candidate(f"{track:06d}", SPLITS[split], {"mixture": folder / _clip(track)})
        for track, split, _ in _rows(root / METADATA, subset)
    ]
    return scan(candidates, cache, workers, Rules(min_seconds, min(rate, RATE), stereo=True))


def _folder(root: Path, subset: str) -> Path:
    """Where the clips lie: a larger archive holds the smaller ones too, except that "full" has whole tracks."""
    names = ["full"] if subset == "full" else SUBSETS[SUBSETS.index(subset) :]
    return next((root / f"fma_{name}" for name in names if (root / f"fma_{name}").is_dir()), root)


def _has_clips(root: Path, subset: str) -> bool:
    return _folder(root, subset) != root or any(path.is_dir() for path in root.glob("[0-9][0-9][0-9]"))


def _clip(track: int) -> Path:
    return Path(f"{track // 1000:03d}", f"{track:06d}.mp3")


def _rows(path: Path, subset: str) -> list[tuple[int, str, str]]:
    """(track number, split, smallest subset) of ``subset``'s tracks, in order.

    Under FMA's two header rows a third holds only the index's name. Rows without number, split or subset are left out.

    Raises: UserError if the table is not FMA's, or names a split or subset that FMA has not, or a track twice with
    different ones.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(LONGEST_HEADER)
        if len(start) == LONGEST_HEADER and len(start.splitlines()) < 3:
            raise ValueError(f"its header rows take more than {LONGEST_HEADER} bytes")
        header = pd.read_csv(path, header=None, nrows=2, dtype=str)
        fields = {field: at for at, field in enumerate(zip(header.loc[0], header.loc[1], strict=True))}
        at = [0, fields["set", "split"], fields["set", "subset"]]
        table = pd.read_csv(path, header=None, skiprows=2, usecols=at, dtype=str)[at]
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{path}: not FMA's tracks.csv with its columns set/split and set/subset ({error})") from error
    table.columns = ["track", "split", "subset"]
    table = table[table["track"].str.fullmatch(r"[0-9]{1,9}", na=False)].fillna("").astype({"track": int})
    table = table.drop_duplicates()
    for track in table["track"][table["track"].duplicated()]:
        raise UserError(f"{path}: track {track} stands there twice, with different splits or subsets")
    for column, known in (("split", [*SPLITS]), ("subset", [*SUBSETS, "full"])):
        for row in table[~table[column].isin([*known, ""])].to_dict("records"):
            raise UserError(f"{path}: track {row['track']} is of {column} '{row[column]}', none of {', '.join(known)}")
    wanted = table["subset"].isin(SUBSETS[: SUBSETS.index(subset) + 1]) if subset != "full" else True
    return sorted(table[(table["split"] != "") & wanted].itertuples(index=False, name=None))
