"""MUSDB18-HQ (zenodo 3338373), MUSDB18's ``.stem.mp4``, and any folder of songs with stems.

``ROOT/{train,valid,test}/SONG/{mixture,bass,drums,other,vocals}.EXT`` or ``ROOT/{train,valid,test}/SONG.stem.mp4``;
where songs are tested in folds also without the folders of splits: ``ROOT/SONG`` or ``ROOT/SOURCE/SONG``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from lib import STEMS, UserError
from lib.data.audio import UndecodableError, stamp
from lib.data.download import Archive, provide_archive
from lib.data.folder import MUSIC
from lib.data.tracks import ROLES, Candidate, Rules, Skipped, Track, scan, seekable_files, skip
from lib.store.files import atomic
from lib.store.fingerprints import fingerprint

STEM_SUFFIX = ".stem.mp4"
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""Splits by the names of their folders."""
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


def read(
    root: Path, cache: Path, workers: int, validation_songs: int, folds: int = 0
) -> tuple[list[Track], list[Skipped]]:
    """Tracks with their stems, sorted by split and name.

    Songs of ``valid/`` are for validation; without any, of ``train/`` MUSDB18's official validation songs if any is
    there, else the last ``validation_songs`` in sorted order (at least one song stays for training). With ``folds``,
    all songs are of the split "test", named by their paths, and a song that is there twice is left out once.
    Raises: UserError for a folder without splits if there are no ``folds``.
    """
    candidates, skipped = listed(root, folds)
    tracks, unusable = scan(candidates, cache, workers, Rules(max_seconds=LONGEST), unpack)
    if folds:
        tracks, again = _distinct(tracks)
        return tracks, skipped + unusable + again
    return _with_validation(tracks, validation_songs), skipped + unusable


def listed(root: Path, folds: int = 0) -> tuple[list[Candidate], list[Skipped]]:
    """The songs of a folder, not yet looked into, and what is none. Raises: UserError, as `read` does."""
    subsets = [name for name in SPLITS if (root / name).is_dir()]
    if not subsets and not folds:
        raise UserError(
            f"corpus.labeled: {root} has no folders train and test: make them, or set corpus.folds (to 4, say), which "
            "has every song tested once"
        )
    candidates, skipped = [], []
    for subset in ("train", "test"):
        if subset not in subsets and not folds:
            skipped.append(skip(root / subset, f"no such folder: no {subset} songs"))
    for path in _songs(root, subsets):
        name = path.relative_to(root).as_posix() if folds else path.name
        split = "test" if folds else SPLITS[path.parent.name]
        entry = _candidate(path, name, split)
        (skipped if isinstance(entry, Skipped) else candidates).append(entry)
    return candidates, skipped


def _songs(root: Path, subsets: list[str]) -> Iterator[Path]:
    """Everything in the folders of splits, or everything in ``root`` and its folders that are no songs themselves."""
    for subset in subsets:
        yield from sorted((root / subset).iterdir())
    for path in [] if subsets else sorted(root.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and not _files(path):
            yield from sorted(path.iterdir())
        else:
            yield path


def _files(song: Path) -> dict[str, list[Path]]:
    """The audio files in the folder of a song, by role."""
    found = [path for path in sorted(song.iterdir()) if MUSIC.search(path.name) and not path.is_dir()]
    files = {role: [path for path in found if path.stem.lower() == role] for role in ROLES}
    return {role: paths for role, paths in files.items() if paths}


def _candidate(path: Path, name: str, split: str) -> Candidate | Skipped:
    # not the tracks of musdb.DB(root): it runs ffprobe on every song at every call, and raises at the first broken one
    if not name.isprintable():
        return skip(path, "its name holds control characters or invalid UTF-8: rename it")
    if path.name.endswith(STEM_SUFFIX) and not path.name.startswith("."):
        return Candidate(name.removesuffix(STEM_SUFFIX), split, {STEM_SUFFIX: path})
    if not path.is_dir() or path.name.startswith("."):
        return skip(path, f"neither a folder of stems nor a {STEM_SUFFIX} file")
    files = _files(path)
    if twice := [role for role, paths in files.items() if len(paths) > 1]:
        return skip(path, f"several files of {twice[0]}: {', '.join(file.name for file in files[twice[0]])}; keep one")
    if not set(STEMS) & set(files):
        return skip(path, f"no stem in it: {', '.join(STEMS)}, in any format")
    # without a mixture the song is the sum of its stems, as MUSDB18's mixtures are but for mastering
    return Candidate(name, split, {role: file for role, (file,) in files.items()})


def _distinct(tracks: list[Track]) -> tuple[list[Track], list[Skipped]]:
    """Every song once: the same files under another name would be learned from where the first is tested."""
    first: dict[str, Track] = {}
    again = []
    for track in tracks:
        if track.digest in first:
            same = first[track.digest].name
            again.append(skip(next(iter(track.files.values())).parent, f"the same files as '{same}'"))
        first.setdefault(track.digest, track)
    return list(first.values()), again


def _with_validation(tracks: list[Track], count: int) -> list[Track]:
    if any(track.split == "validation" for track in tracks):
        return tracks
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
