"""What notebooks show: their answer and header, figures with captions, tables and lists."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Image, Markdown, display, update_display
from matplotlib.figure import Figure

from lib import ROOT
from lib.arms import method_name, of_profile
from lib.report.captions import caption
from lib.report.sentences import counted, listed, sentence
from lib.store import provenance
from lib.store.runs import Run
from lib.study import Study

COMMITTED = ROOT / "results" / "study" / "figures"


def header(study: Study, overrides: Sequence[str] = ()) -> Markdown:
    """Profile and commit; without a finished run also the command for the study. Above it, room for `answer`."""
    display(Markdown(""), display_id="answer")
    code, name = provenance.commit(), study.profile.name
    commit = f"`{code['commit'][:12]}`{' with changes' if code['dirty'] else ''}" if code["commit"] else "none (no git)"
    changes = "".join(f" `{item}`" for item in overrides)
    text = f"**Profile** `{name}`{changes} · **commit** {commit}"
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


def answer(text: str) -> None:
    """Put the notebook's answer above its header."""
    update_display(Markdown(f"**Answer.** {text}"), display_id="answer")


def show(study: Study, figure: Figure, answers: bool = False) -> Markdown:
    """Display a figure, as saved, above its caption; what it shows may be what ``answers`` the notebook's question."""
    name, width = figure.get_label(), round(100 * figure.get_figwidth())
    finding, drawn = caption(study.results, name)
    display(Image(filename=study.results / "figures" / f"{name}.png", width=width, alt=finding or drawn))
    if answers:
        answer(finding)
    return Markdown(f"**{finding}** {drawn}" if finding else drawn)


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


def protocol(study: Study) -> Markdown:
    """Songs, label budgets, arms, steps and seeds of the profile."""
    profile = study.profile
    pre, fine, splits = profile.pretrain, profile.finetune, ("train", "validation", "test")
    counts = [sum(song.split == split for song in study.folds[0].labeled) for split in splits]
    songs = ", ".join(f"{count} {split}" for split, count in zip(splits, counts, strict=True))
    used = fine.learning_rate or study.size.learning_rate
    rates = (f"{rate:g}" for rate in (used, fine.transfer_learning_rate or used))
    unlabelled = sum(song.split == "train" for song in study.unlabeled)
    return bullets([
        f"labelled songs: {songs}" + (f" in the first of {len(study.folds)} folds" if profile.corpus.folds else ""),
        f"unlabelled songs: {unlabelled}",
        f"primary metric: {profile.scoring.primary}",
        f"label budgets: {listed(fine.labeled_songs)} songs, "
        + ("a quarter of which validates" if fine.validation_from_budget else "and the validation songs beside them"),
        f"arms: {', '.join(map(method_name, of_profile(study)))}",
        f"pre-training: {pre.steps} steps of {pre.batch} x {pre.crop_seconds:g} s, seeds {listed(pre.seeds)}",
        f"fine-tuning: {fine.steps} steps of {fine.batch} x {fine.crop_seconds:g} s, seeds {listed(fine.seeds)}",
        f"learning rates: {listed(rates)} from scratch and pre-trained (encoder and blocks x {fine.body_rate:g})",
        f"seed of the composed music: {profile.corpus.rendered.seed}",
    ])  # fmt: skip


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
