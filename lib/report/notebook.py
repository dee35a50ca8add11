"""Header, tables and lists of a notebook."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Markdown

from lib import ROOT
from lib.report.sentences import counted, sentence
from lib.store import provenance
from lib.store.runs import Run
from lib.study import Study

COMMITTED = ROOT / "results" / "study" / "figures"


def header(study: Study, overrides: Sequence[str] = ()) -> Markdown:
    """Profile and commit; without a finished run also the command for the study."""
    code, name = provenance.code(), study.profile.name
    commit = f"`{code['commit'][:12]}`{' with changes' if code['dirty'] else ''}" if code["commit"] else "none (no git)"
    changes = "".join(f" `{item}`" for item in overrides)
    text = f"**Profile** `{name}`{changes} · **commit** {commit} · **code of lib** `{code['lib']}`"
    finished = [Run(path.parent) for path in (study.results / "runs").glob("*-*/done.json")]
    records = sum(not run.weights.exists() for run in finished)
    if records:
        text += f"\n\n{records} of {counted(len(finished), 'finished run')} are records: curves and scores without "
        text += "weights. Cells that need weights retrain them; another `results=FOLDER` retrains everything."
    if not finished:
        command = shlex.join(["./run_all.sh", name, *overrides])
        text += f"\n\n**No finished run of this profile existed at the start.** `{command}` trains all of them"
        text += f"{_duration(study.results)}; the cells below train those that they need, and resume interrupted ones."
    return Markdown(text)


def _duration(results: Path) -> str:
    """Duration of the complete study in ``results``, or ""."""
    stages = provenance.read(results).get("stages", {}).values()
    if not stages or not all(stage.get("end") for stage in stages):
        return ""
    times = [[datetime.fromisoformat(stage[key]) for key in ("start", "end")] for stage in stages]
    minutes = sum((end - start).total_seconds() for start, end in times) / 60
    return f" (about {minutes:.0f} minutes for the tables in this folder)"


def run_table(runs: Iterable[tuple[str, int | None, int | None, Run]]) -> pd.DataFrame:
    """The runs behind a notebook: run (index, with its hash), method, seed, labelled songs, steps, seconds."""
    rows = [
        {"run": run.name, "method": method, "seed": seed, "labelled songs": "" if songs is None else songs,
         **({} if fold is None else {"fold": fold}), "steps": run.facts()["steps"],
         "seconds": round(run.facts()["seconds"])}
        for method, seed, songs, fold, run in runs
    ]  # fmt: skip
    return pd.DataFrame(rows).drop_duplicates().set_index("run")


def protocol(study: Study) -> pd.DataFrame:
    """Songs, label budgets, arms, steps and seeds of the profile."""
    profile = study.profile
    pre, fine, splits = profile.pretrain, profile.finetune, ("train", "validation", "test")
    counts = [sum(song.split == split for song in study.folds[0].labeled) for split in splits]
    songs = ", ".join(f"{split} {count}" for split, count in zip(splits, counts, strict=True))
    rows = {
        "labelled songs": f"{songs} in the first of {len(study.folds)} folds" if profile.corpus.folds else songs,
        "unlabelled songs": str(sum(song.split == "train" for song in study.unlabeled)),
        "label budgets": ", ".join(map(str, fine.labeled_songs)),
        "arms": ", ".join(["scratch", *fine.controls, *fine.transfers]),
        "pre-training": f"{pre.steps} steps of {pre.batch} x {pre.crop_seconds:g} s, seeds {list(pre.seeds)}",
        "supervised": f"{fine.steps} steps of {fine.batch} x {fine.crop_seconds:g} s, seeds {list(fine.seeds)}",
        "corpus seed": str(profile.corpus.rendered.seed),
    }
    return pd.DataFrame({"this profile": rows})


def committed(*figures: str) -> HTML:
    """Figures of profile `study` from the repository, marked as such, for what a smaller profile leaves out."""
    files = [COMMITTED / f"{name}.svg" for name in figures]
    images = [base64.b64encode(file.read_bytes()).decode() for file in files if file.exists()]
    note = "From the committed results of profile <code>study</code>:" if images else "Left out by this profile."
    html = [f'<img style="max-width: 45rem" src="data:image/svg+xml;base64,{image}">' for image in images]
    return HTML("".join([f"<p><b>{note}</b></p>", *html]) if figures else "None.")


def bullets(texts: Iterable[str]) -> Markdown:
    """Sentences as a list."""
    return Markdown("\n".join(f"- {sentence(text)}" for text in texts))
