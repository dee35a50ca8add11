"""Any folder of music, searched recursively."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from lib.data.tracks import DIGEST, Candidate, Rules, Skipped, Track, printable, scan, skip

MUSIC = re.compile(
    r"\.(wave?|w64|rf64|bwf|flac|og[gax]|opus|spx|mp[1234ac]|m4[abrv]|aac|adts|aif[fc]?|caf|au|snd|wma|asf|wv|ape|mk[av]"
    r"|webm|tta|tak|shn|e?ac3|dts|amr|dsf|voc|ra|rm|mov|avi|flv|mpe?g|ts)$",
    re.IGNORECASE,
)
"""Names of files that hold music."""
OTHER = re.compile(
    r"^\.|~$|^(copyright|copying|licen[cs]e|readme|authors|changelog|makefile)$"
    r"|\.(jpe?g|png|gif|bmp|webp|tiff?|svg|ico|heic|psd|pdf|txt|md|rst|rtf|docx?|odt|xlsx?|html?|css|js|xml|json|ya?ml"
    r"|csv|tsv|ini|cfg|conf|log|nfo|cue|m3u8?|pls|xspf|sfv|md5|sha\d*|ffp|lrc|srt|vtt|zip|rar|7z|tar|[gx]z|bz2|zst|deb"
    r"|iso|torrent|url|lnk|db|sqlite|parquet|np[yz]|pth?|ckpt|safetensors|pkl|py|pyc|ipynb|sh|bat|exe|dll|so|jar|midi?"
    r"|smf|kar|sf[23z]|asd|als|flp|rpp|reapeaks|pkf|mscz|musicxml|jams|part|tmp|bak|lock)$",
    re.IGNORECASE,
)
"""Names of files that hold none; all others are tried."""


def read(
    root: Path, cache: Path, workers: int, min_seconds: float, tested: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[Track], list[Skipped]]:
    """Tracks named by their relative path, in sorted order; about 5% (two at least, of four or more) validate.

    Which ones is decided by a hash of the relative path, so neither an album nor a letter of the alphabet is favoured.
    Files shorter than ``min_seconds`` or undecodable are skipped; hidden ones are not looked at. ``tested`` are content
    digests of the files of songs that models are tested on, with the names of these songs: they are skipped as well.
    """
    files, skipped = music_files(root)
    candidates = [Candidate(printable(str(path.relative_to(root))), "train", {"mixture": path}) for path in files]
    tracks, unusable = scan(candidates, cache, workers, Rules(min_seconds))
    songs = [tested.get(track.digest[:DIGEST]) for track in tracks]
    pairs = list(zip(tracks, songs, strict=True))
    skipped += [skip(root / track.name, f"belongs to '{song}', which is tested") for track, song in pairs if song]
    return _with_validation([track for track, song in pairs if not song]), skipped + unusable


def music_files(root: Path) -> tuple[list[Path], list[Skipped]]:
    """Files in a folder and those within it that may hold music, sorted, and folders that cannot be read."""
    found, skipped, seen = [], [], set()

    def unread(error: OSError) -> None:
        skipped.append(skip(error.filename, f"cannot be read: {error.strerror}"))

    for folder, folders, files in os.walk(root, onerror=unread, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:  # a link back up the tree would be walked for ever
            found += [Path(folder, name) for name in files if not OTHER.search(name)]
        seen.add(real)
    return sorted(found), skipped


def _with_validation(tracks: list[Track]) -> list[Track]:
    count = max(2, round(0.05 * len(tracks))) if len(tracks) >= 4 else 0
    ranked = sorted(tracks, key=lambda track: hashlib.sha256(track.name.encode()).digest())
    chosen = {track.name for track in ranked[:count]}
    return [replace(track, split="validation") if track.name in chosen else track for track in tracks]
