"""What an unsupervised MixIT model separates: every output and group of outputs against every stem of every song."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from lib import STEMS
from lib.corpora import Track
from lib.losses import all_assignments
from lib.mixing import song_segments
from lib.model import Separator
from lib.outputs import Statistics, best_groups, choose_outputs, mean_snr, output_snr, song_statistics
from lib.scoring import song_rows, table
from lib.stages import Study

SNR, SPREAD = "SNR", "effective outputs"


def routed_energy(separator: Separator, song: Track, seconds: float) -> np.ndarray:
    """Energy of each stem that each output's mask lets through: [4, N].

    Masks are linear filters once the mixture has fixed them, so that a stem's way through the separator can be followed
    alone: the mask of output n, found from the mixture, is applied to the stem's own spectrum.
    """
    device, total = separator.window.device, 0.0
    with torch.inference_mode():
        for _, stems in song_segments([song], seconds, separator.rate):
            masks, spectrum = separator.masks(stems.sum(0, keepdim=True).to(device))
            spectra = separator.stft(stems.to(device))[:, :, : spectrum.shape[2]]
            let_through = separator.masker.filter(masks, torch.ones_like(spectrum))[0]
            power = let_through.abs().square().flatten(1) @ spectra.abs().square().flatten(1).T
            total = total + power.T.double().cpu().numpy()
    return total


def effective_outputs(energy: np.ndarray) -> np.ndarray:
    """Over how many outputs, 1 to N, each stem spreads: exponential of the entropy of its shares, [4, N] -> [4]."""
    total = energy.sum(1, keepdims=True)
    share = np.divide(energy, total, out=np.full_like(energy, np.nan), where=total > 0)
    return np.exp(-np.sum(share * np.log(np.maximum(share, 1e-30)), axis=1))


def probe(study: Study) -> pd.DataFrame:
    """Tidy table of the probes on test songs and the real song.

    Metric `SNR` in dB over the song for the mixture, every single output ("output 3"), the outputs and groups chosen on
    validation songs, and the best single output and best group with the song's own stems known (an upper bound); metric
    `SPREAD` for the pre-trained model. A stem that is silent in a song has no row.
    """
    profile, run = study.profile, study.pretrain()
    separator = study.load(run)
    seconds = study.samples(profile.pretrain.crop_seconds) / profile.audio.rate
    outputs = separator.sources
    validation = study.output_statistics("validation")
    subsets = all_assignments(outputs).numpy().astype(float)
    chosen = {"chosen output": np.eye(outputs)[choose_outputs(validation)], "chosen group": best_groups(validation)}
    rows = []
    for experiment, song in study.test_songs():
        statistics = song_statistics(separator, song, seconds)
        snr = statistics.snr(subsets)
        singles = statistics.snr(np.eye(outputs))
        values = {
            "mixture": mixture_snr(statistics),
            "best output": singles.max(1),
            "best group": snr.max(1),
            **{name: np.diagonal(statistics.snr(groups)) for name, groups in chosen.items()},
            **{f"output {n}": singles[:, n] for n in range(outputs)},
        }
        spread = np.where(statistics.active, effective_outputs(routed_energy(separator, song, seconds)), np.nan)
        scores = [(stem, SNR, method, values[method][i]) for method in values for i, stem in enumerate(STEMS)]
        scores += [(stem, SPREAD, "MixIT", spread[i]) for i, stem in enumerate(STEMS)]
        for stem, metric, method, value in scores:
            if np.isfinite(value):
                facts = {"experiment": experiment, "method": method, "seed": profile.pretrain.seeds[0]}
                rows += song_rows(song.name, [(stem, metric, float(value))], **facts, labeled_songs=0)
    return table(rows)


def mixture_snr(statistics: Statistics) -> np.ndarray:
    """SNR in dB [4] of the mixture itself as the estimate of every stem; nan for silent stems."""
    error = statistics.mixture - 2 * statistics.with_mixture + statistics.energy
    energy = np.maximum(statistics.energy, 1e-300)
    snr = 10 * np.log10(energy / np.maximum(error, 1e-12 * energy))
    return np.where(statistics.active, snr, np.nan)


def describe(statistics: list[Statistics]) -> pd.DataFrame:
    """Stem by output: mean SNR in dB over songs, whether the output is chosen for the stem and is in its best group.

    Columns stem, output, SNR, chosen, group, and group_SNR, that of the whole group (the same in all rows of a stem).
    """
    snr, chosen, groups = output_snr(statistics), choose_outputs(statistics), best_groups(statistics)
    together = np.diagonal(mean_snr(statistics, groups))
    return pd.DataFrame([
        {"stem": stem, "output": n, "SNR": snr[i, n], "chosen": chosen[i] == n, "group": groups[i, n] > 0,
         "group_SNR": together[i]}
        for i, stem in enumerate(STEMS)
        for n in range(snr.shape[1])
    ])  # fmt: skip
