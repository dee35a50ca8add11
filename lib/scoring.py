"""Scores of separated songs, the baselines they are read against, and tidy tables.

Values that no mean can hold are left out of every mean: nan (a silent reference) and infinity (an estimate without any
error, which happens where only one stem sounds and the mixture is that stem).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import STEMS
from lib.store.files import atomic

VERSION = 1
"""Raise it when the same estimates score otherwise: scores are made again."""
MEAN = "mean"


def usdr(stems: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """10 log10(|s|^2 / |s - s_hat|^2) in dB over channels and samples: [S, C, T], [S, C, T] -> [S], summed in float64.

    A silent reference gives nan, an estimate equal to its reference infinity.
    """
    return np.array([_ratio_db(*_energies(s, e)) for s, e in zip(stems, estimates, strict=True)])


def csdr(stems: np.ndarray, estimates: np.ndarray, rate: int) -> np.ndarray:
    """SDR in dB of every whole second, as `museval.evaluate` gives it: [S, T, C], [S, T, C] -> [S, frames].

    BSSEval v4's SDR is the plain energy ratio of a frame; its filters only split the error further. As in museval
    0.4.1, a trailing part of a second is dropped, a signal under a second is one frame, and a frame is nan for all
    stems if one reference or estimate is silent in it, silent meaning that its channels sum to 0 at every sample.
    Where museval refuses a song (a stem silent throughout), all frames are nan.
    """
    samples = stems.shape[1]
    frames = max(samples // rate, min(samples, 1))
    sdr = np.full((len(stems), frames), np.nan)
    for frame in range(frames):
        part = slice(frame * rate, (frame + 1) * rate)
        if not any(_silent(wave[part]) for waves in (stems, estimates) for wave in waves):
            sdr[:, frame] = usdr(stems[:, part], estimates[:, part])
    return sdr


def _silent(frame: np.ndarray) -> bool:
    """Whether the channels of a frame [T, C] sum to 0 at every sample; the first sample alone mostly tells."""
    return not frame[0].sum() and not frame.sum(-1).any()


def _energies(reference: np.ndarray, estimate: np.ndarray) -> tuple[float, float]:
    if reference.shape != estimate.shape:
        raise ValueError(f"reference {reference.shape} and estimate {estimate.shape} differ in shape")
    reference = reference.astype(np.float64)
    error = reference - estimate
    return np.einsum("ij,ij->", reference, reference), np.einsum("ij,ij->", error, error)


def _ratio_db(signal: float, error: float) -> float:
    if signal == 0:
        return np.nan
    return 10 * np.log10(signal / error) if error else np.inf


def median_sdr(frames: np.ndarray) -> np.ndarray:
    """cSDR of a song, [S, frames] -> [S]: median over the finite frames of `csdr` (museval stores infinity as nan)."""
    finite = [row[np.isfinite(row)] for row in frames]
    return np.array([np.median(row) if row.size else np.nan for row in finite])


def score_song(reference: np.ndarray, estimate: np.ndarray, rate: int) -> list[tuple[str, str, float]]:
    """(stem, metric, value in dB) of one song: uSDR over the song, cSDR over its seconds; both arrays [4, C, T]."""
    per_metric = {
        "uSDR": usdr(reference, estimate),
        "cSDR": median_sdr(csdr(reference.swapaxes(1, 2), estimate.swapaxes(1, 2), rate)),
    }
    return [(stem, metric, float(values[i])) for metric, values in per_metric.items() for i, stem in enumerate(STEMS)]


def mixture_as_estimate(mixture: np.ndarray, stems: int = len(STEMS)) -> np.ndarray:
    """The baseline that separates nothing: [C, T] -> a read-only view [S, C, T]."""
    return np.broadcast_to(mixture, (stems, *mixture.shape))


def ideal_ratio_mask(mixture: np.ndarray, stems: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """The oracle ceiling: the mixture under the masks |S_i| / sum_j |S_j|, per channel: [C, T], [S, C, T] -> [S, C, T].

    One channel at a time, so that memory is a few spectrograms of one channel.
    """
    window = torch.hann_window(n_fft, dtype=torch.float64).float()

    def spectrum(wave: np.ndarray) -> torch.Tensor:
        wave = torch.from_numpy(np.ascontiguousarray(wave, np.float32))
        return torch.stft(wave, n_fft, hop, window=window, pad_mode="constant", return_complex=True)

    estimates = np.empty(stems.shape, np.float32)
    for channel in range(mixture.shape[0]):
        total = sum(spectrum(stem[channel]).abs() for stem in stems).clamp_(min=1e-12)
        ratio = spectrum(mixture[channel]) / total
        for stem, estimate in zip(stems, estimates, strict=True):
            masked = ratio * spectrum(stem[channel]).abs()
            estimate[channel] = torch.istft(masked, n_fft, hop, window=window, length=mixture.shape[1]).numpy()
    return estimates


def museval_json(folder: Path | str, song: str, sdr: np.ndarray, targets: Iterable[str] = STEMS) -> Path:
    """Write ``sdr`` [S, frames] (from `csdr`) as ``folder/test/SONG.json`` in museval's schema, atomically.

    ``museval.EvalStore().add_eval_dir(folder)`` reads it.
    SIR, ISR and SAR need museval's 512-tap filters and are NaN; so is an infinite SDR, as in museval's own files.
    """

    def frame(second: int, value: float) -> dict:
        metrics = {"SDR": float(value) if np.isfinite(value) else np.nan, "SIR": np.nan, "SAR": np.nan, "ISR": np.nan}
        return {"time": float(second), "duration": 1.0, "metrics": metrics}

    named = zip(targets, sdr, strict=True)
    scores = {
        "targets": [{"name": name, "frames": [frame(i, value) for i, value in enumerate(row)]} for name, row in named],
        "museval_version": "0.4.1 (SDR only, by lib.scoring)",
    }
    path = Path(folder) / "test" / f"{song}.json"
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(scores, indent=2), encoding="utf-8")
    return path


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over songs per stem, and the mean of those over stems as stem "mean", for every model (seed) and metric.

    Columns: experiment, method, seed, labeled_songs, metric, stem, value, songs (how many the mean holds).
    """
    model = ["experiment", "method", "seed", "labeled_songs", "metric"]
    finite = scores[np.isfinite(scores["value"])]
    per_stem = finite.groupby([*model, "stem"], dropna=False, sort=False)["value"].agg(value="mean", songs="count")
    per_stem = per_stem.reset_index()
    means = per_stem.groupby(model, dropna=False, sort=False).agg(value=("value", "mean"), songs=("songs", "max"))
    means = means.reset_index().assign(stem=MEAN)
    order = {stem: i for i, stem in enumerate([*STEMS, MEAN])}
    both = pd.concat([per_stem, means], ignore_index=True)
    return both.sort_values([*model, "stem"], key=lambda c: c.map(order) if c.name == "stem" else c, ignore_index=True)
