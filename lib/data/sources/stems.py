"""Recorded songs with stems, in public git repositories: tracks are grouped into the four stems and summed.

``ROOT/SONG/{bass,drums,vocals,other}.flac`` and ``ROOT/pieces.csv``; ``ROOT/.songs/SONG.json`` says that one is done.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile
import yaml

from lib import STEMS, UserError, one_line
from lib.data import audio
from lib.data.download import filling
from lib.data.tracks import in_threads
from lib.store.files import atomic, read_facts, write_json

COLUMNS = ("piece", "seconds", "start", "stems", "licence", "left_out")
RATE, PEAK = 44_100, 0.7
"""In Hz, and of the mixture: no stem is clipped."""
EXCERPT, ACTIVE_DB, ENOUGH = 100, -40.5, 0.6
"""Seconds; the level at which a second is active, relative to the song's; and the share of them that counts at most."""


class Song(NamedTuple):
    """Name and files by stem, or why it is left out."""

    name: str
    files: dict[str, list[Path]]
    left_out: str = ""


class Stems(NamedTuple):
    """A named source: a repository, the commit, the files of it that are checked out, and the songs in them."""

    name: str
    url: str
    commit: str
    sparse: tuple[str, ...]
    songs: Callable[[Path], Iterator[Song]]
    licence: str
    channels: int
    whole: bool

    def there(self, root: Path) -> bool:
        """Whether all songs are done."""
        return (root / "pieces.csv").is_file()

    def provide(self, root: Path, download: bool, workers: int = 2) -> None:
        """Have the songs in ``root``. Raises: UserError, one line that says what to do."""
        if not (self.there(root) or download):
            made = f"put the folder there that python -m lib.data.sources {self.name} makes elsewhere"
            raise UserError(f"{self.name}: {root} does not hold its songs: set corpus.download=true, or {made}")
        if not self.there(root):
            with filling(root, "corpus.sources_root"):
                self._provide(root, workers)

    def _provide(self, root: Path, workers: int) -> None:
        if self.there(root):
            return  # another process was faster
        clone, rows = root / ".clone", []
        check_out(self, clone)
        for song in self.songs(clone):
            record = root / ".songs" / f"{song.name}.json"
            if not record.is_file():
                write_json(record, self._write(song, root, workers))
            rows.append(read_facts(record, "piece", "left_out"))
        if all(row["left_out"] for row in rows):
            raise UserError(f"{self.name}: no song of {self.url} can be used (see {root / '.songs'})")
        with atomic(root / "pieces.csv") as temporary:
            pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
        shutil.rmtree(clone)

    def _write(self, song: Song, root: Path, workers: int) -> dict:
        """Write a song's stems, all at once, and give its row of the table."""
        row = {"piece": song.name, "licence": self.licence, "left_out": song.left_out}
        if song.left_out:
            return row
        try:
            stems = self._read(song.files, root / ".clone" / ".decoded", workers)
        except audio.UndecodableError as error:
            return row | {"left_out": f"{Path(error.path).name}: {error.reason}"}
        start = 0 if self.whole else excerpt_start(stems)
        if not self.whole:
            stems = stems[..., start * RATE : (start + EXCERPT) * RATE]
        mixture, loudest = np.abs(stems.sum(0)).max(), np.abs(stems).max()
        stems = stems * np.float32(min(PEAK / max(mixture, 1e-9), 1 / max(loudest, 1e-9)))
        audible = [stem for stem, wave in zip(STEMS, stems, strict=True) if np.abs(wave).max() > audio.SILENT_PEAK]
        row |= {"seconds": round(stems.shape[-1] / RATE, 3), "start": start, "stems": " ".join(audible)}
        if len(audible) < 2:
            return row | {"left_out": f"only {audible[0]} is heard" if audible else "silent"}
        new = root / f".{song.name}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for stem, wave in zip(STEMS, stems, strict=True):
            soundfile.write(new / f"{stem}.flac", wave.T, RATE, "PCM_16")
        shutil.rmtree(root / song.name, ignore_errors=True)
        os.replace(new, root / song.name)
        return row

    def _read(self, files: dict[str, list[Path]], cache: Path, workers: int) -> np.ndarray:
        """Sums of the tracks of each stem [4, channels, T]; shorter ones end in silence."""
        paths = [(index, path) for index, stem in enumerate(STEMS) for path in files.get(stem, [])]
        decoded = in_threads(lambda item: audio.seekable(item[1], cache), paths, workers, "decoding")
        infos = [audio.probe(path) for path in decoded]
        longest = max((math.ceil(info.frames * RATE / info.rate) for info in infos), default=0)
        stems = np.zeros((len(STEMS), self.channels, longest), np.float32)
        for (index, _), path in zip(paths, decoded, strict=True):
            wave = audio.read(path, rate=RATE)[: self.channels]
            stems[index, :, : wave.shape[1]] += wave
        return stems


def excerpt_start(stems: np.ndarray) -> int:
    """The second from which `EXCERPT` seconds of ``stems`` [4, C, T] hold most of all four: the first such window.

    A stem counts by its share of active seconds, up to `ENOUGH`.
    """
    seconds = stems.shape[-1] // RATE
    if seconds <= EXCERPT:
        return 0
    level = 10 ** (ACTIVE_DB / 20) * np.sqrt(np.square(stems.sum(0), dtype=np.float64).mean())
    cut = stems[..., : seconds * RATE].reshape(*stems.shape[:2], seconds, RATE)
    active = np.sqrt(np.square(cut).mean((1, 3), dtype=np.float64)) > level
    starts = range(seconds - EXCERPT + 1)
    return int(np.argmax([np.minimum(active[:, s : s + EXCERPT].mean(1), ENOUGH).sum() for s in starts]))


def check_out(source: Stems, clone: Path) -> None:
    """Have the source's files of its commit in ``clone``, of which nothing else is fetched. Raises: UserError."""
    resumed = clone.is_dir()
    try:
        _git(source, "init", "--quiet", str(clone))
        _git(source, "-C", str(clone), "config", "remote.origin.url", source.url)
        _git(source, "-C", str(clone), "fetch", "--quiet", "--filter=blob:none", "--depth=1", "origin", source.commit)
        _git(source, "-C", str(clone), "sparse-checkout", "set", "--no-cone", *source.sparse)
        _git(source, "-C", str(clone), "checkout", "--quiet", "--force", source.commit)
    except UserError:
        if not resumed:
            raise
        shutil.rmtree(clone)  # what a kill has left may be locked or damaged
        check_out(source, clone)


def _git(source: Stems, *arguments: str) -> None:
    command = ["git", "-c", "core.symlinks=false", "-c", "core.hooksPath=/dev/null", *arguments]
    environment = os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, capture_output=True, env=environment)
    except FileNotFoundError as error:
        raise UserError(f"git is not on PATH, which fetches {source.name} from {source.url}: install it") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["unknown error"]
        raise UserError(f"{source.name}: {source.url} cannot be fetched ({one_line(said[-1])}): call again to resume")


TRACK = re.compile(r"_Stem_(.+)_mobile\.m4a$")
BY_NAME = {
    "vocals": ("VOX",),
    "bass": ("SY BASS", "BASS STAB", "PAD + BASS"),
    "drums": ("DRUM", "KICK", "HH", "HAT", "SNARE", "TOM", "CLAP", "CRASH", "CYMBAL", "BEAT", "BREAK", "TOPS", "PERC")
    + ("GLITCH",),
}
BASS_SYNTH = re.compile(r"[456]\..*MINILOGUE")
ELEMENTS = ("Hydrogen", "Lithium", "Sodium", "Potassium", "Caesium", "Francium")


def stem_by_name(file: str) -> str:
    """The stem of a track by its file's name, ``4.Potassium_Stem_PAD + BASS_mobile.m4a``."""
    if BASS_SYNTH.match(file):
        return "bass"
    name = TRACK.search(file)[1]
    return next((stem for stem, words in BY_NAME.items() if any(word in name for word in words)), "other")


def elements(clone: Path) -> Iterator[Song]:
    """Songs in folders of numbered chemical elements, whose tracks are named."""
    for folder in sorted((clone / "src").glob("[0-9].*")):
        files, name = defaultdict(list), folder.name.split(".", 1)[1]
        for path in sorted(filter(lambda path: TRACK.search(path.name), folder.iterdir())):  # the others are masters
            files[stem_by_name(path.name)].append(path)
        yield Song(name, files, "" if name in ELEMENTS else "not among the songs whose groups were checked")


INSTRUMENTS = {
    **{"drum set": "drums", "electric bass": "bass", "double bass": "bass"},
    **{"male singer": "vocals", "female singer": "vocals"},
}
NO_BLEED = (
    *("80sRock", "Britpop", "Country1", "Hendrix", "Reggae", "Rock", "Rockabilly", "Shadows", "SpeedMetal"),
    "Zeppelin",
)


def music_delta(clone: Path) -> Iterator[Song]:
    """MedleyDB's songs, whose raw tracks are listed in YAML with their instruments (Bittner et al., ISMIR 2014)."""
    for path in sorted(clone.glob("*/audio/multi-tracks/*/*.yaml")):
        name = path.parent.name.removeprefix("MusicDelta_")
        if name not in NO_BLEED:
            yield Song(name, {}, "not among the songs without bleed")
            continue
        files = defaultdict(list)
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
            for raw in (raw for stem in content["stems"].values() for raw in stem["raw"].values()):
                file = path.parent / Path(content["raw_dir"]).name / Path(raw["filename"]).name
                files[INSTRUMENTS.get(raw["instrument"], "other")].append(file)
            yield Song(name, files)
        except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield Song(name, {}, f"{path.name} cannot be read ({one_line(str(error))})")


GITHUB = "https://github.com/"
ELEMENTS_SOURCE = Stems(
    "everythingisremixed", f"{GITHUB}ichbinsoftware/everythingisremixed", "6a6fbe3a634871fba7efe298dee048f394aa0f18",
    ("src/*/*_mobile.m4a", "LICENSE"), elements, "CC0-1.0", channels=2, whole=False,
)  # fmt: skip
MUSIC_DELTA = Stems(
    "mdb", f"{GITHUB}CarlSouthall/MDBDrums", "b29e2d63c3a023506f4bf353c5b2e8a558eed135",
    ("/MDB Drums/audio/multi-tracks/*/*_RAW/*", "/MDB Drums/audio/multi-tracks/*/*.yaml"), music_delta,
    "CC BY-NC-SA 4.0", channels=1, whole=True,
)  # fmt: skip
