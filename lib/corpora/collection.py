"""Collections too large for an object a song: scanned once in processes, kept as one Parquet table, read as columns.

The table has a row a segment (path, split, rate, frames, digest, start, length, level) and one for every file that was
left out, with the reason. The scan keeps what it finds in parts, so that one that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lib import UserError, audio
from lib.corpora.silence import SILENCE_CHUNK, SILENT_PEAK, audible, chunks
from lib.corpora.tracks import Rules, Skipped, Track, content_digest, skip
from lib.progress import bar
from lib.runs import atomic, fingerprint, held

PART = 500
"""Files in a part of the scan: what a kill can cost, divided among the processes."""
ATTEMPTS, PATIENCE = 2, 600.0
"""How often a file may end the process that looks at it, and seconds that it may take."""
SCHEMA = pa.schema({
    "path": pa.string(), "rate": pa.int32(), "frames": pa.int64(), "digest": pa.string(),
    "start": pa.float64(), "length": pa.float64(), "level": pa.float32(), "reason": pa.string(),
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Collection(Sequence[Track]):
    """Songs in columns; a `Track` is made only when it is asked for.

    ``songs`` has a row a song (path relative to ``root``, split, rate, frames, digest); ``track`` (row of the song),
    ``start`` and ``seconds`` an entry a segment.
    """

    root: Path
    songs: pa.Table
    track: np.ndarray
    start: np.ndarray
    seconds: np.ndarray

    def __len__(self) -> int:
        return self.songs.num_rows

    @overload
    def __getitem__(self, index: int) -> Track: ...
    @overload
    def __getitem__(self, index: slice) -> Collection: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        row = range(len(self))[index]
        return self._song(*(column[row].as_py() for column in self.songs.columns))

    def __iter__(self) -> Iterator[Track]:
        for batch in self.songs.to_batches(1024):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield self._song(*row)

    def _song(self, path: str, split: str, rate: int, frames: int, digest: str) -> Track:
        return Track(Path(path).stem, split, rate, frames, {"mixture": self.root / path}, digest)

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
        return Collection(self.root, self.songs.take(indices), track[kept], self.start[kept], self.seconds[kept])

    def segments(self) -> pd.DataFrame:
        """What a `lib.segments.Manifest` holds: track, role, start and seconds of every segment."""
        role = pd.Categorical.from_codes(np.zeros(len(self.track), np.int8), ["mixture"])
        columns = {"track": self.track, "role": role, "start": self.start, "seconds": self.seconds}
        return pd.DataFrame(columns, copy=False)


SONG = ("path", "split", "rate", "frames", "digest")


def load(root: Path, manifest: Path) -> tuple[Collection, list[Skipped]]:
    """Open a manifest whose paths are relative to ``root``: the songs that have segments, and what was left out."""
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
    return Collection(root, songs.combine_chunks(), track, start, seconds), skipped


def scan(
    root: Path,
    groups: Sequence[Sequence[tuple[str, str]]],
    rules: Rules,
    hop_seconds: float,
    cache: Path,
    workers: int,
) -> tuple[Collection, list[Skipped]]:
    """Look into every file of ``groups`` of (path relative to ``root``, split), or read what an earlier scan found.

    A file is left out if it is missing, breaks ``rules``, cannot be decoded, ends its process twice, or has no segment
    of ``rules.min_seconds`` every ``hop_seconds`` that is not half silent. Parts and manifest lie in
    ``cache/collection``, under keys over names, sizes and times of the files: a group that comes again within another
    list is not scanned again. Delete that folder to have all looked at again.

    Raises: UserError if files cannot be read for reasons that lie outside of them; the rest is kept.
    """
    folder, missing, plan = cache / "collection", [], {}
    cut = [rules, hop_seconds, SILENT_PEAK, SILENCE_CHUNK, str(SCHEMA)]
    for part in (group[at : at + PART] for group in groups for at in range(0, len(group), PART)):
        stamps = {path: _stamp(root / path) for path, _ in part}
        missing += [skip(root / path, "no such file") for path, stamp in stamps.items() if not stamp]
        files = [[path, *stamp] for path, stamp in stamps.items() if stamp]
        if files:
            plan[folder / f"part-{fingerprint([cut, files])}.parquet"] = [path for path, *_ in files]
    splits = {path: split for group in groups for path, split in group}
    manifest = folder / f"manifest-{fingerprint([[file.name for file in plan], sorted(splits.items())])}.parquet"
    if not manifest.exists():
        with held(folder / "lock"):
            if not manifest.exists():  # another process may have been faster
                _scan(partial(look, root, rules, hop_seconds), plan, workers)
                _merge(plan, splits, manifest)
    collection, skipped = load(root, manifest)
    return collection, skipped + missing


class Heard(NamedTuple):
    """What is found in a file: header, content digest and segments (start, length, level in dB).

    Or why it is left out; ``settled`` unless the cause lies outside of the file.
    """

    rate: int = 0
    frames: int = 0
    digest: str = ""
    segments: tuple[tuple[float, float, float], ...] = ()
    reason: str = ""
    settled: bool = True


def look(root: Path, rules: Rules, hop_seconds: float, path: str) -> Heard:
    """Decode a file, once and in blocks, and find its segments and their levels."""
    files = {"mixture": root / path}
    try:
        digest = content_digest(files)
        info = audio.probe(files["mixture"])
        if broken := rules.broken_by(info):
            return Heard(reason=broken)
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
        heard = Heard(reason=heard.reason) if isinstance(heard, Crash) else heard
        found[part][path] = heard
        if not heard.settled:
            unread.append(f"{path}: {heard.reason}")
        if len(found[part]) == len(plan[part]):
            kept = found.pop(part)
            if all(heard.settled for heard in kept.values()):
                _write(part, [row for path in plan[part] for row in _rows(path, kept[path])])
        progress(done)
    if unread:
        raise UserError(
            f"{len(unread)} file(s) cannot be read, first {min(unread)}: mend or remove them and call again, "
            "the scan goes on where it is"
        )


def _rows(path: str, heard: Heard) -> list[tuple]:
    if heard.reason:
        return [(path, None, None, None, None, None, None, heard.reason)]
    return [(path, heard.rate, heard.frames, heard.digest, *segment, None) for segment in heard.segments]


def _write(part: Path, rows: list[tuple]) -> None:
    columns = dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True))
    with atomic(part) as temporary:
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
        raise UserError(f"{file}: damaged ({error}): delete it to have its music scanned anew") from error


def _stamp(path: Path) -> list[int]:
    """Size and time of a file; nothing if there is none."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


class Crash(NamedTuple):
    """In place of a result: the item ended every process that was given it."""

    reason: str


def in_processes(function: Callable, items: Sequence, workers: int) -> Iterator[tuple[int, object]]:
    """(index, ``function(item)``) as they are done, in processes of their own; function and items must be picklable.

    An item whose process dies, or takes longer than `PATIENCE`, is tried `ATTEMPTS` times, then its result is a
    `Crash`: a fault in a decoder costs one file. Exceptions of ``function`` are raised here. Raises: UserError if a
    process cannot start.
    """
    todo, attempts = deque(range(len(items))), Counter()
    team = [_Worker(function) for _ in range(min(max(1, workers), len(items)))]
    try:
        for worker in team:
            worker.give(todo[0], items[todo.popleft()])
        while busy := {worker.pipe: worker for worker in team if worker.index is not None}:
            for pipe in wait(busy, timeout=1.0):
                worker = busy[pipe]
                index, result = worker.index, worker.result()
                attempts[index] += 1
                again = isinstance(result, Crash) and attempts[index] < ATTEMPTS
                if again:
                    todo.appendleft(index)
                if todo:
                    if isinstance(result, Crash):
                        team.remove(worker)
                        team.append(worker := _Worker(function))
                    worker.give(todo[0], items[todo.popleft()])
                if not again:
                    yield index, result
            for worker in busy.values():
                worker.end_if_late()
    finally:
        for worker in team:
            worker.end()


class _Worker:
    """A process that answers one item at a time; ``index`` is that of the item it is at."""

    def __init__(self, function: Callable):
        context = multiprocessing.get_context("spawn")  # forked copies of a process with threads may hang
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.ready, self.index, self.since, self.late = False, None, 0.0, False

    def give(self, index: int, item: object) -> None:
        try:
            self.ready = self.ready or self.pipe.recv()
        except EOFError:
            raise UserError(f"no process to scan with: one {self.end()} as it started") from None
        self.index, self.since = index, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # `result` finds that it is gone
            self.pipe.send(item)

    def result(self) -> object:
        self.index = None
        try:
            failed, answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            return Crash(f"the process that decoded it {self.end()}, {ATTEMPTS} times")
        if failed:
            raise answer
        return answer

    def end_if_late(self) -> None:
        if self.index is not None and time.monotonic() - self.since > PATIENCE:
            self.late = True
            self.process.kill()

    def end(self) -> str:
        """End the process, if it has not ended, and say how it did."""
        self.pipe.close()
        self.process.join(0.5)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        if self.late:
            return f"took longer than {PATIENCE:g} s"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _serve(pipe: Connection, function: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders lament every bad frame there, between the lines of the bar
    pipe.send(True)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        while True:
            item = pipe.recv()
            try:
                answer = False, function(item)
            except Exception as error:
                answer = True, error
            pipe.send(answer)
