"""MUSDB18-HQ (zenodo 3338373), MUSDB18's ``.stem.mp4``, and any folder of songs with stems.

``ROOT/{train,valid,test}/SONG/{mixture,bass,drums,other,vocals}.EXT`` or ``ROOT/{train,valid,test}/SONG.stem.EXT``;
where songs are tested in folds also without the folders of splits: ``ROOT/SONG`` or ``ROOT/SOURCE/SONG``.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import soundfile

from lib import STEMS, UserError
from lib.data import audio
from lib.data.download import Archive, provide_archive
from lib.data.folder import OTHER
from lib.data.tracks import ROLES, Candidate, Rules, Skipped, Track, printable, scan, seekable_files, skip
from lib.store.files import atomic
from lib.store.fingerprints import fingerprint

STEM_FILE, STEMS_OF = re.compile(r"(?<=.)\.stem\.\w+$", re.IGNORECASE), ".stem.mp4"
"""Names of files that hold all stems as streams, and their role."""
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
    folders = (
        [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")] if subsets else []
    )
    skipped = [skip(path, f"none of {', '.join(SPLITS)}") for path in folders if path.name not in SPLITS]
    if not folds:
        absent = [name for name in ("train", "test") if name not in subsets]
        skipped += [skip(root / name, f"no such folder: no {name} songs") for name in absent]
    candidates = []
    for path in _songs(root, subsets):
        name = printable(str(path.relative_to(root)) if folds else path.name)
        song, left_out = _candidate(path, name, "test" if folds else SPLITS[path.parent.name])
        same = sum((one.name, one.split) == (other.name, other.split) for one in song for other in candidates)
        candidates += [one._replace(name=f"{one.name} ({same + 1})") for one in song] if same else song
        skipped += left_out
    return candidates, skipped


def _songs(root: Path, subsets: list[str]) -> Iterator[Path]:
    """Everything in the folders of splits, or everything in ``root`` and its folders that are no songs themselves."""
    for subset in subsets:
        yield from sorted((root / subset).iterdir())
    for path in [] if subsets else sorted(root.iterdir()):
        readable = path.is_dir() and not path.name.startswith(".") and os.access(path, os.R_OK)
        yield from sorted(path.iterdir()) if readable and not _files(path).keys() & set(ROLES) else [path]


def _files(song: Path) -> dict[str, list[Path]]:
    """The audio files in the folder of a song, by role; those that have none of these names under ""."""
    files = defaultdict(list)
    for path in sorted(song.iterdir()):
        if not (path.is_dir() or OTHER.search(path.name)):
            files[path.stem.lower() if path.stem.lower() in ROLES else ""].append(path)
    return files


def _candidate(path: Path, name: str, split: str) -> tuple[list[Candidate], list[Skipped]]:
    """A song, if it is one, and what of it is left out."""
    # not the tracks of musdb.DB(root): it runs ffprobe on every song at every call, and raises at the first broken one
    hidden = path.name.startswith(".")
    if STEM_FILE.search(path.name) and not hidden:
        return [Candidate(STEM_FILE.sub("", name), split, {STEMS_OF: path})], []
    if not path.is_dir() or hidden:
        return [], [skip(path, f"neither a folder of stems nor a {STEMS_OF} file")]
    try:
        files = _files(path)
    except OSError as error:
        return [], [skip(path, f"cannot be read: {error.strerror}")]
    others = [skip(file, f"none of {', '.join(ROLES)}") for file in files.pop("", [])]
    if twice := [role for role, paths in files.items() if len(paths) > 1]:
        names = ", ".join(file.name for file in files[twice[0]])
        return [], [skip(path, f"several files of {twice[0]}: {names}; keep one"), *others]
    if not set(STEMS) & set(files):
        return [], [skip(path, f"no stem in it: {', '.join(STEMS)}, in any format"), *others]
    # without a mixture the song is the sum of its stems, as MUSDB18's mixtures are but for mastering
    return [Candidate(name, split, {role: files[role][0] for role in ROLES if role in files})], others


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


def unpack(files: dict[str, Path], cache: Path, clipped: bool = False) -> dict[str, Path]:
    """One seekable file per role; the streams of a ``.stem.mp4`` are decoded once into ``cache``.

    They become 16-bit FLAC, as `musdb` reads them, or float WAV where these clip, unless ``clipped`` is wanted.
    Decoding at every training step instead takes most of the step (sigsep/open-unmix-pytorch #3).
    """
    if STEMS_OF not in files:
        return seekable_files(files, cache)
    path, found = files[STEMS_OF].resolve(), {}
    folder = cache / "stems" / fingerprint([str(path), audio.stamp(path)])
    for role in ROLES:
        known = (folder / f"{role}{suffix}" for suffix in (".flac", ".wav"))
        found[role] = next((file for file in known if file.exists()), None) or _decode(path, folder, role, clipped)
    return found


def _decode(path: Path, folder: Path, role: str, clipped: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stream = settings()["stem_ids"][role]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        decoded = Path(scratch, "stem.wav")
        try:
            audio.decode(path, decoded, stream, "pcm_s16le")
        except audio.UndecodableError as error:
            raise audio.UndecodableError(path, f"{error.reason} (stream {stream}, {role})") from error
        wave, rate = soundfile.read(decoded, dtype="int16")
        if clipped or (wave.min() > -32768 and wave.max() < 32767):
            with atomic(folder / f"{role}.flac") as temporary:
                soundfile.write(temporary, wave, rate, "PCM_16", format="FLAC")
            return folder / f"{role}.flac"
        audio.decode(path, decoded, stream)
        with atomic(folder / f"{role}.wav") as temporary:
            os.replace(decoded, temporary)
        return folder / f"{role}.wav"
