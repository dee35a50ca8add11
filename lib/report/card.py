"""The model card ``README.md`` in the run folder of a final model: data, recipe, scores, licences.

``python -m lib.report.card PROFILE [key=value ...]`` has two models of a finished study come with this project, as
float16 in ``results/models``, with a card: the pre-training of the lowest held-out loss and, of the arms that start
from one, the separator of the lowest validation loss.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch

from lib import UserError
from lib.arms import Finetuning, Pretraining
from lib.experiments import evaluate
from lib.experiments.claim import claim_trainings
from lib.model import checkpoints
from lib.profile.fields import parts_of
from lib.profile.load import load
from lib.report.page import TEMPLATES
from lib.report.sentences import markdown_table
from lib.scoring import summarise
from lib.store.files import atomic
from lib.study import Study

LICENCES = {
    "rendered": "composed by rule in this project (MIT), played by the General MIDI sound font TimGM6mb (GPL-2.0) that "
    "pretty_midi contains",
    "musdb": "MUSDB18-HQ: for research and education, not for commercial use; its songs keep their own licences "
    "(zenodo.org/records/3338373)",
    "everythingisremixed": "songs by their authors for everyone (CC0)",
    "mdb": "MedleyDB's recordings of Music Delta, by MDB Drums (CC BY-NC-SA 4.0): not for commercial use",
    "debian": "music of free games in Debian packages, each piece under the licence that `pieces.csv` names",
    "fma": "FMA: every track under the licence its artist chose, named in `fma_metadata/tracks.csv`; many exclude "
    "commercial use or derived works",
}
"""Licence of the music, by a word in the name of its source."""
USE = (
    "`python -m lib.separate SONG --out stems` separates with `finetuned.safetensors`: run `{run}` in float16, "
    "{rate} Hz stereo. `pretrain.checkpoint=results/models/pretrained.safetensors` fine-tunes from the pre-training of "
    "the lowest held-out loss."
)


def write_all(trainings: Iterable[Finetuning]) -> None:
    """Write the cards of scored models whose weights are here."""
    for training in trainings:
        if training.run.weights.exists():
            write(training, evaluate.scores(training))


def write(training: Finetuning, scores: pd.DataFrame) -> Path:
    """Write the card of a model with its ``scores`` (`evaluate.scores`) if it changed; return its path."""
    path = training.run.folder / "README.md"
    _update(path, _text(training, scores))
    return path


def _text(training: Finetuning, scores: pd.DataFrame, use: str = "") -> str:
    profile, first = training.study.profile, training.study.profile.pretrain
    pretrained_on = (first.checkpoint,) if first.checkpoint else profile.corpus.unlabeled_parts
    sources = dict.fromkeys((*parts_of(profile.corpus.labeled), *(pretrained_on if training.transfer else ())))
    return TEMPLATES.get_template("card.md.jinja").render(
        training=training,
        profile=profile,
        first=first,
        facts=training.run.facts(),
        pretrained_on=pretrained_on,
        scores=_table(scores),
        licences={source: licence(source) for source in sources},
        use=use,
    )


def _update(path: Path, text: str) -> None:
    if not path.exists() or path.read_text("utf-8") != text:
        with atomic(path) as temporary:
            temporary.write_text(text, "utf-8")


def publish(study: Study) -> None:
    """Write the two models and the card of the second. Raises: UserError where weights or scores are missing."""
    runs = [Pretraining(study, seed) for seed in study.profile.pretrain.seeds]
    final = [one for one in claim_trainings(study) if one.transfer and not one.kind.shuffled]
    for trainings, file in ((runs, checkpoints.PRETRAINED), (final, checkpoints.FINETUNED)):
        here = [one for one in trainings if one.run.finished and one.run.weights.exists()]
        if not here:
            raise UserError(f"{study.results}: no weights to publish: ./run_all.sh {study.profile.name} trains them")
        best = min(here, key=lambda one: one.run.facts()["best_validation_loss"])
        file.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.save(checkpoints.load(best.run.folder), file, torch.float16)
        print(f"{file}: {best.label}, {file.stat().st_size / 1e6:.1f} MB")
    use = USE.format(run=best.run.name, rate=study.profile.audio.rate)
    _update(file.parent / "README.md", _text(best, evaluate.scores(best), use))


def licence(source: str) -> str:
    """Licence of ``corpus.labeled`` or of a part of ``corpus.unlabeled``."""
    name = Path(source).name.lower() if "/" in source else source.lower()
    return next((text for word, text in LICENCES.items() if word in name), "that of its files, unknown to this project")


def _table(scores: pd.DataFrame) -> str:
    summary = summarise(scores[scores["experiment"] == "test"])
    wide = summary.groupby(["stem", "metric"], sort=False)["value"].mean().unstack("metric")
    return markdown_table(wide.map("{:.2f}".format).reset_index())


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, 2 for a wrong call or a study without weights."""
    try:
        if not arguments:
            raise UserError("usage: python -m lib.report.card PROFILE [key=value ...]")
        publish(Study(load(arguments[0], arguments[1:])))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
