"""MUSDB18-HQ (zenodo 3338373), MUSDB18's ``.stem.mp4``, and any folder laid out like them.

``ROOT/{train,test}/SONG/{mixture,bass,drums,other,vocals}.wav`` or ``ROOT/{train,test}/SONG.stem.mp4``.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from lib import STEMS, UserError
from lib.data.audio import UndecodableError, stamp
from lib.data.download import Archive, provide_archive
from lib.data.tracks import ROLES, Candidate, Rules, Skipped, Track, scan, seekable_files, skip
from lib.store.files import atomic
from lib.store.fingerprints import fingerprint

STEM_SUFFIX = ".stem.mp4"
LONGEST = 1200
"""Seconds: a song with stems is scored as a whole, with all estimates in memory (MUSDB18's last up to 630)."""
URL = "https://zenodo.org/record/3338373/files/musdb18hq.zip"
SHA256 = "baac80d0483c61d74b2e5f3be75fa557eec52898339e6aa45c1fa48833c5d21d"
"""Of the archive, as `torchaudio.datasets.MUSDB_HQ` checks it."""


def there(root: Path) -> bool:
    """Whether ``root`` holds MUSDB18 or MUSDB18-HQ, in either container."""
    return all((root / subset).is_dir() for subset in ("train", "test"))


def provide(root: Path, download: bool) -> None:
    """Have MUSDB18-HQ unpacked in ``root`` (see `provide_archive`). Raises: UserError."""
    provide_archive(Archive(URL, "sha256", SHA256, 1.5), root, lambda: there(root), download, "corpus.musdb_root")


def read(root: Path, cache: Path, workers: int, validation_songs: int) -> tuple[list[Track], list[Skipped]]:
    """Tracks with their stems, sorted by split and name.

    Of ``train/``, MUSDB18's official validation songs get the split "validation" if any is there, else the last
    ``validation_songs`` in sorted order (at least one song stays for training).
    """
    candidates, skipped = [], []
    for subset in ("train", "test"):
        if not (root / subset).is_dir():
            skipped.append(skip(root / subset, f"no such folder: no {subset} songs"))
            continue
        for path in sorted((root / subset).iterdir()):
            entry = _candidate(path, subset)
            (skipped if isinstance(entry, Skipped) else candidates).append(entry)
    tracks, unusable = scan(candidates, cache, workers, Rules(max_seconds=LONGEST), unpack)
    return _with_validation(tracks, validation_songs), skipped + unusable


def _candidate(path: Path, subset: str) -> Candidate | Skipped:
    # not the tracks of musdb.DB(root): it runs ffprobe on every song at every call, and raises at the first broken one
    if path.name.endswith(STEM_SUFFIX) and not path.name.startswith("."):
        return Candidate(path.name.removesuffix(STEM_SUFFIX), subset, {STEM_SUFFIX: path})
    if not path.is_dir() or path.name.startswith("."):
        return skip(path, f"neither a folder of stems nor a {STEM_SUFFIX} file")
    files = {role: path / f"{role}.wav" for role in ROLES}
    missing = [f"{stem}.wav" for stem in STEMS if not files[stem].is_file()]
    if missing:
        return skip(path, f"incomplete: no {', '.join(missing)}")
    # without mixture.wav the song is the sum of its stems, as MUSDB18's mixtures are but for mastering
    return Candidate(path.name, subset, {role: file for role, file in files.items() if file.is_file()})


def _with_validation(tracks: list[Track], count: int) -> list[Track]:
    train = [track.name for track in tracks if track.split == "train"]
    chosen = set(train) & set(settings()["validation_tracks"])
    chosen = chosen or set(train[len(train) - min(count, max(len(train) - 1, 0)) :])
    return [replace(t, split="validation") if t.split == "train" and t.name in chosen else t for t in tracks]


@functools.cache
def settings() -> dict:
    """What musdb knows of MUSDB18: the names of the validation songs, the stream of every role in a ``.stem.mp4``."""
    return musdb().DB("", subsets=[]).setup


def musdb():
    """The musdb package. Raises: UserError where ffmpeg or ffprobe is not on PATH, for which it looks when imported."""
    try:
        return importlib.import_module("musdb")
    except RuntimeError as error:
        raise UserError("no ffmpeg or ffprobe on PATH to read MUSDB18: run ./run_all.sh or install them") from error


def unpack(files: dict[str, Path], cache: Path) -> dict[str, Path]:
    """One seekable file per role; a ``.stem.mp4`` is decoded once into 16-bit FLAC in ``cache``, as `musdb` reads it.

    Decoding it at every training step instead takes most of the step (sigsep/open-unmix-pytorch #3).
    """
    if STEM_SUFFIX not in files:
        return seekable_files(files, cache)
    path = files[STEM_SUFFIX].resolve()
    folder = cache / "stems" / fingerprint([str(path), stamp(path)])
    decoded = {role: folder / f"{role}.flac" for role in ROLES}
    if not all(file.exists() for file in decoded.values()):
        _decode(path, decoded)
    return decoded


def _decode(path: Path, decoded: dict[str, Path]) -> None:
    stempeg = musdb().stempeg
    try:
        info = stempeg.Info(str(path))
        streams = info.audio_stream_idx()
        if len(streams) < len(ROLES):
            raise UndecodableError(path, f"{len(streams)} audio streams where a stem file has {len(ROLES)}")
        for role, file in decoded.items():
            stream = streams[settings()["stem_ids"][role]]
            # int16 all the way is what musdb itself reads, and half the size of 24-bit
            wave, rate = stempeg.read_stems(str(path), stem_id=stream, dtype=np.int16, ffmpeg_format="s16le", info=info)
            with atomic(file) as temporary:
                soundfile.write(temporary, wave, rate, "PCM_16", format="FLAC")
    except (UndecodableError, OSError):
        raise
    except Exception as error:  # stempeg raises Warning, RuntimeError, ffmpeg.Error and plain slips (KeyError, ...)
        detail = getattr(error, "stderr", b"") or str(error).encode() or b"unknown error"
        raise UndecodableError(path, detail.decode(errors="replace").strip().splitlines()[-1]) from error
