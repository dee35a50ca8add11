"""The listening set: committed excerpts for a project without trained models, written by `lib.listening.sources`.

A folder with ``manifest.json`` (songs, methods, uSDR of the uncompressed estimates, provenance) and Ogg Vorbis files of
one quality, the best at which the set fits into `LIMIT`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib import STEMS, UserError
from lib.data import audio
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.listening.export import encoded
from lib.store.files import atomic, read_facts, write_json

LIMIT = 5_000_000
"""Maximum size of a set in bytes, without the outputs of an unsupervised model (half a megabyte)."""
OUTPUTS = "outputs"
COMPRESSIONS = (0.4, 0.6, 0.8, 0.9, 1.0)
"""Vorbis compression levels, from the best quality to the smallest files."""


def exists(folder: Path) -> bool:
    """Whether ``folder`` holds a set."""
    return (folder / "manifest.json").is_file()


def write(folder: Path, excerpts: Sequence[Excerpt], facts: dict, limit: int = LIMIT) -> int:
    """Replace the set in ``folder`` by ``excerpts``, of which the last is the real song; return its size in bytes.

    Raises: UserError if the set exceeds ``limit`` bytes at the lowest quality.
    """
    for compression in COMPRESSIONS:
        files = dict(_files(excerpts, compression))
        total = sum(map(len, files.values()))
        if total <= 0.98 * limit:  # the rest is for the manifest
            break
    else:
        problem = f"{total / 1e6:.1f} MB, at most {limit / 1e6:.1f} MB may be committed"
        raise UserError(f"listening set: {problem}: lower listening.songs or listening.seconds")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".listening-") as temporary:
        new = Path(temporary) / "new"
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        songs = [_described(number, item) for number, item in enumerate(excerpts)]
        write_json(new / "manifest.json", {**facts, "vorbis_compression": compression, "songs": songs})
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(new, folder)
    return _size(folder)


def write_outputs(folder: Path, outputs: np.ndarray, excerpt: Excerpt, facts: dict) -> int:
    """Add the ``outputs`` [N, 2, T] of an unsupervised model for the first song; return the size of the set."""
    listed = manifest(folder)
    for number, wave in enumerate(outputs):
        sound = encoded(wave * excerpt.gain, excerpt.rate, "OGG", subtype="VORBIS", compression_level=COMPRESSIONS[2])
        with atomic(folder / OUTPUTS / f"{number:02}.ogg") as temporary:
            temporary.write_bytes(sound)
    facts = {**facts, "count": len(outputs), "gain": excerpt.gain}
    write_json(folder / "manifest.json", {**listed, OUTPUTS: facts})
    return _size(folder)


def read_outputs(folder: Path) -> tuple[np.ndarray, Excerpt]:
    """The outputs [N, 2, T] of `write_outputs`, and the song. Raises: UserError if there are none."""
    facts, excerpt = manifest(folder).get(OUTPUTS), read(folder)[0]
    if not facts:
        raise UserError(f"{folder / 'manifest.json'}: no outputs of an unsupervised model; write the set again")
    files = [folder / OUTPUTS / f"{number:02}.ogg" for number in range(facts["count"])]
    samples = excerpt.mixture.shape[1]
    return np.stack([audio.read(file)[:, :samples] / np.float32(facts["gain"]) for file in files]), excerpt


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _path(song: int, version: int, stem: str) -> str:
    return f"{song:02}/{version:02}-{stem}.ogg"


def _files(excerpts: Sequence[Excerpt], compression: float):
    for number, item in enumerate(excerpts):
        for version, waves in enumerate(item.versions.values()):
            for stem, wave in zip(STEMS, waves, strict=True):
                options = {"subtype": "VORBIS", "compression_level": compression}
                yield _path(number, version, stem), encoded(wave * item.gain, item.rate, "OGG", **options)


def _described(number: int, item: Excerpt) -> dict:
    return {
        "song": item.song,
        "start": item.start,
        "rate": item.rate,
        "samples": item.mixture.shape[1],
        "gain": item.gain,
        "versions": list(item.versions),
        "uSDR": {name: [float(v) for v in np.nan_to_num(values)] for name, values in item.scores.items()},
        "silent": [stem for stem, wave in zip(STEMS, item.versions[REFERENCE], strict=True) if not wave.any()],
    }


def read(folder: Path) -> list[Excerpt]:
    """The excerpts of a set, the real song last; the mixture is the sum of the reference stems.

    Raises: UserError if the manifest or a file is missing or damaged.
    """
    songs = manifest(folder)["songs"]
    try:
        return [_read(folder, number, facts) for number, facts in enumerate(songs)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{folder / 'manifest.json'}: not the manifest of a listening set ({type(error).__name__}: {error})"
        raise UserError(f"{problem}; write the set again") from None


def manifest(folder: Path) -> dict:
    """The content of ``manifest.json``. Raises: UserError if it cannot be read."""
    return read_facts(folder / "manifest.json", "songs", "profile", "commit")


def _read(folder: Path, number: int, facts: dict) -> Excerpt:
    gain, samples = np.float32(facts["gain"]), facts["samples"]
    versions = {
        name: np.stack([audio.read(folder / _path(number, version, stem))[:, :samples] for stem in STEMS]) / gain
        for version, name in enumerate(facts["versions"])
    }
    scores = {name: np.array(values, float) for name, values in facts["uSDR"].items()}
    for values in scores.values():
        values[[stem in facts["silent"] for stem in STEMS]] = np.nan
    mixture = versions[REFERENCE].sum(0)
    return Excerpt(facts["song"], facts["start"], facts["rate"], mixture, versions, scores)
