"""What notebooks and the report say in words: where a result comes from, and what its interval allows to say."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from lib import provenance
from lib.runs import Run
from lib.scoring import MEAN
from lib.stages import Study

FEW_SONGS = 6
"""With fewer test songs, a bootstrap over songs says nothing that could be trusted."""


def header(study: Study, overrides: Sequence[str] = ()) -> Markdown:
    """Profile and commit; without a finished run also the command that makes one."""
    code, name = provenance.code(), study.profile.name
    commit = f"`{code['commit'][:12]}`{' with changes' if code['dirty'] else ''}" if code["commit"] else "none (no git)"
    changes = "".join(f" `{item}`" for item in overrides)
    text = f"**Profile** `{name}`{changes} · **commit** {commit} · **code of lib** `{code['lib']}`"
    if not any((study.results / "runs").glob("*-*/done.json")):
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


def verdict(low: float, high: float, songs: int, seeds: int) -> str:
    """What the 95% interval of a difference, pre-trained minus scratch, allows to say."""
    if songs < FEW_SONGS:
        return "too few songs to tell"
    if low <= 0 <= high:
        return "undecided, the interval holds zero"
    return f"pre-training {'helps' if low > 0 else 'hurts'}{' in this one seed' if seeds == 1 else ''}"


def claim_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``claim.csv``."""
    where = "on average over the stems" if row["stem"] == MEAN else f"on {row['stem']}"
    interval = f"95% interval {row['low']:+.2f} to {row['high']:+.2f} dB"
    return (
        f"with {row['labeled_songs']} labelled songs, {row['method']} differs from {row['against']} by "
        f"{row['difference']:+.2f} dB {row['metric']} {where} ({interval}, {row['n_songs']} test songs, "
        f"{row['n_seeds']} seeds): {verdict(row['low'], row['high'], row['n_songs'], row['n_seeds'])}"
    )


def answer(claim: pd.DataFrame) -> list[str]:
    """The study's answer, a sentence per budget and transfer: mean uSDR of pre-trained against scratch."""
    chosen = claim[(claim["stem"] == MEAN) & (claim["metric"] == "uSDR")]
    return [claim_sentence(row) for _, row in chosen.iterrows()]


def sentence(text: str) -> str:
    """``text`` with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def bullets(texts: Iterable[str]) -> Markdown:
    """Sentences as a list in a notebook."""
    return Markdown("\n".join(f"- {sentence(text)}" for text in texts))
