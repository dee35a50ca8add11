"""Captions of the report and the notebooks: what a figure shows, from the tables behind it, and how to read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.experiments.intervals import direction, mean_interval
from lib.experiments.probes import above_mixture
from lib.experiments.records import TOOK
from lib.report.sentences import (
    answering,
    counted,
    decibels,
    differs,
    listed,
    outcome,
    p_value,
    primary,
    sentence,
    without_kind,
)
from lib.scoring import MEAN
from lib.store.tables import read_table

Read = Callable[[str], pd.DataFrame]
"""Reads a table by its name."""


class Caption(NamedTuple):
    """``finding``: what is seen, with numbers, or ""; ``drawn``: how to read it."""

    finding: str
    drawn: str


def caption(results: Path, figure: str) -> Caption:
    """Caption of ``figures/FIGURE.svg`` from the tables in ``results``; a figure that is unknown goes by its name."""

    def read(name: str) -> pd.DataFrame:
        return read_table(results / "tables" / f"{name}.csv")

    text = CAPTIONS.get(figure, sentence(figure.replace("_", " ")))
    finding, drawn = ("", text) if isinstance(text, str) else text(read)
    compute = _compute(read("claim")) if figure in COMPARING else ""
    return Caption(without_kind(finding), without_kind(drawn + compute))


def took(claim: pd.DataFrame, method: str, form: str = "{} steps, {} core seconds, {} PFLOP") -> str:
    """What a model of ``method`` took in the mean over budgets, validation counted in the seconds alone; or ""."""
    sides = {"method": TOOK, "against": [f"against_{name}" for name in TOOK]}
    parts = [claim.loc[claim[side] == method, names] for side, names in sides.items() if set(names) <= set(claim)]
    if not any(map(len, parts)):
        return ""
    steps, seconds, petaflop = np.concatenate(parts).mean(0)
    return form.format(f"{steps:,.0f}", f"{seconds:,.0f}", f"{petaflop:.2g}")


def _compute(claim: pd.DataFrame) -> str:
    arms = {arm: took(claim, arm, "{} / {} / {}") for arm in dict.fromkeys([*claim["against"], *claim["method"]])}
    texts = "; ".join(f"{arm} {text}" for arm, text in arms.items() if text)
    return f" Supervised steps / core seconds / PFLOP, the latter two with pre-training: {texts}." if texts else ""


def _n(rows: pd.DataFrame, songs: str = "test song", seeds: str = "seed") -> str:
    """Songs and seeds behind rows of differences, and the pre-trainings that the seeds start from."""
    counts = [counted(rows["n_songs"].max(), songs), counted(rows["n_seeds"].max(), seeds)]
    origins = [counted(rows["n_origins"].max(), "pre-training")] if seeds == "seed" and "n_origins" in rows else []
    return ", ".join(["bars: 95% interval", *counts, *origins])


def _shown(row: pd.Series, effect: str = "difference", low: str = "low", high: str = "high") -> str:
    """ "+0.36 dB (+0.09 to +0.63, p = 0.054: undecided)"."""
    told = "" if direction(row[effect], row["p_holm"], row["n_songs"], row["n_origins"]) else ": undecided"
    return f"{row[effect]:+.2f} dB ({row[low]:+.2f} to {row[high]:+.2f}, {p_value(row['p_holm'])}{told})"


ALIKE = {
    "scratch": "with the same number of supervised steps, pre-training",
    "scratch, equal compute": "against scratch given the compute of pre-training, pre-training",
    "scratch, until it stalls": "with both arms trained until validation stalls, pre-training",
}


def answer(claim: pd.DataFrame, values: bool = True) -> str:
    """What `answering` rows say, in words, and in decibels if ``values``."""
    pairs = answering(claim).groupby("against", sort=False)
    return sentence("; ".join(f"{ALIKE[against]} {outcome(part, values)}" for against, part in pairs))


def _gain(read: Read) -> Caption:
    claim = read("claim")
    rows = answering(claim)
    return Caption(
        answer(claim),
        f"Pre-trained minus scratch, mean over stems, paired by song and seed; {_n(rows)}.",
    )


def _claim(read: Read) -> Caption:
    rows = read("claim")
    rows = rows[(rows["stem"] == MEAN) & (rows["metric"] == primary(rows)) & (rows["against"] == "scratch")]
    found = [f"“{method}” {outcome(part, values=False)}" for method, part in rows.groupby("method", sort=False)]
    found = [text.replace("helps", "is better").replace("hurts", "is worse") for text in found]
    return Caption(
        sentence(f"against scratch: {'; '.join(found)}"),
        f"Every arm minus scratch, mean over stems, paired by song and seed; {_n(rows)}.",
    )


def _budgets(read: Read) -> Caption:
    worth, drawn = read("songs_worth"), "Thin bars: 95% interval of means, not of differences."
    rows = worth[worth["method"].str.startswith("pre-trained") & (worth["method"] != "pre-trained, shuffled")]
    if worth["labeled_songs"].nunique() == 1:  # one budget measures no trade
        return Caption("", drawn)
    found = [
        f"{row.method} with {counted(row.labeled_songs, 'labelled song')} scores as {row.against} with "
        f"{row.worth:.1f}{' or more' if row.at_end else ''} (95% interval {row.low:.1f} to {row.high:.1f})"
        for row in rows[rows["labeled_songs"] == rows["labeled_songs"].min()].itertuples()
    ]
    return Caption(sentence("; ".join(found)), drawn)


def _scores(read: Read, experiment: str) -> Caption:
    scores = read("scores")
    metric = primary(read("claim"))
    scores = scores[(scores["experiment"] == experiment) & (scores["metric"] == metric)]
    budget = scores["labeled_songs"].max()
    scores = scores[scores["labeled_songs"].fillna(budget) == budget]
    scores = scores.assign(seed=scores["seed"].fillna(0))  # of the oracle, which is not trained
    texts = []
    for method in dict.fromkeys([*scores["method"][scores["labeled_songs"] == budget], "ideal ratio mask"]):
        row = mean_interval(scores, method, metric).set_index("stem").loc[MEAN]
        varies = f" ({row['low']:.1f} to {row['high']:.1f})" if np.isfinite(row["low"]) else ""
        texts.append(f"{method} {row['mean']:.1f}{varies}")
    alone = " Of one song, intervals are those between seeds alone." if scores["song"].nunique() == 1 else ""
    return Caption(
        sentence(f"mean {metric} in dB with {counted(budget, 'labelled song')}: {', '.join(texts)}"),
        f"Bars: 95% interval; black: ideal ratio mask, an oracle; dashed: the mixture as estimate.{alone}",
    )


def _pretrain_curves(read: Read) -> Caption:
    table = read("pretrain_curves").query("metric == 'validation_loss'")
    ends = table.groupby("seed")["value"].agg(["first", "min"]).mean()
    return Caption(
        f"The validation loss of MixIT falls from {ends['first']:.2f} to {ends['min']:.2f} dB.",
        "Thin: each seed, thick: their mean.",
    )


def _regime(read: Read) -> Caption:
    table = read("regime")
    gains = table.groupby("pretrain_steps")["difference"].agg(["min", "max"]).iloc[[0, -1]].drop_duplicates()
    texts = [f"between {row.min:+.2f} and {row.max:+.2f} dB after {row.Index} steps" for row in gains.itertuples()]
    one = " (one seed: indicative only)" if table["n_seeds"].max() == 1 else ""
    return Caption(
        sentence(f"over the label budgets, the gain from pre-training lies {', '.join(texts)}{one}"),
        f"Pre-trained minus scratch in {table['metric'].iloc[0]}; in brackets: 95% interval.",
    )


def _correlation(read: Read) -> Caption:
    table = read("corpora")
    means = table[table["corpus"] == "labelled"].groupby("metric")["value"].mean()
    kinds = [f"{kind} correlation" for kind in ("waveform", "envelope", "spectrogram")]
    own = [f"{means[kind]:+z.2f} in {kind.split()[0]}" for kind in kinds]
    others = [f"{means[f'{kind}, other song']:+z.2f}" for kind in kinds]
    return Caption(
        sentence(f"two stems of one song correlate by {listed(own)}; those of two songs by {listed(others)}"),
        "Grey: stems of two different songs; blue: of one song; star: a recorded song beside the corpus.",
    )


def _probes(read: Read) -> Caption:
    table = read("probes")
    snr = table[(table["metric"] == "SNR") & (table["experiment"] == "test")]
    gains, texts = above_mixture(snr), []
    for method in ("chosen output", "chosen group", "supervised"):
        if len(part := gains[gains["method"] == method]):
            row = mean_interval(part.assign(seed=part["seed"].fillna(0)), method, "SNR").set_index("stem").loc[MEAN]
            texts.append(f"{method} {row['mean']:.1f} dB ({row['low']:.1f} to {row['high']:.1f})")
    silence = -snr[snr["method"] == "mixture"].groupby("stem")["value"].mean().mean()
    return Caption(
        sentence(f"above the mixture in SNR: {', '.join(texts)}, silence {silence:.1f} dB"),
        "Outputs are chosen on validation songs; hollow: the best for each song, a bound. Silence beats the mixture: "
        "only the distance to the dashed line is separation.",
    )


def _correlation_table(read: Read) -> Caption:
    rows = read("correlation_effects")
    rows = rows[(rows["tested"] == "as composed") & (rows["method"] == "chosen output")]
    what = {"re-dealt": "training without correlation", "one song": "mixing passages of one song"}
    texts = [f"{what[row['trained']]} changes the chosen output by {_shown(row)}" for _, row in rows.iterrows()]
    return Caption(sentence("; ".join(texts)) if texts else "", "Read down a column: only what MixIT mixed differs.")


def _shares(read: Read) -> Caption:
    rows = read("shares").set_index("what")
    names = {"definition": "labels that only group outputs close", "correlation": "training without correlation closes"}
    texts = [
        f"{names[what]} {_shown(rows.loc[what], 'decibels', 'low_db', 'high_db')}"
        for what in names
        if what in rows.index
    ]
    whole = f"of the {rows.loc['whole distance', 'decibels']:.1f} dB between MixIT's outputs and a supervised model"
    return Caption(
        sentence(f"{whole}, {' and '.join(texts)}"),
        "Definition: a few labelled songs group the outputs, and train nothing; with hindsight: the best group of each "
        "song, a bound. Correlation: MixIT is trained on the same stems re-dealt among songs. p after Holm; "
        f"{_n(rows, seeds='pre-training')}.",
    )


def differing(axis: str, effects: pd.DataFrame) -> str:
    """Which levels of an axis are shown to differ from its base, or ""."""
    apart = effects[differs(effects)]
    found = zip(apart["level"], apart["from_base"], apart["from_base_low"], apart["from_base_high"], strict=True)
    texts = [f"{level} ({decibels(*values)})" for level, *values in found]
    return f"{axis}: {', '.join(texts)}" if texts else ""


def _ablations(read: Read) -> Caption:
    effects = read("ablation_effects")
    texts = [differing(axis, part) for axis, part in effects.groupby("axis", sort=False)]
    alone = " Of one seed, intervals are those between songs alone." if effects["n_seeds"].max() == 1 else ""
    return Caption(
        sentence(f"levels whose gain is shown to differ from the base: {'; '.join(filter(None, texts)) or 'none'}"),
        f"Pre-trained minus scratch with {counted(effects['labeled_songs'].max(), 'labelled song')}; grey: the base of "
        f"an axis; filled: the gain differs from the base's, after Holm; {_n(effects)}.{alone}",
    )


COMPARING = ("gain", "claim", "claim_stems", "budgets", "scores", "songs", "finetune_curves", "real_song")
"""Figures that compare arms, whose captions say what these took."""
CAPTIONS: dict[str, str | Callable[[Read], Caption]] = {
    "correlation": _correlation,
    "levels": "RMS of each stem against its mixture; stroke: the median; star: a recorded song beside the corpus.",
    "variety": "Songs composed by rule: how many have each tempo, key and groove.",
    "shares": _shares,
    "correlation_table": _correlation_table,
    "within_songs": "Dot: one test song. If correlation limited MixIT, dots would fall from left to right.",
    "ill_posed": "Were a source defined, a stem would have one output (left), the same in all songs (middle), and a "
    "group would match it no better (right).",
    "probes": _probes,
    "regime": _regime,
    "pretrain_curves": _pretrain_curves,
    "before_after": "Outputs are alike before MixIT, and differ after it where they hold a stem.",
    "search": "All arms search the same grid on validation songs; ring: the best of each.",
    "gain": _gain,
    "claim": _claim,
    "budgets": _budgets,
    "claim_stems": "The gain stem by stem; filled: p < 0.05 after Holm's correction over stems.",
    "scores": partial(_scores, experiment="test"),
    "songs": "Dot: one test song, mean over seeds; right of the line it scores higher with pre-training.",
    "finetune_curves": "Thin: each seed, thick: their mean. Where lines meet, the head start is used up.",
    "real_song": partial(_scores, experiment="real song"),
    "ablations": _ablations,
}
"""By figure, the most telling of a notebook first."""
