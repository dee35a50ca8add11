"""What the outputs of a MixIT model hold of the stems of a song: measured once per model, kept in its run folder.

All qualities are SNRs in dB over whole songs, as uSDR is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from lib import STEMS, transfer
from lib.arms import Pretraining, song_statistics
from lib.data.tracks import Track, corpus_fingerprint, expect
from lib.experiments import evaluate
from lib.experiments.evaluate import cached, named
from lib.losses import all_assignments
from lib.mixing import song_segments
from lib.model.separator import Separator
from lib.store.tables import song_rows, table
from lib.study import Study
from lib.transfer import Statistics, best_groups, choose_outputs, mean_snr, output_snr

SNR, SPREAD = "SNR", "effective outputs"
CHOSEN, CHOSEN_GROUP, BEST, BEST_GROUP = "chosen output", "chosen group", "best output", "best group"
VERSION = 1
"""Raise it when the same model measures otherwise: what is kept is measured again."""


def outputs(training: Pretraining) -> pd.DataFrame:
    """What every output, choice and group of one pre-training holds of the test songs and (see `songs`) the real song.

    Metric `SNR` for the mixture, every single output ("output 3"), the output and the group chosen per stem on
    validation songs, the best output and the best group with the song's own stems known; metric `SPREAD` for "MixIT".
    """
    study, songs = training.study, evaluate.songs(training.study, "test")

    def measure() -> pd.DataFrame:
        separator, rows = training.load(), []
        chosen = choices(study, separator, study.songs("validation"))
        for experiment, song in songs:
            found = statistics(study, separator, song)
            spread = np.where(found.active, effective_outputs(routed_energy(study, separator, song)), np.nan)
            values = {SNR: qualities(found, chosen, every=True), SPREAD: {"MixIT": spread}}
            for metric, methods in values.items():
                for method, per_stem in methods.items():
                    facts = {"experiment": experiment, "method": method, "seed": training.seed, "labeled_songs": 0}
                    rows += song_rows(song.name, _sounding(metric, per_stem), **facts)
        return table(rows)

    heard = [song for _, song in songs] + study.songs("validation")
    return named(cached(training.trained(), "outputs", _identity(study, heard), measure), fold=study.fold)


def gains(training: Pretraining, validation: list[Track], test: list[Track]) -> pd.DataFrame:
    """Metric ``gain``: SNR above that of the mixture, of the chosen and the best outputs and groups of test songs."""
    study = training.study

    def measure() -> pd.DataFrame:
        separator, rows = training.load(), []
        chosen = choices(study, separator, validation)
        for song in test:
            found = qualities(statistics(study, separator, song), chosen)
            mixture = found.pop("mixture")
            for method, values in found.items():
                facts = {"experiment": "test", "method": method, "seed": training.seed, "labeled_songs": 0}
                rows += song_rows(song.name, _sounding("gain", values - mixture), **facts)
        return table(rows)

    found = cached(training.trained(), "gains", _identity(study, [*validation, *test]), measure)
    return named(found, fold=study.fold)


def _identity(study: Study, songs: list[Track]) -> list:
    return [corpus_fingerprint(songs), seconds(study), VERSION, transfer.VERSION]


def _sounding(metric: str, per_stem: np.ndarray) -> list[tuple[str, str, float]]:
    return [(s, metric, float(value)) for s, value in zip(STEMS, per_stem, strict=True) if np.isfinite(value)]


def choices(study: Study, separator: Separator, songs: Iterable[Track]) -> dict[str, np.ndarray]:
    """What a few labelled songs say the outputs are: one output per stem, and the best group, each binary [4, N]."""
    expect(songs, "validation")
    found = [statistics(study, separator, song) for song in songs]
    single = np.eye(separator.sources)[choose_outputs(found)]
    return {CHOSEN: single, CHOSEN_GROUP: best_groups(found)}


def qualities(song: Statistics, chosen: dict[str, np.ndarray], every: bool = False) -> dict[str, np.ndarray]:
    """SNR in dB [4] of one song: mixture, chosen and best outputs and groups, and with ``every`` each single output."""
    outputs = len(song.gram)
    singles = song.snr(np.eye(outputs))
    groups = song.snr(all_assignments(outputs).numpy().astype(float))
    return {
        "mixture": mixture_snr(song),
        BEST: singles.max(1),
        BEST_GROUP: groups.max(1),
        **{name: np.diagonal(song.snr(groups)) for name, groups in chosen.items()},
        **({f"output {n}": singles[:, n] for n in range(outputs)} if every else {}),
    }


def mixture_snr(song: Statistics) -> np.ndarray:
    """SNR in dB [4] of the mixture itself as the estimate of every stem; nan for silent stems."""
    error = song.mixture - 2 * song.with_mixture + song.energy
    energy = np.maximum(song.energy, 1e-300)
    snr = 10 * np.log10(energy / np.maximum(error, 1e-12 * energy))
    return np.where(song.active, snr, np.nan)


def seconds(study: Study) -> float:
    """The length of what the model sees at once: that of pre-training."""
    return study.samples(study.profile.pretrain.crop_seconds) / study.profile.audio.rate


def statistics(study: Study, separator: Separator, song: Track) -> Statistics:
    """Inner products of the outputs with the stems of a whole song."""
    return transfer.song_statistics(separator, song, seconds(study))


def routed_energy(study: Study, separator: Separator, song: Track) -> np.ndarray:
    """Energy of each stem that each output's mask lets through: [4, N].

    Masks are linear filters once the mixture has fixed them, so that a stem's way through the separator can be followed
    alone: the mask of output n, found from the mixture, is applied to the stem's own spectrum.
    """
    device, total = separator.window.device, 0.0
    with torch.inference_mode():
        for _, stems in song_segments([song], seconds(study), separator.rate):
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


def before_and_after(study: Study) -> pd.DataFrame:
    """`describe` of the first pre-training on validation songs, by ``state``: initial weights, after MixIT.

    With folds, on those of the first.
    """
    study = study.folds[0]
    training, songs = Pretraining(study, study.profile.pretrain.seeds[0]), study.songs("validation")

    def measure() -> pd.DataFrame:
        states = {"initial weights": training.start(), "after MixIT": training.load()}
        tables = {state: describe(song_statistics(study, model)) for state, model in states.items()}
        return pd.concat([frame.assign(state=state) for state, frame in tables.items()], ignore_index=True)

    return cached(training.trained(), "before-after", [corpus_fingerprint(songs), VERSION, transfer.VERSION], measure)


def describe(songs: list[Statistics]) -> pd.DataFrame:
    """Stem by output: mean SNR in dB over songs, whether the output is chosen for the stem and is in its best group.

    Columns stem, output, SNR, chosen, group, and group_SNR, that of the whole group (the same in all rows of a stem).
    """
    snr, chosen, groups = output_snr(songs), choose_outputs(songs), best_groups(songs)
    together = np.diagonal(mean_snr(songs, groups))
    return pd.DataFrame([
        {"stem": stem, "output": n, "SNR": snr[i, n], "chosen": chosen[i] == n, "group": groups[i, n] > 0,
         "group_SNR": together[i]}
        for i, stem in enumerate(STEMS)
        for n in range(snr.shape[1])
    ])  # fmt: skip
