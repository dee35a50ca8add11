"""What unsupervised MixIT models separate, whether correlation hinders them, and what an undefined source costs.

All qualities are SNRs in dB over whole songs, as uSDR is; gains are taken over the mixture as the estimate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import median_filter

from lib import STEMS, evaluation
from lib.corpora import Track, dealt
from lib.intervals import mean_interval, own, paired_interval, rank_correlation, share_interval
from lib.losses import all_assignments
from lib.mixing import song_segments
from lib.model import Separator
from lib.outputs import Statistics, best_groups, choose_outputs, mean_snr, output_snr, song_statistics
from lib.runs import Run
from lib.scoring import MEAN, song_rows, table
from lib.stages import SCRATCH, Study
from lib.workers import MIXIT, Job, ahead

SNR, SPREAD = "SNR", "effective outputs"
COMPOSED, REDEALT, ONE_SONG = "as composed", "re-dealt", "one song"
CHOSEN, CHOSEN_GROUP, BEST, BEST_GROUP = "chosen output", "chosen group", "best output", "best group"
SUPERVISED, HPSS = "supervised", "harmonic-percussive"


# What MixIT alone separates


def probe(study: Study) -> pd.DataFrame:
    """Tidy table of the probes on test songs and the real song, for every pre-training seed: ``tables/probes.csv``.

    Metric `SNR` in dB over the song for the mixture, every single output ("output 3"), the output and the group chosen
    per stem on validation songs, the best output and the best group with the song's own stems known (an upper bound);
    metric `SPREAD` for the model. Beside them, without a seed of pre-training, `references`. A stem that is silent in a
    song has no row.
    """
    frames = [_probed(study, study.songs("test"), "test", seed) for seed in study.profile.pretrain.seeds]
    frames += [_probed(study, [study.real_song], "real song", seed) for seed in study.profile.pretrain.seeds]
    return study.write("probes", pd.concat([*frames, references(study)], ignore_index=True))


def references(study: Study) -> pd.DataFrame:
    """SNR of the supervised model with most labels, the ideal ratio mask, and harmonic-percussive separation."""
    songs = max(study.profile.finetune.labeled_songs)
    seeds = study.profile.finetune.seeds
    ahead(Job(study.profile, SCRATCH, seed, songs, "test") for seed in seeds)
    trained = (study.supervised(SCRATCH, seed, songs) for seed in seeds)
    frames = [evaluation.scores(study, run, SUPERVISED, seed, songs) for seed, run in zip(seeds, trained, strict=True)]
    frames += [evaluation.baselines(study), evaluation.reference(study, HPSS, harmonic_percussive)]
    together = pd.concat(frames, ignore_index=True)
    together = together[(together["metric"] == "uSDR") & (together["method"] != "mixture")]
    return together.assign(metric=SNR)


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


def _probed(study: Study, songs: Iterable[Track], experiment: str, seed: int) -> pd.DataFrame:
    separator = study.load(study.pretrain(seed))
    chosen = choices(study, separator, study.songs("validation"))
    rows = []
    for song in songs:
        statistics = _statistics(study, separator, song)
        spread = np.where(statistics.active, effective_outputs(routed_energy(study, separator, song)), np.nan)
        values = {SNR: qualities(statistics, chosen, every=True), SPREAD: {"MixIT": spread}}
        scores = [
            (stem, metric, method, value)
            for metric, found in values.items()
            for method, per_stem in found.items()
            for stem, value in zip(STEMS, per_stem, strict=True)
            if np.isfinite(value)
        ]
        for stem, metric, method, value in scores:
            facts = {"experiment": experiment, "method": method, "seed": seed, "labeled_songs": 0}
            rows += song_rows(song.name, [(stem, metric, float(value))], **facts)
    return table(rows)


def choices(study: Study, separator: Separator, songs: Iterable[Track]) -> dict[str, np.ndarray]:
    """What a few labelled songs say the outputs are: one output per stem, and the best group, each binary [4, N]."""
    statistics = [_statistics(study, separator, song) for song in songs]
    single = np.eye(separator.sources)[choose_outputs(statistics)]
    return {CHOSEN: single, CHOSEN_GROUP: best_groups(statistics)}


def qualities(statistics: Statistics, chosen: dict[str, np.ndarray], every: bool = False) -> dict[str, np.ndarray]:
    """SNR in dB [4] of one song: mixture, chosen and best outputs and groups, and with ``every`` each single output."""
    outputs = len(statistics.gram)
    singles = statistics.snr(np.eye(outputs))
    groups = statistics.snr(all_assignments(outputs).numpy().astype(float))
    return {
        "mixture": mixture_snr(statistics),
        BEST: singles.max(1),
        BEST_GROUP: groups.max(1),
        **{name: np.diagonal(statistics.snr(groups)) for name, groups in chosen.items()},
        **({f"output {n}": singles[:, n] for n in range(outputs)} if every else {}),
    }


def mixture_snr(statistics: Statistics) -> np.ndarray:
    """SNR in dB [4] of the mixture itself as the estimate of every stem; nan for silent stems."""
    error = statistics.mixture - 2 * statistics.with_mixture + statistics.energy
    energy = np.maximum(statistics.energy, 1e-300)
    snr = 10 * np.log10(energy / np.maximum(error, 1e-12 * energy))
    return np.where(statistics.active, snr, np.nan)


def _seconds(study: Study) -> float:
    return study.samples(study.profile.pretrain.crop_seconds) / study.profile.audio.rate


def _statistics(study: Study, separator: Separator, song: Track) -> Statistics:
    return song_statistics(separator, song, _seconds(study))


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


# Correlation


def trainings(study: Study) -> dict[str, Study]:
    """The study by what its pre-training hears; all but the first need rendered songs, and the profile's word."""
    settings, found = study.profile.probes, {COMPOSED: study}
    if settings.redealt and study.profile.corpus.unlabeled == "rendered":
        found[REDEALT] = study.variant({"corpus.rendered.redealt": True})
    if settings.same_song:
        found[ONE_SONG] = study.variant({"pretrain.same_song": True})
    return found


def pretrainings(study: Study) -> list[tuple[str, int, Study, Run]]:
    """(what it hears, seed, study, run) of every pre-training that the probes look at, trained where missing."""
    settings, found = study.profile, []
    for kind, variant in trainings(study).items():
        seeds = {*settings.probes.seeds, *(settings.pretrain.seeds if variant is study else ())}
        found += [(kind, seed, variant) for seed in sorted(seeds)]
    ahead(Job(variant.profile, MIXIT, seed) for _, seed, variant in found)
    return [(kind, seed, variant, variant.pretrain(seed)) for kind, seed, variant in found]


def correlation(study: Study) -> pd.DataFrame:
    """Each training tested on test songs as composed and on the same stems re-dealt: ``tables/correlation.csv``.

    Columns: trained, tested, and those of the scores; metric ``gain``: SNR in dB above that of the mixture. Outputs are
    chosen on validation songs of the kind tested.
    """
    tested = {COMPOSED: (study.songs("validation"), study.songs("test"))}
    tested[REDEALT] = tuple(dealt(songs) for songs in tested[COMPOSED])
    rows = []
    for (trained, variant), seed in itertools.product(trainings(study).items(), study.profile.probes.seeds):
        separator = variant.load(variant.pretrain(seed))
        for kind, (validation, test) in tested.items():
            chosen = choices(study, separator, validation)
            for song in test:
                found = qualities(_statistics(study, separator, song), chosen)
                mixture = found.pop("mixture")
                for method, values in found.items():
                    gains = [
                        (s, "gain", float(v)) for s, v in zip(STEMS, values - mixture, strict=True) if np.isfinite(v)
                    ]
                    facts = {"experiment": "test", "method": method, "seed": seed, "labeled_songs": 0}
                    rows += [row | {"trained": trained, "tested": kind} for row in song_rows(song.name, gains, **facts)]
    frame = pd.DataFrame(rows)
    first = ["trained", "tested"]
    return study.write("correlation", frame[[*first, *(name for name in frame if name not in first)]])


def correlation_table(study: Study, gains: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over stems per training, test and method, with 95% intervals: ``tables/correlation_means.csv``."""
    rows = []
    for (trained, tested, method), part in gains.groupby(["trained", "tested", "method"], sort=False):
        found = mean_interval(part, method, "gain").set_index("stem").loc[MEAN]
        counts = {"n_songs": part["song"].nunique(), "n_seeds": part["seed"].nunique()}
        rows.append({"trained": trained, "tested": tested, "method": method, **found, **counts})
    return study.write("correlation_means", pd.DataFrame(rows))


def correlation_effects(study: Study, gains: pd.DataFrame) -> pd.DataFrame:
    """What another training changes, paired by song and seed: ``tables/correlation_effects.csv``."""
    rows = []
    for trained in [kind for kind in gains["trained"].unique() if kind != COMPOSED]:
        both = gains[gains["trained"].isin([trained, COMPOSED])]
        for (tested, method), part in both.groupby(["tested", "method"], sort=False):
            arms = part.assign(method=part["trained"])
            found = paired_interval(arms, trained, COMPOSED, "gain")
            facts = {"trained": trained, "against": COMPOSED, "tested": tested, "method": method}
            rows.append(found[found["stem"] == MEAN].drop(columns="stem").assign(**facts))
    columns = ["trained", "against", "tested", "method"]
    if not rows:
        return study.write("correlation_effects", pd.DataFrame(columns=columns))
    frame = pd.concat(rows, ignore_index=True)
    return study.write("correlation_effects", frame[[*columns, *(name for name in frame if name not in columns)]])


def within_songs(study: Study, survey: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Per test song, how its stems go together and how well MixIT separates it: ``tables/within_songs.csv``.

    Columns: song, the mean over pairs of stems of the absolute correlation of ``waveform``, ``envelope`` and
    ``spectrogram`` (from the survey of notebook 00), and ``gain``: of the chosen group, mean over stems and seeds.
    """
    pairs = survey[(survey["corpus"] == "labelled") & (survey["split"] == "test")]
    kinds = {kind: pairs[pairs["metric"] == f"{kind} correlation"] for kind in ("waveform", "envelope", "spectrogram")}
    means = {
        kind: part.assign(value=part["value"].abs()).groupby("song")["value"].mean() for kind, part in kinds.items()
    }
    chosen = gains[(gains["trained"] == COMPOSED) & (gains["tested"] == COMPOSED) & (gains["method"] == CHOSEN_GROUP)]
    gain = chosen.groupby(["song", "stem"])["value"].mean().groupby("song").mean()
    return study.write("within_songs", pd.DataFrame({**means, "gain": gain}).rename_axis("song").reset_index())


def rank_correlations(songs: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho of each kind of correlation with the gain over songs: kind, rho, low, high (95%), n."""
    rows = []
    for kind in ("waveform", "envelope", "spectrogram"):
        known = songs[[kind, "gain"]].dropna()
        found = rank_correlation(known[kind], known["gain"]) if len(known) > 2 else (np.nan,) * 3
        rows.append({"kind": kind, **dict(zip(("rho", "low", "high"), found, strict=True)), "n": len(known)})
    return pd.DataFrame(rows)


# An undefined source


def routed_energy(study: Study, separator: Separator, song: Track) -> np.ndarray:
    """Energy of each stem that each output's mask lets through: [4, N].

    Masks are linear filters once the mixture has fixed them, so that a stem's way through the separator can be followed
    alone: the mask of output n, found from the mixture, is applied to the stem's own spectrum.
    """
    device, total = separator.window.device, 0.0
    with torch.inference_mode():
        for _, stems in song_segments([song], _seconds(study), separator.rate):
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
    Columns: what, decibels, low_db, high_db, share, low, high, n_songs, n_seeds.
    """
    mixture = probes[(probes["experiment"] == "test") & (probes["method"] == "mixture")]
    base = mixture.groupby(["song", "stem"])["value"].mean().rename("mixture").reset_index()
    supervised = probes[(probes["experiment"] == "test") & (probes["method"] == SUPERVISED)].merge(base)
    supervised = supervised.assign(value=supervised["value"] - supervised["mixture"], metric="gain")
    composed = gains[gains["tested"] == COMPOSED]
    arms = composed.assign(method=composed["trained"] + ": " + composed["method"])
    numbers = {seed: i for i, seed in enumerate(sorted(arms["seed"].unique()))}
    others = {seed: i for i, seed in enumerate(sorted(supervised["seed"].unique()))}
    columns = ["method", "seed", "song", "stem", "metric", "value"]
    both = pd.concat([
        arms.assign(seed=arms["seed"].map(numbers))[columns],
        supervised.assign(seed=supervised["seed"].map(others), method=SUPERVISED)[columns],
    ])  # fmt: skip
    name = "{}: {}".format
    start = name(COMPOSED, CHOSEN)
    steps = {
        "definition": name(COMPOSED, CHOSEN_GROUP),
        "definition, with hindsight": name(COMPOSED, BEST_GROUP),
        "correlation": name(REDEALT, CHOSEN),
        "both": name(REDEALT, CHOSEN_GROUP),
        "whole distance": SUPERVISED,
    }
    rows = []
    for what, end in steps.items():
        if end not in set(both["method"]):
            continue
        found = paired_interval(both, end, start, "gain").set_index("stem").loc[MEAN]
        share, low, high = share_interval(both, (end, start), (SUPERVISED, start), "gain")
        rows.append({
            "what": what, "decibels": found["difference"], "low_db": found["low"], "high_db": found["high"],
            "share": share, "low": low, "high": high, "n_songs": found["n_songs"], "n_seeds": found["n_seeds"],
        })  # fmt: skip
    return study.write("shares", pd.DataFrame(rows))


def grouping_gain(study: Study, probes: pd.DataFrame) -> pd.DataFrame:
    """Best group minus best single output and chosen group minus chosen output, per stem, with 95% intervals."""
    test = probes[probes["experiment"] == "test"]
    pairs = ((BEST_GROUP, BEST), (CHOSEN_GROUP, CHOSEN))
    return pd.concat([
        paired_interval(test, *pair, SNR, own).assign(method=pair[0], against=pair[1]) for pair in pairs
    ], ignore_index=True)  # fmt: skip
