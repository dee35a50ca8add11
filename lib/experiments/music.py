"""What the music of a study is: durations, levels of stems, correlations between them, and how songs are composed."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import torch

from lib import STEMS
from lib.data.tracks import Track, corpus_fingerprint
from lib.experiments.evaluate import cached
from lib.mixing import SILENT_RMS, rms
from lib.store.runs import Run
from lib.study import Study

PAIRS = tuple(itertools.combinations(range(len(STEMS)), 2))
MOST_UNLABELED = 1000
SOUND = ("level", "centroid", "crest", "activity")
ACTIVE_DB = -40.0
"""Level of a second, against the whole mixture, from which a stem counts as active in it."""
VERSION = 1
"""Raise it when the same songs are measured otherwise: they are measured again."""


def survey(study: Study) -> pd.DataFrame:
    """Tidy table (corpus, split, song, stem, metric, value) of all labelled songs, the real song and unlabelled songs.

    Metrics: ``seconds``; those of `SOUND` for each stem (see `sound`); and per pair of stems the correlation of
    waveforms, of envelopes (RMS in 50 ms) and of magnitude spectrograms, within a song (``envelope correlation``) and
    with the second stem taken from the song before (``envelope correlation, other song``), as what chance gives. Of
    unlabelled songs, at most `MOST_UNLABELED` are listed. Songs are measured once (`cached`).
    """
    songs = corpus_fingerprint([*study.labeled, study.real_song]), study.unlabeled_content()
    folder = Run(study.results / "runs" / "references")
    return cached(folder, "music", [*songs, study.profile.audio.rate, VERSION], lambda: _measured(study))


def _measured(study: Study) -> pd.DataFrame:
    rate, rows = study.profile.audio.rate, []

    def add(corpus: str, song: Track, values: list[tuple[str, str, float]]) -> None:
        facts = {"corpus": corpus, "split": song.split, "song": song.name}
        values = [("mixture", "seconds", song.seconds), *values]
        rows.extend({**facts, "stem": stem, "metric": metric, "value": value} for stem, metric, value in values)

    for split in ("train", "validation", "test"):
        songs = [song for song in study.labeled if song.split == split]
        waves = songs[-1].stems(rate=rate) if songs else None
        for song in songs:
            before, waves = waves, song.stems(rate=rate)
            across = _correlations(waves, before, rate, ", other song") if len(songs) > 1 else []
            add("labelled", song, [*sound(waves, rate), *_correlations(waves, waves, rate), *across])
    waves = study.real_song.stems(rate=rate)
    add("real song", study.real_song, [*sound(waves, rate), *_correlations(waves, waves, rate)])
    for song in study.unlabeled[:: -(-len(study.unlabeled) // MOST_UNLABELED)]:
        add("unlabelled", song, [])
    return pd.DataFrame(rows)


def sound(stems: np.ndarray, rate: int) -> list[tuple[str, str, float]]:
    """How the stems [4, C, T] of a song sound, as (stem, metric, value) for every stem that does.

    ``level`` in dB under the mixture; spectral ``centroid`` in Hz, of the mean power spectrum; ``crest`` factor, peak
    over RMS in dB; ``activity``, the share of seconds above `ACTIVE_DB`. A silent stem has its activity alone, 0.
    """
    total, found = rms(stems.sum(0)), []
    for stem, wave in zip(STEMS, stems, strict=True):
        if (level := rms(wave)) <= SILENT_RMS:
            found.append((stem, "activity", 0.0))
            continue
        power = np.square(_spectra(wave.mean(0)[None])).reshape(513, -1).mean(-1)
        seconds = wave[:, : wave.shape[-1] // rate * rate].reshape(wave.shape[0], -1, rate)
        values = {
            "level": 20 * np.log10(level / total),
            "centroid": power @ np.linspace(0, rate / 2, 513) / max(power.sum(), 1e-12),
            "crest": 20 * np.log10(np.abs(wave).max() / level),
            "activity": np.mean(np.square(seconds).mean((0, 2)) > total**2 * 10 ** (ACTIVE_DB / 10)),
        }
        found += [(stem, metric, float(values[metric])) for metric in SOUND]
    return found


def how_real(table: pd.DataFrame) -> pd.DataFrame:
    """Medians over songs of each corpus in a table of `survey`: a row per stem and corpus."""
    table = table[table["metric"].isin(SOUND)]
    medians = table.groupby(["stem", "corpus", "metric"])["value"].median().unstack()
    return medians.reindex(columns=list(SOUND)).reindex(STEMS, level="stem")


def _correlations(first: np.ndarray, second: np.ndarray, rate: int, suffix: str = "") -> list[tuple[str, str, float]]:
    """Correlation of stem i of ``first`` with stem j of ``second`` for all pairs of stems that both sound."""
    length = min(first.shape[-1], second.shape[-1])
    views, others = (_views(stems[..., :length], rate) for stems in (first, second))
    return [
        (f"{STEMS[i]} & {STEMS[j]}", f"{name} correlation{suffix}", float(np.corrcoef(one[i], two[j])[0, 1]))
        for name, one, two in zip(views, views.values(), others.values(), strict=True)
        for i, j in PAIRS
        if one[i].std() > 0 and two[j].std() > 0 and min(rms(first[i]), rms(second[j])) > SILENT_RMS
    ]


def _views(stems: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """Three flat views of stems [4, C, T], each [4, values]: the waveform, its envelope, its magnitude spectrogram."""
    step = round(0.05 * rate)  # 50 ms
    whole = stems[..., : stems.shape[-1] // step * step]
    envelope = np.sqrt(np.square(whole).reshape(len(stems), whole.shape[1], -1, step).mean((1, 3)))
    return {"waveform": stems.reshape(len(stems), -1), "envelope": envelope, "spectrogram": _spectra(stems.mean(1))}


def _spectra(waves: np.ndarray) -> np.ndarray:
    spectra = torch.stft(torch.from_numpy(waves), 1024, 1024, window=torch.hann_window(1024), return_complex=True)
    return spectra.abs().flatten(1).numpy()


def composition(study: Study) -> pd.DataFrame:
    """Key, mode, tempo, genre, groove and number of instruments of every rendered song; empty for other corpora."""
    facts = {"split": "split", "name": "song", "key": "key", "mode": "mode", "bpm": "tempo", "genre": "genre",
             "groove": "groove", "instruments": "instruments"}  # fmt: skip
    songs = itertools.chain(study.labeled, study.unlabeled)
    roots = {folder for song in songs for file in song.files.values() for folder in file.parents[1:4]}
    lists = sorted(root / "songs.json" for root in roots if (root / "songs.json").is_file())
    rows = [song for path in lists for song in json.loads(path.read_text("utf-8"))]
    for song in rows:
        song["instruments"] = len({(part["stem"] == "drums", part["program"]) for part in song["parts"]})
    return pd.DataFrame(rows, columns=list(facts)).rename(columns=facts)
