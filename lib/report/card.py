"""The model card ``README.md`` in the run folder of a final model: data, recipe, scores, licences."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lib.arms import Finetuning
from lib.experiments import evaluate
from lib.profile.fields import Profile
from lib.report import sentences
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
    """Write the cards of scored models."""
    for training in trainings:
        write(training, evaluate.scores(training))


def write(training: Finetuning, scores: pd.DataFrame) -> Path:
    """Write the card of a model with its ``scores`` (`evaluate.scores`) if it changed; return its path."""
    path, text = training.run.folder / "README.md", _text(training, scores)
    if not path.exists() or path.read_text("utf-8") != text:
        with atomic(path) as temporary:
            temporary.write_text(text, "utf-8")
    return path


def _text(training: Finetuning, scores: pd.DataFrame) -> str:
    profile, run = training.study.profile, training.run
    sections = {
        "Use": f"`python -m lib.separate SONG --checkpoint FOLDER --out stems`, FOLDER being this one "
        f"(`{run.name}`): `model.safetensors` holds weights and configuration, {profile.audio.rate} Hz stereo.",
        "Data": _bullets(_data(training)),
        "Recipe": _bullets(_recipe(training)),
        "Scores": f"Mean over test songs, dB.\n\n{_table(scores)}",
        "Licence": "The code is under the MIT licence. Permitted uses of the weights depend on the music:\n\n"
        + _bullets(f"`{source}`: {licence(source)}" for source in _sources(training)),
    }
    body = "\n".join(f"## {title}\n\n{text}\n" for title, text in sections.items())
    title = f"# Music source separation, {training.arm}: bass, drums, vocals, other"
    return f"{title}\n\nWeights {run.facts()['weights'][:12]}\n\n{body}"


def licence(source: str) -> str:
    """Licence of ``corpus.labeled`` or of a part of ``corpus.unlabeled``."""
    name = Path(source).name.lower() if "/" in source else source.lower()
    return next((text for word, text in LICENCES.items() if word in name), "that of its files, unknown to this project")


def _sources(training: Finetuning) -> list[str]:
    profile = training.study.profile
    unlabeled = _pretrained_on(profile) if training.transfer else ()
    return list(dict.fromkeys((profile.corpus.labeled, *unlabeled)))


def _pretrained_on(profile: Profile) -> tuple[str, ...]:
    return (profile.pretrain.checkpoint,) if profile.pretrain.checkpoint else profile.corpus.unlabeled_parts


def _data(training: Finetuning):
    profile = training.study.profile
    yield f"labelled: {training.songs} training songs of `{profile.corpus.labeled}`, and its validation songs"
    if training.transfer:
        subset = f", FMA's subset {profile.corpus.fma_subset}" if profile.corpus.unlabeled.endswith("fma") else ""
        yield f"pre-trained on: {', '.join(f'`{part}`' for part in _pretrained_on(profile))}{subset}, without labels"


def _recipe(training: Finetuning):
    profile, facts, stage = training.study.profile, training.run.facts(), training.schedule
    yield f"band-split TF-Locoformer, size {profile.model.size}, profile `{profile.name}`, seed {training.seed}"
    if training.transfer and not profile.pretrain.checkpoint:
        first = profile.pretrain
        yield (
            f"MixIT (arXiv 2006.12701; {first.assignment} assignment), N = {profile.model.sources}: "
            f"{first.steps} steps of {first.batch} mixtures of mixtures of {first.crop_seconds:g} s"
        )
    yield f"{training.arm}: {facts['steps']} supervised steps of {stage.batch} mixtures of {stage.crop_seconds:g} s"
    yield f"averaged checkpoints: steps {', '.join(map(str, facts['averaged_steps']))}"


def _table(scores: pd.DataFrame) -> str:
    summary = summarise(scores[scores["experiment"] == "test"])
    wide = summary.groupby(["stem", "metric"], sort=False)["value"].mean().unstack("metric")
    return sentences.markdown_table(wide.map("{:.2f}".format).reset_index())


def _bullets(lines) -> str:
    return "\n".join(f"- {line}" for line in lines)
