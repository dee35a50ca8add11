"""What unsupervised MixIT models separate, whether correlation hinders them, and what an undefined source costs.

All qualities are SNRs in dB over whole songs, as uSDR is; gains are taken over the mixture as the estimate.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import median_filter

from lib import STEMS
from lib.arms import EQUAL_COMPUTE, SCRATCH, STALLED, Finetuning, Pretraining
from lib.data.corpora import dealt
from lib.data.tracks import Track
from lib.experiments import evaluate, outputs, protocol
from lib.experiments.intervals import (
    holm_within,
    mean_difference,
    mean_interval,
    paired_interval,
    rank_correlation,
    share_interval,
)
from lib.experiments.jobs import Job, scored, train_in_parallel
from lib.experiments.outputs import BEST, BEST_GROUP, CHOSEN, CHOSEN_GROUP, SNR
from lib.scoring import MEAN
from lib.study import Study

COMPOSED, REDEALT, ONE_SONG = "as composed", "re-dealt", "one song"
SUPERVISED, HPSS = "supervised", "harmonic-percussive"
KINDS = ("waveform", "envelope", "spectrogram")
"""What of two stems is correlated: see `lib.experiments.music`."""


def probe(study: Study) -> pd.DataFrame:
    """Tidy table of the probes on test songs and the real song, for every pre-training seed: ``tables/probes.csv``.

    See `lib.experiments.outputs`; beside the models, without a seed of pre-training, stand `references`. A stem that is
    silent in a song has no row.
    """
    plan = itertools.product(study.profile.pretrain.seeds, study.folds)
    frames = [outputs.outputs(Pretraining(fold, seed)) for seed, fold in plan]
    return study.write("probes", pd.concat([*frames, references(study)], ignore_index=True))


def above_mixture(snr: pd.DataFrame) -> pd.DataFrame:
    """A table of `SNR` with each value taken above that of the song's mixture, in dB."""
    mixture = snr[snr["method"] == "mixture"].groupby(["song", "stem"])["value"].mean()
    at = pd.MultiIndex.from_frame(snr[["song", "stem"]])
    return snr.assign(value=snr["value"] - mixture.reindex(at).array)


def references(study: Study) -> pd.DataFrame:
    """SNR of the supervised model, the ideal ratio mask, and harmonic-percussive separation.

    *Supervised* is from scratch with most labels, until it stalls or with equal compute where the profile has
    that arm.
    """
    protocol.register(study)
    train_in_parallel(map(scored, reference_trainings(study)))
    frames = [evaluate.scores(training).assign(method=SUPERVISED) for training in reference_trainings(study)]
    frames += [evaluate.baselines(study), evaluate.reference(study, HPSS, harmonic_percussive)]
    together = pd.concat(frames, ignore_index=True)
    together = together[(together["metric"] == "uSDR") & (together["method"] != "mixture")]
    return together.assign(metric=SNR)


def reference_trainings(study: Study) -> list[Finetuning]:
    """The supervised models that `references` looks at."""
    settings = study.profile.finetune
    arm = next((arm for arm in (STALLED, EQUAL_COMPUTE) if arm in settings.controls), SCRATCH)
    plan = itertools.product(settings.seeds, study.folds)
    return [Finetuning(fold, arm, seed, max(settings.labeled_songs)) for seed, fold in plan]


def harmonic_percussive(stems: np.ndarray, n_fft: int = 1024, hop: int = 256, length: int = 31) -> np.ndarray:
    """Median-filtering separation (Fitzgerald 2010): what is percussive as drums, what is harmonic as each other stem.

    [4, C, T] -> [4, C, T]; only the sum of the stems is looked at. Masks are the squared ratio of the spectrogram's
    median over ``length`` bins to that over ``length`` frames.
    """
    mixture, window = torch.from_numpy(stems.sum(0)), torch.hann_window(n_fft)
    spectrum = torch.stft(mixture, n_fft, hop, window=window, return_complex=True)
    level = spectrum.abs().mean(0).numpy()
    harmonic, percussive = (median_filter(level, size) ** 2 for size in ((1, length), (length, 1)))
    mask = torch.from_numpy(percussive / np.maximum(harmonic + percussive, 1e-12))
    drums = torch.istft(spectrum * mask, n_fft, hop, window=window, length=mixture.shape[-1])
    return np.stack([(drums if stem == "drums" else mixture - drums).numpy() for stem in STEMS])


def trainings(study: Study) -> dict[str, Study]:
    """The study by what its pre-training hears; all but the first need rendered songs, and the profile's word."""
    settings, found = study.profile.probes, {COMPOSED: study}
    if settings.redealt and study.profile.corpus.unlabeled == "rendered":
        found[REDEALT] = study.variant({"corpus.rendered.redealt": True})
    if settings.same_song:
        found[ONE_SONG] = study.variant({"pretrain.same_song": True})
    return found


def pretrainings(study: Study) -> list[tuple[str, Pretraining]]:
    """(what it hears, training) of every pre-training that the probes look at, trained where missing.

    What `references` needs is trained beside them: two rounds of a few long runs would leave processes idle twice.
    """
    protocol.register(study)
    train_in_parallel([*pretraining_jobs(study), *map(scored, reference_trainings(study))])
    return _pretraining_plan(study)


def pretraining_jobs(study: Study) -> list[Job]:
    """What `pretrainings` trains and looks at."""
    return [Job(training, partial(_probed, kind=kind, study=study)) for kind, training in _pretraining_plan(study)]


def _probed(training: Pretraining, kind: str, study: Study) -> None:
    """Measure what `probe` and `correlation` of ``study`` ask of one pre-training."""
    for fold, variant in zip(study.folds, training.study.folds, strict=True):
        training = replace(training, study=variant)
        if kind == COMPOSED and training.seed in study.profile.pretrain.seeds:
            outputs.outputs(training)
        if training.seed in study.profile.probes.seeds:
            for songs in _tested(fold).values():
                outputs.gains(training, *songs)


def _pretraining_plan(study: Study) -> list[tuple[str, Pretraining]]:
    settings, plan = study.profile, []
    for kind, variant in trainings(study).items():
        seeds = {*settings.probes.seeds, *(settings.pretrain.seeds if variant is study else ())}
        plan += [(kind, Pretraining(variant, seed)) for seed in sorted(seeds)]
    return plan


def correlation(study: Study) -> pd.DataFrame:
    """Each training tested on test songs as composed and on the same stems re-dealt: ``tables/correlation.csv``.

    Columns: trained, tested, and those of the scores; metric ``gain``: SNR in dB above that of the mixture. Outputs are
    chosen on validation songs of the kind tested.
    """
    frames = [
        outputs.gains(Pretraining(variant, seed), *songs).assign(trained=trained, tested=kind)
        for fold, seed in itertools.product(study.folds, study.profile.probes.seeds)
        for trained, variant in trainings(fold).items()
        for kind, songs in _tested(fold).items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    return study.write("correlation", frame[["trained", "tested", *frame.columns.drop(["trained", "tested"])]])


def _tested(study: Study) -> dict[str, tuple[list[Track], list[Track]]]:
    """Validation and test songs, as composed and re-dealt."""
    composed = study.songs("validation"), study.songs("test")
    return {COMPOSED: composed, REDEALT: tuple(dealt(songs) for songs in composed)}


def correlation_table(study: Study, gains: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over stems per training, test and method, with 95% intervals: ``tables/correlation_means.csv``."""
    rows = []
    for (trained, tested, method), part in gains.groupby(["trained", "tested", "method"], sort=False):
        found = mean_interval(part, method, "gain").set_index("stem").loc[MEAN]
        counts = {"n_songs": part["song"].nunique(), "n_seeds": part["seed"].nunique()}
        rows.append({"trained": trained, "tested": tested, "method": method, **found, **counts})
    return study.write("correlation_means", pd.DataFrame(rows))


def correlation_effects(study: Study, gains: pd.DataFrame) -> pd.DataFrame:
    """What another training changes, paired by song and seed: ``tables/correlation_effects.csv``.

    ``p_holm`` is corrected over the outputs and groups of one training, tested on one kind of songs.
    """
    rows = []
    for trained in [kind for kind in gains["trained"].unique() if kind != COMPOSED]:
        both = gains[gains["trained"].isin([trained, COMPOSED])]
        for (tested, method), part in both.groupby(["tested", "method"], sort=False):
            facts = {"trained": trained, "against": COMPOSED, "tested": tested, "method": method}
            arms = part.assign(method=part["trained"])
            rows.append(facts | mean_difference(arms, trained, COMPOSED, "gain"))
    if not rows:
        return study.write("correlation_effects", pd.DataFrame(columns=["trained", "against", "tested", "method"]))
    return study.write("correlation_effects", holm_within(pd.DataFrame(rows), ["trained", "tested"]))


def within_songs(study: Study, survey: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Per test song, how its stems go together and how well MixIT separates it: ``tables/within_songs.csv``.

    Columns: song, the mean over pairs of stems of the absolute correlation of each of `KINDS` (from the survey of
    notebook 00), and ``gain``: of the chosen group, mean over stems and seeds; with folds, ``fold``, that tests it.
    """
    pairs = survey[(survey["corpus"] == "labelled") & (survey["split"] == "test")]
    sizes = pairs.assign(value=pairs["value"].abs())
    means = {kind: sizes[sizes["metric"] == f"{kind} correlation"].groupby("song")["value"].mean() for kind in KINDS}
    chosen = gains[(gains["trained"] == COMPOSED) & (gains["tested"] == COMPOSED) & (gains["method"] == CHOSEN_GROUP)]
    gain, fold = chosen.groupby(["song", "stem"])["value"].mean().groupby("song").mean(), chosen.groupby("song")["fold"]
    columns = {**means, "gain": gain} | ({"fold": fold.first()} if study.profile.corpus.folds else {})
    return study.write("within_songs", pd.DataFrame(columns).rename_axis("song").reset_index())


def rank_correlations(songs: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho of each kind of correlation with the gain over songs: kind, rho, low, high (95%), p, p_holm, n.

    ``p_holm`` is corrected over the kinds. Folds choose outputs of their own, so that their songs are compared among
    themselves: both sides are taken from the means of the song's fold.
    """
    rows = []
    for kind in KINDS:
        known = songs[[kind, "gain"]].dropna()
        known = known - known.groupby(songs["fold"]).transform("mean") if "fold" in songs else known
        found = rank_correlation(known[kind], known["gain"]) if len(known) > 2 else (np.nan, np.nan, np.nan, 1.0)
        facts = zip(("rho", "low", "high", "p"), found, strict=True)
        rows.append({"kind": kind, **dict(facts), "n": len(known)})
    return holm_within(pd.DataFrame(rows).assign(family="kinds")).drop(columns="family")


def constancy(probes: pd.DataFrame) -> pd.DataFrame:
    """How constant the map from stems to outputs is over test songs: ``outputs``, the exponential of its entropy.

    For each pre-training seed and stem, the output of highest SNR is found song by song: 1 means the same one in all
    songs, N that any is as likely. Columns: seed, stem, outputs, most_frequent (its share of the songs), n_songs.
    """
    single = probes[(probes["experiment"] == "test") & probes["method"].str.fullmatch(r"output \d+")]
    rows = []
    for (seed, stem), part in single.groupby(["seed", "stem"], sort=False):
        winners = part.loc[part.groupby("song")["value"].idxmax(), "method"].value_counts(normalize=True)
        entropy = -float((winners * np.log(winners)).sum())
        facts = {"outputs": np.exp(entropy), "most_frequent": winners.max(), "n_songs": part["song"].nunique()}
        rows.append({"seed": seed, "stem": stem, **facts})
    return pd.DataFrame(rows)


def shares(study: Study, probes: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """What closes the distance between MixIT and the supervised model: ``tables/shares.csv``.

    The distance, on test songs as composed: the supervised model's SNR minus that of one chosen output per stem.
    *Correlation*: what training on re-dealt songs adds. *Definition*: what a group of outputs, chosen by a few labelled
    songs, adds to one output; *definition, with hindsight* the same with the groups best for each song. Shares are of
    mean SNRs over songs and stems, paired by song and by seed (the supervised model's seeds in their order).
    Columns: what, decibels, low_db, high_db, p (of the decibels), p_holm (corrected over what may close the distance),
    share, low, high (unbounded where the distance is not shown to differ from zero), n_songs, n_seeds, n_origins.
    """
    test = probes[probes["experiment"] == "test"]
    supervised = above_mixture(test)[test["method"] == SUPERVISED].assign(metric="gain", method=SUPERVISED)
    composed = gains[gains["tested"] == COMPOSED]
    arms = composed.assign(method=composed["trained"] + ": " + composed["method"])
    both = pd.concat([_numbered(arms), _numbered(supervised)], ignore_index=True)
    start = f"{COMPOSED}: {CHOSEN}"
    ends = {
        "definition": f"{COMPOSED}: {CHOSEN_GROUP}",
        "definition, with hindsight": f"{COMPOSED}: {BEST_GROUP}",
        "correlation": f"{REDEALT}: {CHOSEN}",
        "both": f"{REDEALT}: {CHOSEN_GROUP}",
        "whole distance": SUPERVISED,
    }
    rows, known = [], set(both["method"])
    for what, end in ((what, end) for what, end in ends.items() if end in known):
        found = mean_difference(both, end, start, "gain")
        share, low, high = share_interval(both, (end, start), (SUPERVISED, start), "gain")
        rows.append({
            "what": what, "decibels": found["difference"], "low_db": found["low"], "high_db": found["high"],
            "p": found["p"], "share": share, "low": low, "high": high,
            **{name: float(found[name]) for name in ("n_songs", "n_seeds", "n_origins")},
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table = holm_within(table.assign(family=table["what"] == "whole distance")).drop(columns="family")
    return study.write("shares", table)


def _numbered(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with their seeds numbered from 0 in their order."""
    return scores.assign(seed=scores["seed"].rank(method="dense").astype(int) - 1)


def grouping_gain(study: Study, probes: pd.DataFrame) -> pd.DataFrame:
    """Best group minus best single output and chosen group minus chosen output, per stem, with 95% intervals.

    ``p_holm`` is corrected over the stems of a comparison; their mean is a test of its own.
    """
    test = probes[probes["experiment"] == "test"]
    pairs = ((BEST_GROUP, BEST), (CHOSEN_GROUP, CHOSEN))
    frames = [paired_interval(test, *pair, SNR).assign(method=pair[0], against=pair[1]) for pair in pairs]
    table = pd.concat(frames, ignore_index=True)
    return holm_within(table.assign(family=table["stem"] == MEAN), ["method", "family"]).drop(columns="family")
