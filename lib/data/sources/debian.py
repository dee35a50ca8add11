"""Recorded music of free games, in Debian's packages: which files are kept, and of loops how much."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from lib.data import audio
from lib.data.folder import MUSIC
from lib.data.sources.likeness import LAG, SAME, SHORTEST, Heard, likeness, listen
from lib.data.sources.packages import Packages
from lib.machine.processes import Crash, in_processes
from lib.machine.progress import bar
from lib.store.files import fitted

DENSE = (
    *("warzone2100-music", "ufoai-music", "nexuiz-music", "planetblupi-music-ogg", "colobot-common-sounds"),
    *("marsshooter-data", "drascula-music", "trackballs-data", "pushover-data", "starfighter-data", "wizznic-data"),
)
"""0.73 GB of packages that hold little but music."""
FURTHER = (
    *("supertux-data", "hedgewars-data", "freedroidrpg-data", "unknown-horizons", "megaglest-data", "flare-game"),
    *("supertuxkart-data", "widelands-data", "naev-data", "0ad-data"),
)
"""4 GB of packages with music among other things."""
EFFECTS = re.compile(r"/(sounds?|snd|sfx|effects?|speech|voices?|ambien(t|ce))/", re.IGNORECASE)
"""Folders of what is no music however long it is, rain or bells, unless something in the path is called music."""


def choose(folder: Path, files: list[str], earlier: list[dict], workers: int) -> list[dict]:
    """A row for each file: what is no music, undecodable or a duplicate is left out, a loop is cut."""
    rows, known = [], [row for row in earlier if row.get("signature")]
    for path, heard in zip(files, _heard(folder, files, workers), strict=True):
        row = {"piece": path, "file": path, "seconds": heard.seconds, "left_out": heard.reason}
        if not heard.reason and EFFECTS.search(f"/{path}") and "music" not in path.lower():
            row["left_out"] = "among effects"
        elif not heard.reason:
            row |= _once(folder, path, heard) if heard.period else {"signature": heard.signature}
        if not row["left_out"] and (twin := _twin(row, known)):
            row |= {"left_out": f"a duplicate of {twin['piece']}", "signature": ""}
        if not row["left_out"]:
            known.append(row)
        rows.append(row)
    return rows


def _heard(folder: Path, files: list[str], workers: int) -> list[Heard]:
    found, progress = {}, bar("listening", len(files), 0, "file")
    for index, heard in in_processes(partial(listen, folder, folder / ".decoded"), files, workers):
        found[index] = Heard(reason=heard.reason) if isinstance(heard, Crash) else heard
        progress(len(found))
    return [found[index] for index in range(len(files))]


def _twin(row: dict, known: list[dict]) -> dict | None:
    """The piece of about the same length that sounds the same."""
    near = (other for other in known if abs(other["seconds"] - row["seconds"]) <= LAG)
    return next((other for other in near if likeness(row["signature"], other["signature"]) >= SAME), None)


def _once(folder: Path, path: str, heard: Heard) -> dict:
    """A loop as FLAC of its first period, the only pieces that do not keep their coding."""
    note = f"of {heard.seconds:.0f} s, a loop of {heard.period:.1f} s: one period is kept"
    if heard.period < SHORTEST:
        return {"left_out": f"a loop of {heard.period:.1f} s"}
    source = audio.seekable(folder / path, folder / ".decoded")
    info = audio.probe(source)
    wave = audio.read(source, 0, round(heard.period * info.rate))[: info.channels]
    piece = fitted(path, ".flac")
    soundfile.write(folder / piece, np.clip(wave, -1, 1).T, info.rate, "PCM_16", format="FLAC")
    return {"piece": piece, "seconds": heard.period, "note": note, "signature": heard.signature}


PACKAGES = Packages("debian", DENSE, MUSIC, choose)
MORE = Packages("debian-more", FURTHER, MUSIC, choose)
