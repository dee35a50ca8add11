"""What the outputs of a MixIT model hold of the stems of a song: measured once per model, kept in its run folder.

All qualities are SNRs in dB over whole songs, as uSDR is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch

from lib import STEMS, transfer
from lib.arms import Pretraining
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
            rows += _rows(experiment, song, SNR, qualities(found, chosen, every=True))
            rows += _rows(experiment, song, SPREAD, {"MixIT": spread})
        return table(rows)

    return _kept(training, "outputs", [song for _, song in songs] + study.songs("validation"), measure)


def gains(training: Pretraining, validation: list[Track], test: list[Track]) -> pd.DataFrame:
    """Metric ``gain``: SNR above that of the mixture, of the chosen and the best outputs and groups of test songs."""
    study = training.study

    def measure() -> pd.DataFrame:
        separator, rows = training.load(), []
        chosen = choices(study, separator, validation)
        for song in test:
            found = qualities(statistics(study, separator, song), chosen)
            mixture = found.pop("mixture")
            rows += _rows("test", song, "gain", {method: values - mixture for method, values in found.items()})
        return table(rows)

    return _kept(training, "gains", [*validation, *test], measure)


def _kept(training: Pretraining, name: str, songs: list[Track], measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What ``measure`` finds of songs, made once per model (`cached`)."""
    study = training.study
    identity = [corpus_fingerprint(songs), seconds(study), VERSION, transfer.VERSION]
    found = cached(training.trained(), name, identity, measure)
    return named(found, seed=training.seed, labeled_songs=0, fold=study.fold)


def _rows(experiment: str, song: Track, metric: str, methods: dict[str, np.ndarray]) -> list[dict]:
    """Table rows of one metric of a song, [4] by method; none of a stem that is silent."""
    rows = []
    for method, values in methods.items():
        known = [(stem, metric, float(v)) for stem, v in zip(STEMS, values, strict=True) if np.isfinite(v)]
        rows += song_rows(song.name, known, experiment=experiment, method=method)
    return rows


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


def seconds(study: Study, section: str = "pretrain") -> float:
    """The length of what the model sees at once: that of pre-training, or of another section of the profile."""
    return study.samples(getattr(study.profile, section).crop_seconds) / study.profile.audio.rate


def statistics(study: Study, separator: Separator, song: Track, section: str = "pretrain") -> Statistics:
    """Inner products of the outputs with the stems of a whole song; ``section`` as in `seconds`."""
    return transfer.song_statistics(separator, song, seconds(study, section))


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
        found = {name: [statistics(study, model, song, "finetune") for song in songs] for name, model in states.items()}
        return pd.concat([describe(some).assign(state=name) for name, some in found.items()], ignore_index=True)

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
