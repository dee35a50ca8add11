"""``python -m benchmarks.music [key=value ...]``: how real is music made here, how much is there, what does it take?

Writes to ``results/benchmarks`` what lib/data/README.md shows: ``tables/how_real.csv``, stems of composed, arranged and
recorded songs in numbers, and ``figures/how_real.png``, spectrograms; ``tables/sources.csv``, pieces and hours by
source; ``tables/music.csv``, processor seconds. The changes are to profile `real`: where its music lies, and the fonts
of arranged songs. Music that is not on the disk is left out. Some ten minutes.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from benchmarks.figures import FOLDER
from lib import STEMS, UserError
from lib.data import corpora
from lib.data.composed import arrange
from lib.data.composed.compose import compose
from lib.data.composed.corpus import write_mp3
from lib.data.composed.render import render
from lib.data.sources import SOURCES
from lib.data.tracks import Track
from lib.experiments import music
from lib.profile.fields import ARRANGED, RECORDED, RENDERED, STEMMED, project_path
from lib.profile.load import load
from lib.store.tables import write_table
from lib.study import Study

SONGS = 8
"""Songs whose rendering is timed, after a first one."""


def processor_seconds(call: Callable[[], object]) -> tuple[float, object]:
    """What a call takes of processors, in this process and those it has waited for (ffmpeg); and what it returns."""

    def used() -> float:
        both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
        return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, both))

    before = used()
    found = call()
    return used() - before, found


def sounds(songs: dict[str, Sequence[Track]], rate: int) -> pd.DataFrame:
    """`lib.experiments.music.sound` of songs by corpus: a row for each corpus, song, stem and metric."""
    rows = [
        {"corpus": corpus, "song": song.name, "stem": stem, "metric": metric, "value": value}
        for corpus, some in songs.items()
        for song in some
        for stem, metric, value in music.sound(song.stems(rate=rate), rate)
    ]
    return pd.DataFrame(rows)


def spectrograms(songs: dict[str, Sequence[Track]], rate: int, path: Path) -> None:
    """The stems (columns) of the song in the middle of every corpus (rows), 10 s from its middle on."""
    figure, axes = plt.subplots(len(songs), len(STEMS), figsize=(14, 2.2 * len(songs)), squeeze=False)
    for row, (corpus, some) in zip(axes, songs.items(), strict=True):
        song = some[len(some) // 2]
        waves = song.stems(rate=rate)
        middle = waves.shape[-1] // 2
        for axis, stem, wave in zip(row, STEMS, waves[..., middle - 5 * rate : middle + 5 * rate].mean(1), strict=True):
            scaled = wave / max(np.abs(wave).max(), 1e-6)
            axis.specgram(scaled + 1e-9, NFFT=1024, Fs=rate, noverlap=512, vmin=-130, vmax=-30, cmap="magma")
            axis.set_title(f"{corpus}: {stem}", fontsize=8)
            axis.tick_params(labelsize=6)
    figure.supylabel("Hz", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def made(rate: int, makers: dict[str, tuple[Callable, float]]) -> list[dict]:
    """Processor seconds of a song by every maker (with the length of its songs), rendered and written as MP3."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for what, (maker, seconds) in makers.items():

            def write(index: int, maker: Callable = maker) -> None:
                write_mp3(Path(folder, "a.mp3"), render(maker("unlabeled", index), rate).sum(0), rate)

            times = [processor_seconds(partial(write, index))[0] for index in range(SONGS + 1)][1:]
            spread = {"low": min(times), "high": max(times)}
            rows.append({"what": f"{what} of {seconds:g} s", "value": np.median(times), "unit": "s"} | spread)
    return rows


def main(changes: Sequence[str]) -> int:
    """Exit status: 0, or 2 for a wrong call."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            _measure([*changes, f"results={folder}", "corpus.workers=1"], Path(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _once(what: str, seconds: float) -> dict:
    return {"what": what, "value": seconds, "unit": "s", "low": None, "high": None}


def _measure(changes: list[str], cache: Path) -> None:
    few = [f"corpus.{kind}.unlabeled_songs=1" for kind in (RENDERED, ARRANGED)]
    composed = load("composed", [*changes, *few])
    arranged = load("real", [*changes, *few, f"corpus.labeled={ARRANGED}", "corpus.folds=0"])
    corpus, rate = arranged.corpus, arranged.audio.rate
    songs, times, sources = {"composed": corpora.labeled(composed, cache)[0]}, [], []
    makers = {"composing and rendering a song": (partial(compose, 0, seconds=20.0), 20.0)}
    if all(project_path(folder).is_dir() for folder in corpus.arranged.midi):
        songs["arranged"] = corpora.labeled(arranged, cache)[0]
        makers["rendering a passage of a MIDI file"] = arrange.plan(corpus.arranged)[0], corpus.arranged.song_seconds
    for name, source in SOURCES.items():
        root = project_path(corpus.sources_root) / name
        if not source.there(root):
            continue
        table = pd.read_csv(root / "pieces.csv", keep_default_na=False)
        kept = table["left_out"] == ""
        row = {"source": name, "pieces": kept.sum(), "hours": pd.to_numeric(table["seconds"][kept]).sum() / 3600}
        sources.append(row | {"left_out": (~kept).sum()})
        if name in (*STEMMED, *RECORDED):
            labeled = name in STEMMED
            profile = load("real", [*changes, f"corpus.{'labeled' if labeled else 'unlabeled'}={name}"])
            read = partial(corpora.labeled if labeled else corpora.unlabeled, profile, cache)
            seconds, (found, _) = processor_seconds(read)
            times.append(_once(f"first scan of `{name}`, {len(found)} songs", seconds))
            study = Study(profile)
            segments = partial(study.stem_segments if labeled else study.mixture_segments, found)
            times.append(_once(f"finding the segments of `{name}`", processor_seconds(segments)[0]))
            songs |= {f"recorded, {name}": found} if labeled else {}
    for name, table in (("sources", sources), ("music", made(rate, makers) + times)):
        print(pd.DataFrame(table).to_string(index=False))
        write_table(FOLDER / "tables" / f"{name}.csv", pd.DataFrame(table))
    real = music.how_real(sounds(songs, rate)).reset_index()
    counts = real["corpus"].map({corpus: len(some) for corpus, some in songs.items()})
    print(real.round(2).to_string(index=False))
    real = real.assign(songs=counts).rename(columns={"level": "level_db"})  # "level" is a text in tables
    write_table(FOLDER / "tables" / "how_real.csv", real)
    spectrograms(songs, rate, FOLDER / "figures" / "how_real.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
