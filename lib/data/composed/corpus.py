"""Music made here, composed by rule or arranged from MIDI files, in the folder layouts of MUSDB18-HQ and FMA."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from lib import STEMS, UserError
from lib.data.audio import run_ffmpeg
from lib.data.composed import arrange
from lib.data.composed.compose import Song, compose
from lib.data.composed.render import FIRST_ID, PEAK, render, same_arithmetic
from lib.machine.processes import Crash, in_processes
from lib.machine.progress import bar
from lib.profile.fields import Arranged, Rendered
from lib.store.files import atomic, file_lock, write_json

VERSION = 1
"""Raise it when the same settings are composed or rendered otherwise: songs are made again."""
Maker = Callable[[str, int], Song]
"""Gives song ``index`` of a kind (one of `KINDS`)."""
Task = tuple[str, tuple[int, ...]]
"""A kind, and the index of a song, or those of a group whose stems are re-dealt."""
Mixer = Callable[[int, list[np.ndarray]], np.ndarray]
"""Gives unlabelled mixture ``index`` [2, T] of stems."""
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def identity(settings: Rendered) -> dict:
    """What the songs depend on. Raises: UserError where MIDI files or sound fonts are missing."""
    found = arrange.identity(settings) if isinstance(settings, Arranged) else asdict(settings)
    return {key: value for key, value in found.items() if (key, value) != ("single_share", 0)}  # as before the field


def build(settings: Rendered, rate: int, root: Path, workers: int | None = None) -> Path:
    """Make the corpus at ``rate`` Hz under ``root``, or what is missing of it, and return ``root``.

    ``labeled/{train,test}/NAME/{mixture,bass,drums,vocals,other}.wav`` (stereo, 24 bits, the mixture being the sum of
    the stems to the last bit; the validation songs are the last of ``train`` in sorted order),
    ``unlabeled/000/000002.mp3`` with ``unlabeled/fma_metadata/tracks.csv``, and ``songs.json``, which describes every
    song. Where the settings say so, the stems of the unlabelled songs are re-dealt (`deal`). The files depend on
    ``settings`` (of `Arranged`, on what the files named there hold) and ``rate`` alone, not on ``workers``;
    ``left_out.json`` lists the MIDI files that are not used. Raises `UserError` for a rate that MP3 has not, or songs
    too short to hold a phrase.
    """
    if rate not in MP3_RATES:
        raise UserError(f"audio.rate: MP3 cannot hold {rate} Hz, choose one of {', '.join(map(str, MP3_RATES))}")
    if settings.song_seconds < 2:
        raise UserError(f"corpus.rendered.song_seconds: {settings.song_seconds} is too short, choose at least 2")
    root = Path(root)
    plan = {"settings": identity(settings), "rate": rate, "version": VERSION}
    if _read_json(root / "complete.json") == plan:
        return root
    with file_lock(root / "lock"):  # a notebook opened while a study runs may ask for the same songs
        if _read_json(root / "complete.json") != plan:
            _build(settings, rate, root, workers, plan)
    return root


def _build(settings: Rendered, rate: int, root: Path, workers: int | None, plan: dict) -> None:
    if _read_json(root / "plan.json") != plan:
        for name in ("complete.json", "plan.json"):
            (root / name).unlink(missing_ok=True)
        for name in ("labeled", "unlabeled"):
            shutil.rmtree(root / name, ignore_errors=True)
        write_json(root / "plan.json", plan)
    shutil.rmtree(root / "partial", ignore_errors=True)  # left by a build that was killed
    (root / "partial").mkdir()
    maker, font = partial(compose, settings.seed, seconds=settings.song_seconds), lambda task: 0
    if isinstance(settings, Arranged):
        maker, skipped = arrange.plan(settings)
        font = lambda task: maker.font_number(task[0], task[1][0])  # noqa: E731
        write_json(root / "left_out.json", [[item.path, item.reason] for item in skipped])
    counts = {"train": settings.train_songs, "valid": settings.validation_songs, "test": settings.test_songs}
    tasks = [(kind, (index,)) for kind, count in counts.items() for index in range(count)]
    groups = [(index,) for index in range(settings.unlabeled_songs)]
    if settings.redealt:
        groups = deal([maker("unlabeled", index) for (index,) in groups])
    tasks += [("unlabeled", group) for group in groups]
    by_font = sorted(tasks, key=font)  # a process holds few fonts at a time
    make = partial(_make, maker, partial(_mixed, settings), rate, root)
    made = _run(make, by_font, workers or len(os.sched_getaffinity(0)))
    songs = [song for task in tasks for song in made[task]]
    songs.sort(key=lambda song: song.get("track_id", 0))  # stable: labelled songs first, in their order
    with atomic(root / "songs.json") as temporary:
        temporary.write_text("[\n" + ",\n".join(map(json.dumps, songs)) + "\n]\n", "utf-8")
    _write_tracks(root / "unlabeled" / "fma_metadata" / "tracks.csv", [s for s in songs if "track_id" in s])
    (root / "partial").rmdir()
    write_json(root / "complete.json", plan)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def deal(songs: list[Song]) -> list[tuple[int, ...]]:
    """Groups of as many songs as there are stems, which differ in tempo and key as far as the songs allow.

    One song comes from each quarter of the tempi; within a quarter songs are sorted by key, and the quarters are
    rotated against each other by a quarter of the keys. Songs left over in an incomplete group are not dealt.
    """
    by_tempo = sorted(range(len(songs)), key=lambda i: songs[i].bpm)
    size, parts = len(songs) // len(STEMS), range(len(STEMS))
    by_key = [sorted(by_tempo[q * size : (q + 1) * size], key=lambda i: songs[i].key) for q in parts]
    turned = [np.roll(quarter, q * size // len(STEMS)).tolist() for q, quarter in zip(parts, by_key, strict=True)]
    return list(zip(*turned, strict=True))


def _run(make: Callable, tasks: list[Task], workers: int) -> dict[Task, list[dict]]:
    made, progress = {}, bar("rendering songs", len(tasks), 0, "song")
    with same_arithmetic():  # NumPy looks at the environment once, when a process starts
        for index, result in in_processes(make, tasks, workers):
            if isinstance(result, Crash):
                raise UserError("rendering songs: a process died, of a damaged sound font or for want of memory")
            made[tasks[index]] = result
            progress(len(made))
    return made


def _mixed(settings: Rendered, index: int, stems: list[np.ndarray]) -> np.ndarray:
    """The unlabelled mixture of ``stems``: their sum, or in `single_share` of the mixtures one that is drawn."""
    draws = np.random.default_rng([settings.seed, 2, index])
    if draws.random() >= settings.single_share:
        return sum(stems)
    heard = [stem for stem in stems if stem.any()]
    return heard[draws.integers(len(heard))]


def _make(maker: Maker, mixed: Mixer, rate: int, root: Path, task: Task) -> list[dict]:
    """Write one song, or one group of unlabelled songs, unless it is there; return the descriptions."""
    kind, group = task
    songs = [maker(kind, index) for index in group]
    if kind == "unlabeled":
        return _make_unlabeled(songs, group, mixed, rate, root)
    return [_make_labeled(songs[0], rate, root, kind)]


def _make_unlabeled(songs: list[Song], group: tuple[int, ...], mixed: Mixer, rate: int, root: Path) -> list[dict]:
    """As many mixtures as songs; stem k of mixture i is that of song i + k, around the group."""
    tracks = [FIRST_ID + index for index in group]
    paths = [root / "unlabeled" / f"{track // 1000:03d}" / f"{track:06d}.mp3" for track in tracks]
    if not all(path.exists() for path in paths):
        stems = np.stack([render(song, rate) for song in songs])
        for first, path in enumerate(paths):
            mixture = mixed(group[first], [stems[(first + k) % len(songs), k] for k in range(len(STEMS))])
            peak, temporary = np.abs(mixture).max(), root / "partial" / path.name
            write_mp3(temporary, mixture * (PEAK / peak) if peak > 1 else mixture, rate)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)
    return [{"split": "unlabeled", "track_id": t} | song.describe() for t, song in zip(tracks, songs, strict=True)]


def _make_labeled(song: Song, rate: int, root: Path, kind: str) -> dict:
    folder = root / "labeled" / ("test" if kind == "test" else "train") / song.name
    if not folder.exists():
        temporary = root / "partial" / song.name
        temporary.mkdir()
        stems = np.round(render(song, rate) * 2**23).astype(np.int32)
        for name, wave in zip(("mixture", *STEMS), (stems.sum(0, dtype=np.int32), *stems), strict=True):
            soundfile.write(temporary / f"{name}.wav", wave.T << 8, rate, subtype="PCM_24")
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, folder)
    return {"split": "validation" if kind == "valid" else kind} | song.describe()


def write_mp3(path: Path, wave: np.ndarray, rate: int) -> None:
    """Encode ``wave`` [2, T] at LAME's best variable bit rate; equal waves give equal bytes."""
    # by ffmpeg: its LAME takes 0.4 of the time of soundfile's; effort 5 comes as close to the wave as more effort does
    source = ["-f", "f32le", "-ar", str(rate), "-ac", "2", "-i", "pipe:0"]
    coding = ["-c:a", "libmp3lame", "-q:a", "0", "-compression_level", "5"]
    coding += ["-flags:a", "+bitexact", "-fflags", "+bitexact", "-f", "mp3"]
    done = run_ffmpeg([*source, *coding, "-y", f"file:{path.resolve()}"], wave.T.astype("<f4").tobytes())
    if done.returncode:
        raise UserError(f"{path}: ffmpeg cannot write it: {' '.join(done.stderr.split()) or 'unknown error'}")


def _write_tracks(path: Path, songs: list[dict]) -> None:
    """FMA's ``tracks.csv``: two header rows, a row with the index's name, one row a track (about 90/5/5 %)."""
    header = [("artist", "name"), ("set", "split"), ("set", "subset"), ("track", "duration"), ("track", "genre_top"),
              ("track", "title")]  # fmt: skip
    validation = max(min(1 + (len(songs) >= 20), len(songs) - 1), round(len(songs) / 20))
    splits = ["validation"] * validation + ["test"] * round(len(songs) / 20)
    splits = ["training"] * (len(songs) - len(splits)) + splits
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows(["", *names] for names in zip(*header, strict=True))
        rows.writerow(["track_id", *[""] * len(header)])
        for song, split in zip(songs, splits, strict=True):
            artist, title = f"Rendered {song['groove']}", song["name"].split(" - ")[1]
            rows.writerow([song["track_id"], artist, split, "small", int(song["seconds"]), song["genre"], title])
