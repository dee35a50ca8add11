"""What notebooks and the report say in words: where a result comes from, and what its interval allows to say."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from lib import provenance
from lib.runs import Run
from lib.scoring import MEAN
from lib.stages import Study


def header(study: Study, overrides: Sequence[str] = ()) -> Markdown:
    """Profile, commit and corpora; without a finished run also the command that makes one."""
    code, name = provenance.code(), study.profile.name
    commit = f"`{code['commit'][:12]}`{' with changes' if code['dirty'] else ''}" if code["commit"] else "none (no git)"
    changes = "".join(f" `{item}`" for item in overrides)
    text = f"**Profile** `{name}`{changes} · **commit** {commit} · **code of lib** `{code['lib']}`"
    if not any((study.results / "runs").glob("*-*/done.json")):
        text += (
            "\n\n**There is no finished run of this profile here.** "
            f"`{shlex.join(['./run_all.sh', name, *overrides])}` makes all of them{_took(study.results)}. The next cells would "
            "make what this notebook needs, now; if they are stopped, the next start takes up where they were."
        )
    return Markdown(text)


def _took(results: Path) -> str:
    """How long the study took whose tables lie here; empty if nothing is known."""
    stages = [stage for stage in provenance.read(results).get("stages", {}).values() if stage.get("end")]
    times = [[datetime.fromisoformat(stage[key]) for key in ("start", "end")] for stage in stages]
    minutes = sum((end - start).total_seconds() for start, end in times) / 60
    return f" in about {max(1, round(minutes))} minutes (measured where these tables were made)" if stages else ""


def run_table(runs: Sequence[tuple[str, int | None, int | None, Run]]) -> pd.DataFrame:
    """The runs behind a notebook with their hashes: method, seed, labelled songs, run, steps, seconds."""
    rows = [
        {"method": method, "seed": seed, "labelled songs": songs, "run": run.name,
         "steps": run.facts()["steps"], "seconds": round(run.facts()["seconds"])}
        for method, seed, songs, run in runs
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"seed": "Int64", "labelled songs": "Int64"})


def verdict(low: float, high: float) -> str:
    """What a 95% interval of a difference (pre-trained minus scratch) says."""
    if low > 0:
        return "pre-training helps"
    return "pre-training hurts" if high < 0 else "undecided, the interval holds zero"


def claim_sentence(row: pd.Series) -> str:
    """One sentence on one row of ``claim.csv``."""
    where = "on average over the stems" if row["stem"] == MEAN else f"on {row['stem']}"
    return (
        f"with {row['labeled_songs']} labelled songs, {row['method']} differs from {row['against']} by "
        f"{row['difference']:+.2f} dB {row['metric']} {where} (95% interval {row['low']:+.2f} to {row['high']:+.2f} dB, "
        f"{row['n_songs']} test songs, {row['n_seeds']} seeds): {verdict(row['low'], row['high'])}"
    )


def answer(claim: pd.DataFrame) -> list[str]:
    """The study's answer, a sentence per budget and transfer: mean uSDR of pre-trained against scratch."""
    chosen = claim[(claim["stem"] == MEAN) & (claim["metric"] == "uSDR")]
    return [claim_sentence(row) for _, row in chosen.iterrows()]


def sentence(text: str) -> str:
    """``text`` with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def bullets(texts: Sequence[str]) -> Markdown:
    """Sentences as a list in a notebook."""
    return Markdown("\n".join(f"- {sentence(text)}" for text in texts))
