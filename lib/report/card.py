"""The model card ``README.md`` in the run folder of a final model: data, recipe, scores, licences."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lib.arms import Finetuning
from lib.experiments import evaluate
from lib.report.page import TEMPLATES
from lib.report.sentences import markdown_table
from lib.scoring import summarise
from lib.store.files import atomic

LICENCES = {
    "rendered": "composed by rule in this project (MIT), played by the General MIDI sound font TimGM6mb (GPL-2.0) that "
    "pretty_midi contains",
    "musdb": "MUSDB18-HQ: for research and education, not for commercial use; its songs keep their own licences "
    "(zenodo.org/records/3338373)",
    "fma": "FMA: every track under the licence its artist chose, named in `fma_metadata/tracks.csv`; many exclude "
    "commercial use or derived works",
}
"""Licence of the music, by a word in the name of its source."""


def write_all(trainings: Iterable[Finetuning]) -> None:
    """Write the cards of scored models whose weights are here."""
    for training in trainings:
        if training.run.weights.exists():
            write(training, evaluate.scores(training))


def write(training: Finetuning, scores: pd.DataFrame) -> Path:
    """Write the card of a model with its ``scores`` (`evaluate.scores`) if it changed; return its path."""
    path, profile = training.run.folder / "README.md", training.study.profile
    first = profile.pretrain
    pretrained_on = (first.checkpoint,) if first.checkpoint else profile.corpus.unlabeled_parts
    sources = dict.fromkeys((profile.corpus.labeled, *(pretrained_on if training.transfer else ())))
    text = TEMPLATES.get_template("card.md.jinja").render(
        training=training,
        profile=profile,
        first=first,
        facts=training.run.facts(),
        pretrained_on=pretrained_on,
        scores=_table(scores),
        licences={source: licence(source) for source in sources},
    )
    if not path.exists() or path.read_text("utf-8") != text:
        with atomic(path) as temporary:
            temporary.write_text(text, "utf-8")
    return path


def licence(source: str) -> str:
    """Licence of ``corpus.labeled`` or of a part of ``corpus.unlabeled``."""
    name = Path(source).name.lower() if "/" in source else source.lower()
    return next((text for word, text in LICENCES.items() if word in name), "that of its files, unknown to this project")


def _table(scores: pd.DataFrame) -> str:
    summary = summarise(scores[scores["experiment"] == "test"])
    wide = summary.groupby(["stem", "metric"], sort=False)["value"].mean().unstack("metric")
    return markdown_table(wide.map("{:.2f}".format).reset_index())
