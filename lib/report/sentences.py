"""What notebooks and the report say in words: where a result comes from, and what its interval allows to say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.arms import EQUAL_COMPUTE, PRETRAINED_STALLED, STALLED, method_name
from lib.experiments.intervals import FEW_SONGS, LEVEL, direction
from lib.scoring import MEAN
from lib.study import Study

EQUAL_ARM, STALLED_ARM, PRETRAINED_STALLED_ARM = map(method_name, (EQUAL_COMPUTE, STALLED, PRETRAINED_STALLED))


def counted(number: float, name: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{int(number)} {name}" if number == 1 else f"{int(number)} {name}s"


def verdict(row: pd.Series, effect: str, p: str = "p_holm", what: str = "pre-training") -> str:
    """What a row of n_songs and n_origins allows to say of ``what``, by its columns ``effect`` and ``p``."""
    if row["n_songs"] < FEW_SONGS:
        return "too few songs to tell"
    if row["n_origins"] == 1:
        return "undecided, of one pre-training or seed alone"
    shown = direction(row[effect], row[p], row["n_songs"], row["n_origins"])
    return {1: f"{what} helps", -1: f"{what} hurts", 0: "undecided"}[shown]


def _counts(row: pd.Series) -> str:
    return f"{counted(row['n_songs'], 'test song')}, {counted(row['n_seeds'], 'seed')}"


def _interval(row: pd.Series) -> str:
    return f"95% interval {row['low']:+.2f} to {row['high']:+.2f} dB"


def claim_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``claim.csv``."""
    pretrained = row["method"].startswith(("pre-trained (", PRETRAINED_STALLED_ARM))
    what = "pre-training" if pretrained else "it"
    told = verdict(row, "difference", what=what)
    return (
        f"with {counted(row['labeled_songs'], 'labelled song')}, {row['method']} differs from {row['against']} by "
        f"{row['difference']:+.2f} dB {row['metric']} {_where(row)} ({_interval(row)}, {_counts(row)}, "
        f"effect size {row['effect']:+.1f}, p {row['p_holm']:.2g} after Holm): "
        + (_better_use(told) if pretrained and row["against"] == EQUAL_ARM else told)
    )


def _better_use(told: str) -> str:
    """The verdict on pre-training where its rival had its compute for more supervised steps."""
    told = told.replace("pre-training helps", "the compute is better spent on pre-training")
    return told.replace("pre-training hurts", "the compute is better spent on supervised steps")


def _where(row: pd.Series) -> str:
    return "on average over the stems" if row["stem"] == MEAN else f"on {row['stem']}"


def answer(claim: pd.DataFrame) -> list[str]:
    """The study's answer in sentences, one on each row of `answering`."""
    return [claim_sentence(row) for _, row in answering(claim).iterrows()]


def answering(claim: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``claim.csv`` that answer the study's question: mean uSDR at each budget.

    The first transfer against scratch, either compute, and both trained until they stall.
    """
    chosen = claim[(claim["stem"] == MEAN) & (claim["metric"] == "uSDR")]
    pretrained = chosen["method"].str.startswith("pre-trained (")
    first = (chosen["method"] == chosen["method"][pretrained].iloc[0]) & chosen["against"].str.startswith("scratch")
    both = (chosen["method"] == PRETRAINED_STALLED_ARM) & (chosen["against"] == STALLED_ARM)
    return pd.concat([chosen[first], chosen[both]])


def worth_sentence(row: pd.Series, table: pd.DataFrame) -> str:
    """One sentence on one row of ``songs_worth.csv``."""
    budgets = table["labeled_songs"]
    end = " (an end of what was measured: that many or beyond)" if row["at_end"] else ""
    return (
        f"{row['method']} with {counted(row['labeled_songs'], 'labelled song')} is worth {row['worth']:.1f} songs of "
        f"{row['against']}{end}; 95% interval {row['low']:.1f} to {row['high']:.1f}, measured from {budgets.min()} "
        f"to {budgets.max()}"
    )


PROBED = {
    "harmonic-percussive": "harmonic-percussive separation, which learns nothing,",
    "chosen output": "MixIT, one chosen output per stem,",
    "chosen group": "MixIT, a chosen group per stem,",
    "best output": "MixIT, the best output for each song (bound),",
    "best group": "MixIT, the best group for each song (bound),",
    "supervised": "the supervised model (most labelled songs)",
    "ideal ratio mask": "the ideal ratio mask (oracle)",
}


def correlation_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``correlation_effects.csv``."""
    told = verdict(row, "difference", what="it")
    return (
        f"trained on {row['trained']} songs instead of {row['against']}, tested {row['tested']}, {row['method']}: "
        if row["trained"] != "one song"
        else f"mixtures of one song instead of two, tested {row['tested']}, {row['method']}: "
    ) + (
        f"{row['difference']:+.2f} dB ({_interval(row)}, {counted(row['n_songs'], 'test song')}, "
        f"{counted(row['n_seeds'], 'pre-training')}, p {row['p_holm']:.2g} after Holm): {told}"
    )


def share_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``shares.csv``."""
    ends = f"95% interval {row['low_db']:+.2f} to {row['high_db']:+.2f} dB, p {row['p_holm']:.2g} after Holm"
    if row["what"] == "whole distance":
        return f"the supervised model lies {row['decibels']:+.2f} dB above one chosen output per stem ({ends})"
    known = np.isfinite([row["low"], row["high"]]).all()
    share = f"{100 * row['low']:.0f} to {100 * row['high']:.0f}%" if known else "any share: the distance is not shown"
    return f"{row['what']} closes {row['decibels']:+.2f} dB of it ({ends}), {100 * row['share']:.0f}% of it ({share})"


def schedule_sentences(study: Study, means: pd.DataFrame) -> list[str]:
    """What the search of schedules says, and what the profile uses."""
    stage = study.profile.finetune
    used = stage.learning_rate or study.size.learning_rate
    rates = {"scratch": used, "pre-trained": stage.transfer_learning_rate or used}
    words = [
        f"this profile uses {stage.steps} steps, "
        + ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items())
        + f" (encoder and blocks: x {stage.body_rate:g})"
    ]
    best = means[means["best"]] if len(means) else means
    return words + [
        f"{row.method} scores highest with a learning rate of {row.learning_rate:g} (encoder and blocks: "
        f"x {row.body_rate:g}) and {row.steps} steps: {row.mean:.2f} dB on {counted(row.n_songs, 'validation song')}, "
        f"{counted(row.n_seeds, 'seed')}"
        for row in best.itertuples()
    ]


def axis_sentence(axis: str, effects: pd.DataFrame) -> str:
    """What an axis of the ablations shows: the gain at its base, how the others differ from that, and which surely."""
    base, others = effects[effects["base"]], effects[effects["from_base"].notna()]
    levels, note = (effects, "") if base.empty else (base, ", the base")
    gains = [f"{row['difference']:+.2f} dB ({_interval(row)}) at {row['level']}" for _, row in levels.iterrows()]
    text = f"**{axis}**: pre-trained minus scratch is {', '.join(gains)}{note}."
    if others.empty:
        return text
    steps = [
        f"{row.level} {row.from_base:+.2f} dB ({row.from_base_low:+.2f} to {row.from_base_high:+.2f})"
        for row in others.itertuples()
    ]
    apart = others[others["from_base_p_holm"] < LEVEL]["level"]
    verdict = (
        f"shown to differ (Holm's correction): {', '.join(apart)}" if len(apart) else "the axis is not shown to matter"
    )
    alone = " (of one seed: between songs alone)" if others["n_seeds"].max() == 1 else ""
    return f"{text} Against that gain, song by song and seed by seed: {', '.join(steps)}; {verdict}{alone}."


def markdown_table(frame: pd.DataFrame) -> str:
    """A table in Markdown, its cells as text."""
    head, *rows = [[str(cell) for cell in row] for row in [frame.columns, *frame.itertuples(index=False)]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def sentence(text: str) -> str:
    """``text`` with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
