"""What the music of a study is: durations, levels and correlations of stems, spectrograms, and excerpts to hear."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import soundfile
import torch

from lib import STEMS
from lib.corpora import Track
from lib.mixing import SILENT_RMS, rms
from lib.stages import Study

PAIRS = tuple(itertools.combinations(range(len(STEMS)), 2))
ENVELOPE_SECONDS = 0.05
MOST_UNLABELED = 1000
BANDS, FRAMES, FLOOR_DB = 64, 240, -80


def survey(study: Study) -> pd.DataFrame:
    """Tidy table (corpus, split, song, stem, metric, value) of all labelled songs, the real song and unlabelled songs.

    Metrics: ``seconds``; ``level`` of a stem in dB under its mixture; and per pair of stems the correlation of
    waveforms, of envelopes (RMS in 50 ms) and of magnitude spectrograms, within a song (``envelope correlation``) and
    with the second stem taken from the song before (``envelope correlation, other song``), as what chance gives. Of
    unlabelled songs, at most `MOST_UNLABELED` are listed.
    """
    rate, rows = study.profile.audio.rate, []
    for split in ("train", "validation", "test"):
        songs = [song for song in study.labeled if song.split == split]
        waves = songs[-1].stems(rate=rate) if songs else None
        for song in songs:
            before, waves = waves, song.stems(rate=rate)
            facts = {"corpus": "labelled", "split": split, "song": song.name}
            values = [("mixture", "seconds", song.seconds), *_levels(waves), *_correlations(waves, waves, rate)]
            if len(songs) > 1:
                values += _correlations(waves, before, rate, ", other song")
            rows += [{**facts, "stem": stem, "metric": metric, "value": value} for stem, metric, value in values]
    waves, facts = study.real_song.stems(rate=rate), {"corpus": "real song", "split": "test", "song": study.real_song.name}
    values = [("mixture", "seconds", study.real_song.seconds), *_levels(waves), *_correlations(waves, waves, rate)]
    rows += [{**facts, "stem": stem, "metric": metric, "value": value} for stem, metric, value in values]
    for song in study.unlabeled[:: max(1, len(study.unlabeled) // MOST_UNLABELED)]:
        facts = {"corpus": "unlabelled", "split": song.split, "song": song.name}
        rows.append({**facts, "stem": "mixture", "metric": "seconds", "value": song.seconds})
    return pd.DataFrame(rows)


def _levels(stems: np.ndarray) -> list[tuple[str, str, float]]:
    """Level of every stem that sounds, in dB under the mixture."""
    total = rms(stems.sum(0))
    levels = [(stem, rms(wave)) for stem, wave in zip(STEMS, stems, strict=True)]
    return [(stem, "level", 20 * float(np.log10(level / total))) for stem, level in levels if level > SILENT_RMS]


def _correlations(first: np.ndarray, second: np.ndarray, rate: int, suffix: str = "") -> list[tuple[str, str, float]]:
    """Correlation of stem i of ``first`` with stem j of ``second`` for all pairs of stems that both sound."""
    length = min(first.shape[-1], second.shape[-1])
    views = [_views(stems[..., :length], rate) for stems in (first, second)]
    return [
        (f"{STEMS[i]} & {STEMS[j]}", f"{name} correlation{suffix}", float(np.corrcoef(one[i], two[j])[0, 1]))
        for name in views[0]
        for one, two in [(views[0][name], views[1][name])]
        for i, j in PAIRS
        if one[i].std() > 0 and two[j].std() > 0 and min(rms(first[i]), rms(second[j])) > SILENT_RMS
    ]


def _views(stems: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """Three flat views of stems [4, C, T], each [4, values]: the waveform, its envelope, its magnitude spectrogram."""
    step = round(ENVELOPE_SECONDS * rate)
    whole = stems[..., : stems.shape[-1] // step * step]
    envelope = np.sqrt(np.square(whole).reshape(len(stems), whole.shape[1], -1, step).mean((1, 3)))
    return {"waveform": stems.reshape(len(stems), -1), "envelope": envelope, "spectrogram": _spectra(stems.mean(1))}


def _spectra(waves: np.ndarray) -> np.ndarray:
    spectra = torch.stft(torch.from_numpy(waves), 1024, 1024, window=torch.hann_window(1024), return_complex=True)
    return spectra.abs().flatten(1).numpy()


def composition(study: Study) -> pd.DataFrame:
    """Key, mode, tempo, genre, groove and number of instruments of every rendered song; empty for other corpora."""
    columns = ["split", "song", "key", "mode", "tempo", "genre", "groove", "instruments"]
    roots = {p for song in (*study.labeled, *study.unlabeled) for f in song.files.values() for p in f.parents[1:4]}
    lists = sorted(root / "songs.json" for root in roots if (root / "songs.json").is_file())
    rows = [
        [s["split"], s["name"], s["key"], s["mode"], s["bpm"], s["genre"], s["groove"], _instruments(s["parts"])]
        for path in lists
        for s in json.loads(path.read_text("utf-8"))
    ]
    return pd.DataFrame(rows, columns=columns)


def _instruments(parts: list[dict]) -> int:
    return len({(part["stem"] == "drums", part["program"]) for part in parts})


def spectrograms(song: Track, seconds: float, rate: int) -> pd.DataFrame:
    """Level in dB under the loudest point of the song's start: a row per source and frequency, a column per time in s.

    64 bands of equal width on a logarithmic scale from 40 Hz on, whole dB, no lower than -80.
    """
    stems = song.stems(0.0, min(seconds, song.seconds), rate)
    waves = torch.from_numpy(np.concatenate([stems.sum(0, keepdims=True), stems]).mean(1))
    hop = max(1, waves.shape[1] // FRAMES)
    power = torch.stft(waves, 4096, hop, window=torch.hann_window(4096), return_complex=True).abs().square()
    edges = np.geomspace(40, rate / 2, BANDS + 1) * 4096 / rate
    bins = [slice(int(low), max(int(low) + 1, int(high))) for low, high in itertools.pairwise(edges)]
    bands = torch.stack([power[:, part].mean(1) for part in bins], 1)
    level = (10 * torch.log10(bands / bands.max() + 1e-12)).clamp(min=FLOOR_DB).round().int().numpy()
    times = [f"{frame * hop / rate:.2f}" for frame in range(level.shape[2])]
    index = pd.MultiIndex.from_product([("mixture", *STEMS), edges[:-1] * rate / 4096], names=["source", "frequency"])
    return pd.DataFrame(level.reshape(-1, len(times)), index, times).reset_index()


def player(waves: dict[str, np.ndarray], rate: int) -> str:
    """HTML with one player per named wave [C, T]; MP3, for it is small and every browser plays it."""
    return "".join(f"<div style='display:flex;gap:1em'><span style='width:8em'>{name}</span>{_audio(wave, rate)}</div>"
                   for name, wave in waves.items())  # fmt: skip


def _audio(wave: np.ndarray, rate: int) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1).T, rate, format="MP3", compression_level=0.5)
    return f"<audio controls preload='none' src='data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}'></audio>"


def named_sources(song: Track, start: float, seconds: float, rate: int, stems: Sequence[str] = STEMS) -> dict[str, np.ndarray]:
    """Mixture and stems of an excerpt, by name."""
    waves = song.stems(start, min(seconds, song.seconds - start), rate)
    return {"mixture": waves.sum(0), **dict(zip(stems, waves, strict=True))}
