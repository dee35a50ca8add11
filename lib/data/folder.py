"""Any folder of music, searched recursively."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from lib.data.tracks import DIGEST, Candidate, Rules, Skipped, Track, scan, skip

MUSIC = re.compile(
    r"\.(wave?|w64|rf64|bwf|flac|og[gax]|opus|spx|mp[1234ac]|m4[abrv]|aac|adts|aif[fc]?|caf|au|snd|wma|asf|wv|ape|mk[av]"
    r"|webm|tta|tak|shn|e?ac3|dts|amr|dsf|voc|ra|rm|mov|avi|flv|mpe?g|ts)$",
    re.IGNORECASE,
)
"""Names of files that may hold music."""


def read(
    root: Path, cache: Path, workers: int, min_seconds: float, tested: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[Track], list[Skipped]]:
    """Tracks named by their relative path, in sorted order; about 5% (two at least, of four or more) validate.

    Which ones is decided by a hash of the relative path, so neither an album nor a letter of the alphabet is favoured.
    Files shorter than ``min_seconds`` or undecodable are skipped; hidden ones are not looked at. ``tested`` are content
    digests of the files of songs that models are tested on, with the names of these songs: they are skipped as well.
    """
    candidates, skipped = [], []
    for path in sorted(_music(root)):
        name = path.relative_to(root).as_posix()
        if name.isprintable():
            candidates.append(Candidate(name, "train", {"mixture": path}))
        else:
            skipped.append(skip(path, "file name holds control characters or invalid UTF-8: rename it"))
    tracks, unusable = scan(candidates, cache, workers, Rules(min_seconds))
    songs = [tested.get(track.digest[:DIGEST]) for track in tracks]
    pairs = list(zip(tracks, songs, strict=True))
    skipped += [skip(root / track.name, f"belongs to '{song}', which is tested") for track, song in pairs if song]
    return _with_validation([track for track, song in pairs if not song]), skipped + unusable


def _music(root: Path) -> Iterator[Path]:
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up the tree would be walked for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, f) for f in files if not f.startswith(".") and MUSIC.search(f))


def _with_validation(tracks: list[Track]) -> list[Track]:
    count = max(2, round(0.05 * len(tracks))) if len(tracks) >= 4 else 0
    ranked = sorted(tracks, key=lambda track: hashlib.sha256(track.name.encode()).digest())
    chosen = {track.name for track in ranked[:count]}
    return [replace(track, split="validation") if track.name in chosen else track for track in tracks]
