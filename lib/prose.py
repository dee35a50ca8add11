"""What notebooks and the report say in words: where a result comes from, and what its interval allows to say."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from lib import provenance
from lib.intervals import LEVEL, shown
from lib.runs import Run
from lib.scoring import MEAN
from lib.stages import SCRATCH, Study

LONG_ARM, EQUAL_ARM = "pre-trained, long", "scratch, equal compute"
"""The names of the controls *long* and *equal compute* in every table and figure."""
FEW_SONGS = 6
"""With fewer test songs, a bootstrap over songs says nothing that could be trusted."""


def header(study: Study, overrides: Sequence[str] = ()) -> Markdown:
    """Profile and commit; without a finished run also the command that makes one."""
    code, name = provenance.code(), study.profile.name
    commit = f"`{code['commit'][:12]}`{' with changes' if code['dirty'] else ''}" if code["commit"] else "none (no git)"
    changes = "".join(f" `{item}`" for item in overrides)
    text = f"**Profile** `{name}`{changes} · **commit** {commit} · **code of lib** `{code['lib']}`"
    finished = [Run(path.parent) for path in (study.results / "runs").glob("*-*/done.json")]
    records = sum(not run.weights.exists() for run in finished)
    if records:
        text += f"\n\n{records} of {counted(len(finished), 'finished run')} are records: curves and scores without "
        text += "weights. What needs weights trains them again; with another `results=FOLDER` everything is made anew."
    if not finished:
        command = shlex.join(["./run_all.sh", name, *overrides])
        text += f"\n\n**No finished run of this profile was here at the start.** `{command}` makes all of them"
        text += f"{_took(study.results)}; the cells below make those that they need, and go on from where they stopped."
    return Markdown(text)


def _took(results: Path) -> str:
    """How long the study took whose tables lie here; empty if they are not complete."""
    stages = provenance.read(results).get("stages", {}).values()
    if not stages or not all(stage.get("end") for stage in stages):
        return ""
    times = [[datetime.fromisoformat(stage[key]) for key in ("start", "end")] for stage in stages]
    minutes = sum((end - start).total_seconds() for start, end in times) / 60
    return f" (about {minutes:.0f} minutes where the tables that lie here were made)"


def run_table(runs: Iterable[tuple[str, int | None, int | None, Run]]) -> pd.DataFrame:
    """The runs behind a notebook with their hashes: run (index), method, seed, labelled songs, steps, seconds."""
    rows = [
        {"run": run.name, "method": method, "seed": seed, "labelled songs": "" if songs is None else songs,
         "steps": run.facts()["steps"], "seconds": round(run.facts()["seconds"])}
        for method, seed, songs, run in runs
    ]  # fmt: skip
    return pd.DataFrame(rows).drop_duplicates().set_index("run")


def counted(number: float, name: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{int(number)} {name}" if number == 1 else f"{int(number)} {name}s"


def verdict(low: float, high: float, p: float, songs: int, seeds: int, what: str = "pre-training") -> str:
    """What the 95% interval and p of a difference, ``what`` minus without it, allow to say."""
    if songs < FEW_SONGS:
        return "too few songs to tell"
    if not shown(low, high, p):
        by_p = "undecided by p, which allows for few seeds and several tests"
        return "undecided, the interval holds zero" if low <= 0 <= high else by_p
    return f"{what} {'helps' if low > 0 else 'hurts'}{' in this one seed' if seeds == 1 else ''}"


def _counts(row: pd.Series) -> str:
    return f"{counted(row['n_songs'], 'test song')}, {counted(row['n_seeds'], 'seed')}"


def _interval(row: pd.Series) -> str:
    return f"95% interval {row['low']:+.2f} to {row['high']:+.2f} dB"


def claim_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``claim.csv``."""
    pretrained = row["method"].startswith(("pre-trained (", LONG_ARM))
    what = "pre-training" if pretrained else "it"
    told = verdict(row["low"], row["high"], row["p_holm"], row["n_songs"], row["n_seeds"], what)
    corrected = "" if row["stem"] == MEAN else " after Holm"
    return (
        f"with {counted(row['labeled_songs'], 'labelled song')}, {row['method']} differs from {row['against']} by "
        f"{row['difference']:+.2f} dB {row['metric']} {_where(row)} ({_interval(row)}, {_counts(row)}, "
        f"effect size {row['effect']:+.1f}, p {row['p_holm']:.2g}{corrected}): "
        + (_better_use(told) if pretrained and row["against"] == EQUAL_ARM and row["method"] != LONG_ARM else told)
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

    The first transfer against scratch, either compute, and the same trained as long as scratch with equal compute.
    """
    chosen = claim[(claim["stem"] == MEAN) & (claim["metric"] == "uSDR")]
    pretrained = chosen["method"].str.startswith("pre-trained (")
    first = (chosen["method"] == chosen["method"][pretrained].iloc[0]) & chosen["against"].str.startswith("scratch")
    long = (chosen["method"] == LONG_ARM) & (chosen["against"] != SCRATCH)
    return pd.concat([chosen[first], chosen[long]])


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
    "supervised": "the supervised model (most labelled songs, MixIT's compute)",
    "ideal ratio mask": "the ideal ratio mask (oracle)",
}


def correlation_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``correlation_effects.csv``."""
    told = verdict(row["low"], row["high"], row["p"], row["n_songs"], row["n_seeds"], "it")
    return (
        f"trained on {row['trained']} songs instead of {row['against']}, tested {row['tested']}, {row['method']}: "
        if row["trained"] != "one song"
        else f"mixtures of one song instead of two, tested {row['tested']}, {row['method']}: "
    ) + (
        f"{row['difference']:+.2f} dB ({_interval(row)}, {counted(row['n_songs'], 'test song')}, "
        f"{counted(row['n_seeds'], 'pre-training')}, p {row['p']:.2g}): {told}"
    )


def share_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``shares.csv``."""
    ends = f"95% interval {row['low_db']:+.2f} to {row['high_db']:+.2f} dB, p {row['p']:.2g}"
    if row["what"] == "whole distance":
        return f"the supervised model lies {row['decibels']:+.2f} dB above one chosen output per stem ({ends})"
    return (
        f"{row['what']} closes {row['decibels']:+.2f} dB of it ({ends}), {100 * row['share']:.0f}% of the distance "
        f"({100 * row['low']:.0f} to {100 * row['high']:.0f}%)"
    )


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
    shown, note = (effects, "") if base.empty else (base, ", the base")
    gains = [f"{row['difference']:+.2f} dB ({_interval(row)}) at {row['level']}" for _, row in shown.iterrows()]
    text = f"**{axis}**: pre-trained minus scratch is {', '.join(gains)}{note}."
    if others.empty:
        return text
    steps = [
        f"{row.level} {row.from_base:+.2f} dB ({row.from_base_low:+.2f} to {row.from_base_high:+.2f})"
        for row in others.itertuples()
    ]
    apart = others[others["from_base_p"] < LEVEL]["level"]
    verdict = (
        f"shown to differ (Holm's correction): {', '.join(apart)}" if len(apart) else "the axis is not shown to matter"
    )
    alone = " (of one seed: between songs alone)" if others["n_seeds"].max() == 1 else ""
    return f"{text} Against that gain, song by song and seed by seed: {', '.join(steps)}; {verdict}{alone}."


def protocol(study: Study) -> pd.DataFrame:
    """The numbers of the protocol: songs, budgets, steps, seeds and arms of this profile."""
    profile = study.profile
    pre, fine, splits = profile.pretrain, profile.finetune, ("train", "validation", "test")
    counts = [sum(song.split == split for song in study.labeled) for split in splits]
    rows = {
        "labelled songs": ", ".join(f"{split} {count}" for split, count in zip(splits, counts, strict=True)),
        "unlabelled songs": str(sum(song.split == "train" for song in study.unlabeled)),
        "label budgets": ", ".join(map(str, fine.labeled_songs)),
        "arms": ", ".join(["scratch", *fine.controls, *fine.transfers]),
        "pre-training": f"{pre.steps} steps of {pre.batch} x {pre.crop_seconds:g} s, seeds {list(pre.seeds)}",
        "supervised": f"{fine.steps} steps of {fine.batch} x {fine.crop_seconds:g} s, seeds {list(fine.seeds)}",
        "corpus seed": str(profile.corpus.rendered.seed),
    }
    return pd.DataFrame({"this profile": rows})


def markdown_table(frame: pd.DataFrame) -> str:
    """A table in Markdown, its cells as text."""
    head, *rows = [[str(cell) for cell in row] for row in [frame.columns, *frame.itertuples(index=False)]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def sentence(text: str) -> str:
    """``text`` with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def bullets(texts: Iterable[str]) -> Markdown:
    """Sentences as a list in a notebook."""
    return Markdown("\n".join(f"- {sentence(text)}" for text in texts))
