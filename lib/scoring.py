"""Scores of separated songs, the baselines they are read against, and tidy tables.

Values that no mean can hold are left out of every mean: nan (a silent reference) and infinity (an estimate without any
error, which happens where only one stem sounds and the mixture is that stem).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import STEMS
from lib.store.files import atomic, fitted

VERSION = 1
"""Raise it when the same estimates score otherwise: scores are made again."""
MEAN = "mean"
METRICS = ("uSDR", "uSDR per channel", "cSDR")
"""What every song is scored by; a profile names which one of the uSDR is primary."""
BSS_EVAL = ("SDR", "ISR", "SIR", "SAR")
"""The metrics of BSSEval v4, in museval's order."""
MEDIANS = ("cSDR", *BSS_EVAL[1:])
"""Metrics that are medians over the seconds of a song, and over songs by the field's convention."""
Frames = dict[str, np.ndarray]
"""Metrics of `BSS_EVAL`, each in dB of every stem and second: [S, frames]."""


def usdr(stems: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """10 log10(|s|^2 / |s - s_hat|^2) in dB over channels and samples: [S, C, T], [S, C, T] -> [S], summed in float64.

    A silent reference gives nan, an estimate equal to its reference infinity.
    """
    return np.array([_ratio_db(s, e) for s, e in zip(stems, estimates, strict=True)])


def usdr_per_channel(stems: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """`usdr` of each audio channel, averaged over the channels that sound, as the paper's evaluation has it."""
    channels = np.stack([usdr(stems[:, [c]], estimates[:, [c]]) for c in range(stems.shape[1])])
    count = np.isfinite(channels).sum(0)
    total = np.where(np.isnan(channels), 0.0, channels).sum(0)
    return np.divide(total, count, out=np.full(len(stems), np.nan), where=count > 0)


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


def _ratio_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    if reference.shape != estimate.shape:
        raise ValueError(f"reference {reference.shape} and estimate {estimate.shape} differ in shape")
    reference = reference.astype(np.float64)
    signal, error = (np.einsum("ij,ij->", wave, wave) for wave in (reference, reference - estimate))
    if signal == 0:
        return np.nan
    return 10 * np.log10(signal / error) if error else np.inf


def sdr_frames(stems: np.ndarray, estimates: np.ndarray, rate: int) -> Frames:
    """SDR alone, by `csdr`: [S, C, T], [S, C, T] -> [S, frames]."""
    return {"SDR": csdr(stems.swapaxes(1, 2), estimates.swapaxes(1, 2), rate)}


def bss_eval_frames(stems: np.ndarray, estimates: np.ndarray, rate: int) -> Frames:
    """All of `BSS_EVAL` by museval itself: [S, C, T], [S, C, T] -> [S, frames] each.

    Four stems take 10 CPU seconds or more, even if they are short: museval solves 4,096 equations for each. All frames
    are nan where it refuses a song: where a stem or an estimate is silent throughout.
    """
    import museval  # takes 3 s, and ffmpeg on PATH

    sides = stems.swapaxes(1, 2), estimates.swapaxes(1, 2)
    if any(_silent(wave) for waves in sides for wave in waves):
        return dict.fromkeys(BSS_EVAL, csdr(*sides, rate))
    return dict(zip(BSS_EVAL, museval.evaluate(*sides, win=rate, hop=rate), strict=True))


def median_of_frames(frames: np.ndarray) -> np.ndarray:
    """[S, frames] -> [S]: median over the seconds that have a finite value (museval stores infinity as nan)."""
    finite = [row[np.isfinite(row)] for row in frames]
    return np.array([np.median(row) if row.size else np.nan for row in finite])


def score_song(stems: np.ndarray, estimates: np.ndarray, frames: Frames) -> list[tuple[str, str, float]]:
    """(stem, metric, value in dB) of one song: both uSDR over the song, medians over its seconds; arrays [4, C, T]."""
    per_metric = {"uSDR": usdr(stems, estimates), "uSDR per channel": usdr_per_channel(stems, estimates)}
    per_metric |= {"cSDR" if name == "SDR" else name: median_of_frames(values) for name, values in frames.items()}
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


def museval_json(folder: Path | str, song: str, frames: Frames, subset: str = "test") -> Path:
    """Write ``frames`` [4, frames] as ``folder/SUBSET/SONG.json`` by museval's `TrackStore`, atomically.

    ``museval.EvalStore().add_eval_dir(folder)`` reads the subset "test". Values have five decimals; a metric that is
    not in ``frames`` is NaN, and so is an infinite value, as in all of museval's files.
    """
    import museval  # takes 3 s, and ffmpeg on PATH

    store, missing = museval.TrackStore(song), np.full_like(frames["SDR"], np.nan)
    for i, stem in enumerate(STEMS):
        store.add_target(stem, {metric: frames.get(metric, missing)[i] for metric in BSS_EVAL})
    if len(frames) < len(BSS_EVAL):
        store.scores["museval_version"] += f" ({', '.join(frames)} only, by lib.scoring)"
    if np.isnan(frames["SDR"]).all():
        store.scores["reason"] = "in every second a stem or an estimate is silent: BSSEval is not defined"
    path = Path(folder) / subset / fitted(song, ".json")
    with atomic(path) as temporary:
        store.save(temporary)
    return path


def over_songs(finite: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per group of the columns ``by``, "metric" among them: value over songs, and songs (how many it holds).

    `MEDIANS` are taken as museval's `EvalStore` does, by the median over songs; uSDR by the mean.
    """
    groups = finite.groupby(list(by), dropna=False, sort=False)["value"]
    found = groups.agg(value="mean", median="median", songs="count").reset_index()
    median = found.pop("median")
    return found.assign(value=found["value"].mask(found["metric"].isin(MEDIANS), median))


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Value over songs (`over_songs`) per stem, and their mean over stems as stem "mean", of every model and metric.

    Columns: experiment, method, seed, labeled_songs, metric, stem, value, songs (how many it holds).
    """
    model = ["experiment", "method", "seed", "labeled_songs", "metric"]
    finite = scores[np.isfinite(scores["value"])]
    per_stem = over_songs(finite, [*model, "stem"])
    means = per_stem.groupby(model, dropna=False, sort=False).agg(value=("value", "mean"), songs=("songs", "max"))
    means = means.reset_index().assign(stem=MEAN)
    order = {stem: i for i, stem in enumerate([*STEMS, MEAN])}
    both = pd.concat([per_stem, means], ignore_index=True)
    return both.sort_values([*model, "stem"], key=lambda c: c.map(order) if c.name == "stem" else c, ignore_index=True)
