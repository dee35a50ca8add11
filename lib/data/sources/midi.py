"""Compositions by people, as MIDI in Debian's packages: which have drums, a bass and two or more other parts."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from lib.data.audio import UndecodableError
from lib.data.composed.arrange import BASS
from lib.data.composed.midi import DRUM_CHANNEL, Score, read
from lib.data.sources.likeness import SHORTEST
from lib.data.sources.packages import Packages
from lib.store.files import fitted

GAMES = ("freedoom", "simutrans-data", "openttd-openmsx")
WANTED = re.compile(r"\.(midi?|wad)$", re.IGNORECASE)
LUMPS = 1 << 16
"""How many lumps a WAD file may hold."""


def choose(folder: Path, files: list[str], earlier: list[dict], workers: int) -> list[dict]:
    """A row for each file, and for each song in a WAD file, with the reason if it is left out.

    Copies of one song are kept: `lib.data.composed.arrange` notices them, whatever source they are from.
    """
    songs = [(path, path) for path in files if not path.lower().endswith(".wad")]
    rows = []
    for wad in (path for path in files if path.lower().endswith(".wad")):
        try:
            songs += [(song, wad) for song in _songs(folder, wad)]
        except (ValueError, struct.error) as error:
            rows.append({"piece": wad, "left_out": f"damaged, or no WAD file ({error})"})
    for path, file in songs:
        row = {"piece": path, "file": file, "left_out": ""}
        try:
            score = read(folder / path)
        except UndecodableError as error:
            rows.append(row | {"left_out": error.reason})
            continue
        facts = {"seconds": round(score.seconds, 3), "left_out": _lacking(score), "note": f"{len(score.lines)} parts"}
        rows.append(row | facts)
    return rows


def _lacking(score: Score) -> str:
    """Why a song is left out, empty if it is not."""
    drums = [line for line in score.lines if line.channel == DRUM_CHANNEL]
    basses = [line for line in score.lines if line not in drums and line.program in BASS]
    others = len(score.lines) - len(drums) - len(basses)
    if score.seconds < SHORTEST:
        return f"under {SHORTEST:g} s"
    if not (drums and basses):
        return "no bass" if drums else "no drums"
    return f"{others} part(s) beside drums and bass" if others < 2 else ""


def _songs(folder: Path, wad: str) -> Iterator[str]:
    """Write the songs of a WAD file, a table of (place, size, name) into one heap, beside it."""
    data = (folder / wad).read_bytes()
    kind, count, table = struct.unpack_from("<4sII", data)
    if kind not in (b"IWAD", b"PWAD") or count > LUMPS:
        raise ValueError(f"starts with {kind!r}, {count} lumps")
    for number, at in enumerate(range(table, table + 16 * count, 16)):
        place, size, name = struct.unpack_from("<II8s", data, at)
        lump = data[place : place + size]
        if lump.startswith(b"MThd"):
            song = fitted(f"{wad[:-4]}-{re.sub(rb'[^A-Z0-9_]', b'', name.upper()).decode()}", ".mid")
            song = song if not (folder / song).exists() else f"{song[:-4]}-{number}.mid"
            (folder / song).write_bytes(lump)
            yield song


PACKAGES = Packages("midi", GAMES, WANTED, choose)
