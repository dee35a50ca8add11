"""Collections too large for an object per song: scanned once in processes, stored as one Parquet table of columns.

The table has a row per segment (path, split, rate, frames, digest, start, length, level) and one per file that was left
out, with the reason. The scan writes its results in parts: killed scans resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lib import UserError
from lib.data import audio
from lib.data.audio import SILENT_PEAK
from lib.data.segments import SILENCE_CHUNK, audible, chunks
from lib.data.tracks import DIGEST, Rules, Skipped, Track, content_digest, decoding, seekable_files, skip
from lib.machine.processes import Crash, in_processes
from lib.machine.progress import bar
from lib.store.files import atomic, file_lock
from lib.store.fingerprints import fingerprint

PART = 500
"""Files in a part of the scan: what a kill can cost."""
VERSION = 2
"""Raise it when the same files give another manifest: they are scanned again."""
SCHEMA = pa.schema({
    "path": pa.string(), "rate": pa.int32(), "frames": pa.int64(), "digest": pa.string(),
    "start": pa.float64(), "length": pa.float64(), "level": pa.float32(), "reason": pa.string(),
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Collection(Sequence[Track]):
    """Songs in columns; a `Track` is made only when it is asked for.

    ``songs`` has a row a song (path relative to ``root``, split, rate, frames, digest); ``track`` (row of the song),
    ``start`` and ``seconds`` an entry a segment. What libsndfile does not read whole has a copy in ``cache``.
    """

    root: Path
    cache: Path
    songs: pa.Table
    track: np.ndarray
    start: np.ndarray
    seconds: np.ndarray

    def __len__(self) -> int:
        return self.songs.num_rows

    def __getitem__(self, index: int | slice) -> Track | Collection:
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        row = range(len(self))[index]
        return self._song(*(column[row].as_py() for column in self.songs.columns))

    def __iter__(self) -> Iterator[Track]:
        for batch in self.songs.to_batches(1024):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield self._song(*row)

    def _song(self, path: str, split: str, rate: int, frames: int, digest: str) -> Track:
        file = self.root / path
        if len(digest) > DIGEST:  # it is another file that was scanned
            file = seekable_files({"mixture": file}, self.cache)["mixture"]
        return Track(Path(path).stem, split, rate, frames, {"mixture": file}, digest)

    def of_split(self, split: str) -> Collection:
        """The songs of a split, with their segments."""
        return self.take(np.flatnonzero(pc.equal(self.songs["split"], split)))

    def take(self, indices: Sequence[int]) -> Collection:
        """The songs of some (ascending) indices, with their segments."""
        indices = np.asarray(indices, np.int64)
        new = np.full(len(self), -1, np.int32)
        new[indices] = np.arange(len(indices))
        track = new[self.track]
        kept = track >= 0
        songs, chosen = self.songs.take(indices), (track[kept], self.start[kept], self.seconds[kept])
        return Collection(self.root, self.cache, songs, *chosen)

    def segments(self) -> pd.DataFrame:
        """What a `lib.segments.Manifest` holds: track, role, start and seconds of every segment."""
        role = pd.Categorical.from_codes(np.zeros(len(self.track), np.int8), ["mixture"])
        columns = {"track": self.track, "role": role, "start": self.start, "seconds": self.seconds}
        return pd.DataFrame(columns, copy=False)


SONG = ("path", "split", "rate", "frames", "digest")


def load(root: Path, manifest: Path) -> tuple[Collection, list[Skipped]]:
    """Open a manifest, of a scan in ``cache/collection``: the songs that have segments, and what was left out.

    Its paths are relative to ``root``.
    """
    texts = ["path", "split", "digest", "reason"]
    table = _table(manifest, columns=[*SONG, "start", "length", "reason"], read_dictionary=texts)
    out = table.filter(table["reason"].is_valid())
    table = table.filter(table["reason"].is_null()).unify_dictionaries().combine_chunks()
    path = table["path"].combine_chunks().indices.to_numpy()
    first = np.flatnonzero(np.diff(path, prepend=-1))  # the rows of a song are neighbours
    songs = table.select(SONG).take(first)
    songs = pa.table({name: songs[name].cast(pa.string()) if name in texts else songs[name] for name in SONG})
    track = np.repeat(np.arange(len(first), dtype=np.int32), np.diff(np.append(first, len(path))))
    start, seconds = (table[name].to_numpy() for name in ("start", "length"))
    skipped = [skip(root / row["path"], row["reason"]) for row in out.select(["path", "reason"]).to_pylist()]
    return Collection(root, manifest.parent.parent, songs.combine_chunks(), track, start, seconds), skipped


def scan(
    root: Path, groups: Sequence[Sequence[tuple[str, str]]], rules: Rules, hop_seconds: float, cache: Path, workers: int
) -> tuple[Collection, list[Skipped]]:
    """Decode every file of ``groups`` of (path relative to ``root``, split), or read the result of an earlier scan.

    A file is left out if it is missing, breaks ``rules``, cannot be decoded, ends its process twice, or has no segment
    of ``rules.min_seconds`` every ``hop_seconds`` that is not half silent. Parts and manifest are in
    ``cache/collection``, under keys over names, sizes and times of the files: a group within another list is not
    scanned again. Delete that folder to have everything scanned again.

    Raises: UserError if files cannot be read for reasons outside of them; the rest is kept.
    """
    folder, missing, plan = cache / "collection", [], {}
    cut = [rules, hop_seconds, SILENT_PEAK, SILENCE_CHUNK, str(SCHEMA), VERSION]
    for part in (group[at : at + PART] for group in groups for at in range(0, len(group), PART)):
        stamps = {path: audio.stamp(root / path) for path, _ in part}
        missing += [skip(root / path, "no such file") for path, stamp in stamps.items() if not stamp]
        files = [[path, *stamp] for path, stamp in stamps.items() if stamp]
        if files:
            plan[folder / f"part-{fingerprint([cut, files])}.parquet"] = [path for path, *_ in files]
    splits = {path: split for group in groups for path, split in group}
    manifest = folder / f"manifest-{fingerprint([[file.name for file in plan], sorted(splits.items())])}.parquet"
    if not manifest.exists():
        with file_lock(folder / "lock"):
            if not manifest.exists():  # another process may have been faster
                _scan(partial(look, root, cache, rules, hop_seconds), plan, workers)
                _merge(plan, splits, manifest)
    collection, skipped = load(root, manifest)
    return collection, skipped + missing


class Heard(NamedTuple):
    """The scan of a file: header, content digest and segments (start, length, level in dB).

    Or why it is left out; ``settled`` unless the cause is outside of the file.
    """

    rate: int = 0
    frames: int = 0
    digest: str = ""
    segments: tuple[tuple[float, float, float], ...] = ()
    reason: str = ""
    settled: bool = True


def look(root: Path, cache: Path, rules: Rules, hop_seconds: float, path: str) -> Heard:
    """Decode a file, once and in blocks, and find its segments and their levels."""
    source = {"mixture": root / path}
    try:
        digest, files = content_digest(source), seekable_files(source, cache)
        info = audio.probe(files["mixture"])
        if broken := rules.broken_by(info):
            return Heard(reason=broken)
        digest += decoding(source, files)
        track = Track(path, "", info.rate, info.frames, files, digest)
        blocks = [_measured(block) for block in chunks(track, "mixture", SILENCE_CHUNK)]
    except audio.UndecodableError as error:
        return Heard(reason=error.reason)
    except OSError as error:
        return Heard(reason=error.strerror or str(error), settled=False)
    peaks, powers = np.concatenate([*blocks, np.zeros((2, 0))], 1)
    segments = []
    for start, length in audible(peaks, track.seconds, rules.min_seconds, hop_seconds):
        inside = powers[round(start / SILENCE_CHUNK) : round((start + length) / SILENCE_CHUNK)]
        segments.append((start, length, 10 * math.log10(max(inside.mean(), 1e-12))))
    if not segments:
        return Heard(reason="half silent throughout")
    return Heard(info.rate, info.frames, digest, tuple(segments))


def _measured(block: np.ndarray) -> np.ndarray:
    """Peaks and mean squares of the chunks of a block [2, chunks, samples] -> [2, chunks]."""
    peaks = np.maximum(block.max((0, 2)), -block.min((0, 2)))
    return np.stack([peaks, np.einsum("ckt,ckt->k", block, block) / (2 * block.shape[2])])


def _scan(function: Callable[[str], Heard], plan: dict[Path, list[str]], workers: int) -> None:
    """Make the parts of ``plan`` that are not there."""
    todo = [(part, path) for part, paths in plan.items() if not part.exists() for path in paths]
    found: dict[Path, dict[str, Heard]] = {part: {} for part, _ in todo}
    known, unread = sum(map(len, plan.values())) - len(todo), []
    progress = bar("scanning", known + len(todo), known, "file")
    for done, (index, heard) in enumerate(in_processes(function, [path for _, path in todo], workers), known + 1):
        part, path = todo[index]
        heard = found[part][path] = Heard(reason=heard.reason) if isinstance(heard, Crash) else heard
        unread += [] if heard.settled else [f"{path}: {heard.reason}"]
        if len(found[part]) == len(plan[part]):
            kept = found.pop(part)
            if all(heard.settled for heard in kept.values()):
                _write(part, [row for path in plan[part] for row in _rows(path, kept[path])])
        progress(done)
    if unread:
        what = f"{len(unread)} file(s) cannot be read, first {min(unread)}"
        raise UserError(f"{what}: fix or remove them and call again, the scan resumes")


def _rows(path: str, heard: Heard) -> list[tuple]:
    facts = (path, heard.rate, heard.frames, heard.digest)
    out = [(path, *[None] * 6, heard.reason)]
    return out if heard.reason else [(*facts, *segment, None) for segment in heard.segments]


def _write(part: Path, rows: list[tuple]) -> None:
    with atomic(part) as temporary:
        columns = dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table(columns, SCHEMA), temporary)


def _merge(plan: dict[Path, list[str]], splits: dict[str, str], manifest: Path) -> None:
    table = pa.concat_tables([SCHEMA.empty_table(), *map(_table, plan)])
    table = table.append_column("split", pa.array([splits[path] for path in table["path"].to_pylist()], pa.string()))
    with atomic(manifest) as temporary:
        table = table.sort_by([("path", "ascending"), ("start", "ascending")]).combine_chunks()
        pq.write_table(table, temporary, compression="zstd")


def _table(file: Path, **options: object) -> pa.Table:
    """Raises: UserError if a file of the scan's own is damaged."""
    try:
        return pq.read_table(file, **options)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: damaged ({error}): delete it to have its music scanned again") from error
