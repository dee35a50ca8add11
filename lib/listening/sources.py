"""Excerpts with the estimates of every method, from trained models or from the committed listening set.

``python -m lib.listening.sources --profile NAME`` writes that set (`lib.listening.examples`) from a finished study.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from lib import STEMS, UserError, scoring, separate
from lib.arms import SCRATCH, Finetuning, Pretraining, method_name
from lib.data import audio, folds
from lib.data.tracks import Track
from lib.experiments import evaluate
from lib.experiments.claim import claim_trainings, is_final
from lib.experiments.jobs import scored, train_in_parallel
from lib.experiments.records import named
from lib.listening import examples
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.model import checkpoints
from lib.model.separator import Separator
from lib.profile.fields import TRANSFERS, project_path
from lib.profile.load import load
from lib.report import notebook
from lib.separate import Progress
from lib.store import provenance
from lib.store.files import fitted
from lib.store.fingerprints import fingerprint
from lib.study import Study
from lib.transfer import Statistics, best_groups

EDGE = 0.15
"""Seconds omitted at both ends of a song: stempeg's example has full-scale clicks there."""


def methods(study: Study) -> list[Finetuning]:
    """The final model of every arm (in every fold), trained where missing."""
    train_in_parallel(map(scored, claim_trainings(study)))
    return list(filter(is_final, claim_trainings(study)))


def testing(study: Study, song: Track) -> list[Finetuning]:
    """The `methods` of the fold that tests a song, or of the first fold."""
    fold = next((fold for fold in study.folds if song.name in {s.name for s in fold.songs("test")}), study.folds[0])
    return methods(fold)


def origin_note(study: Study) -> pd.DataFrame | Markdown:
    """Origin of the excerpts: the runs behind them, or profile and commit of the listening set."""
    if not plays_examples(study):
        return notebook.run_table(map(named, methods(study)))
    facts = examples.manifest(project_path(study.profile.listening.examples))
    return Markdown(
        f"There is no trained model of this profile: the players below contain the listening set of profile "
        f"`{facts['profile']}` (commit `{str(facts['commit'])[:12]}`) as Ogg Vorbis, with the scores of the "
        f"uncompressed estimates."
    )


def plays_examples(study: Study) -> bool:
    """Whether the profile has a listening set, but no trained model."""
    trained = any((study.results / "runs").glob("*-*/model.safetensors"))
    return not trained and examples.exists(project_path(study.profile.listening.examples))


def excerpts(study: Study, songs: int | None = None) -> list[Excerpt]:
    """The first ``songs`` test songs, then the real song; see `plays_examples`.

    By default ``listening.songs``, and one song of every other source of recorded songs on the disk.
    """
    others = study.recorded_songs if songs is None else []
    songs = study.profile.listening.songs if songs is None else songs
    if plays_examples(study):
        *tests, real = examples.read(project_path(study.profile.listening.examples))
        return [*tests[:songs], real]
    chosen = [*folds.alternating(study.songs("test"))[:songs], *others, study.real_song]  # of each source as many
    return [separated_excerpt(study, song) for song in chosen]


def claimed_pair(study: Study, excerpt: Excerpt) -> tuple[str, ...]:
    """The two methods of the study's question: from scratch, and pre-trained by the first transfer that is there."""
    arms = (SCRATCH, *study.profile.finetune.transfers, *TRANSFERS)
    known = [name for name in map(method_name, arms) if name in excerpt.versions]
    return tuple(dict.fromkeys(known))[:2] if method_name(SCRATCH) in known[:1] and len(known) > 1 else ()


def passage(study: Study, song: Track) -> tuple[float, float]:
    """(start, length) in s of the excerpt of a song: ``listening.seconds`` from its middle, less if it is short."""
    seconds = max(min(study.profile.listening.seconds, song.seconds - 2 * EDGE), song.seconds / 2)
    return math.floor((song.seconds - seconds) * 5) / 10, seconds


def separated_excerpt(study: Study, song: Track) -> Excerpt:
    """The `passage` of a song with stems, separated by every method and by the oracle mask.

    The mixture is the sum of the stems, as in the scores. The input of the models is the excerpt alone; their estimates
    are cached in ``estimates/SONG/METHOD-HASH``.
    """
    front = study.profile.audio
    start, seconds = passage(study, song)
    stems = song.stems(start, seconds, front.rate)
    mixture, versions = stems.sum(0), {REFERENCE: stems}
    for training in testing(study, song):
        identity = [training.run.name, song.digest, start, seconds, study.profile.separate, separate.VERSION]
        folder = study.results / "estimates" / fitted(song.name) / f"{training.method}-{fingerprint(identity)}"
        versions[training.method] = _cached(
            folder, front.rate, lambda training=training: evaluate.estimate(study, training.load(), mixture)
        )
    versions["ideal ratio mask"] = scoring.ideal_ratio_mask(mixture, stems, front.n_fft, front.hop)
    return Excerpt(song.name, start, front.rate, mixture, versions)


def unsupervised(study: Study) -> tuple[np.ndarray, Excerpt]:
    """The outputs [N, 2, T] of the first pre-trained model for the first test song, or those of the listening set."""
    if plays_examples(study):
        return examples.read_outputs(project_path(study.profile.listening.examples))
    return outputs_of(study, study.songs("test")[0])


def outputs_of(study: Study, song: Track) -> tuple[np.ndarray, Excerpt]:
    """The outputs [N, 2, T] of the first pre-trained model for the `passage` of a song, and its stems."""
    rate, (start, seconds) = study.profile.audio.rate, passage(study, song)
    stems = song.stems(start, seconds, rate)
    outputs = evaluate.estimate(study, Pretraining(study, study.profile.pretrain.seeds[0]).load(), stems.sum(0))
    return outputs, Excerpt(song.name, start, rate, stems.sum(0), {REFERENCE: stems})


def clearest(study: Study, song: Track) -> Excerpt:
    """The same `passage` by the first pre-trained model: per stem the nearest output and the nearest group of outputs.

    The choice is an oracle: it uses the stems.
    """
    outputs, excerpt = outputs_of(study, song)
    statistics = Statistics.of(torch.from_numpy(outputs), torch.from_numpy(excerpt.versions[REFERENCE]))
    single = np.eye(len(outputs))[np.nan_to_num(statistics.snr(np.eye(len(outputs)))).argmax(1)]
    versions = {"nearest output": single, "nearest group": best_groups([statistics])}
    sums = {name: np.tensordot(chosen, outputs, 1).astype(np.float32) for name, chosen in versions.items()}
    return replace(excerpt, versions={**excerpt.versions, **sums})


def _cached(folder: Path, rate: int, estimate: Callable[[], np.ndarray]) -> np.ndarray:
    """Estimates [4, 2, T], cached as WAV files in ``folder``."""
    files = [folder / f"{stem}.wav" for stem in STEMS]
    if not all(file.exists() for file in files):
        for file, wave in zip(files, estimate(), strict=True):
            audio.write(file, wave, rate)
    return np.stack([audio.read(file) for file in files])


def own_file(study: Study, path: Path | str, start: float, seconds: float, progress: Progress = False) -> Excerpt:
    """``seconds`` from ``start`` of any audio file, by the study's `best` model.

    ``progress`` as in `lib.separate.separate_blocks`. Raises: UserError if the file cannot be decoded or ends before
    ``start``.
    """
    with tempfile.TemporaryDirectory() as cache:
        file = audio.seekable(path, cache)  # before a model is trained or loaded for it
        name, model = best(study)
        song = audio.Song(file, model.rate)
        mixture = song[:, round(start * model.rate) : round((start + seconds) * model.rate)]
    if not mixture.shape[1]:
        raise UserError(f"{Path(path).name}: ends after {song.shape[1] / model.rate:.1f} s; choose an earlier start")
    estimates = evaluate.estimate(study, model, mixture, progress)
    return Excerpt(Path(path).name, start, model.rate, mixture, {name: estimates})


def best(study: Study) -> tuple[str, Separator]:
    """The model with weights of the lowest validation loss, and its arm; of a listening set, the project's model."""
    if plays_examples(study):
        return "the model that comes with this project", checkpoints.load(checkpoints.FINETUNED)
    trainings = claim_trainings(study)
    trained = [one for one in trainings if one.trained().weights.exists()]  # not records
    training = min(trained or trainings, key=lambda one: one.run.facts()["best_validation_loss"])
    return training.method, training.load()


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 done, 2 wrong call or failure."""
    parser = argparse.ArgumentParser(prog="python -m lib.listening.sources", description="Write a listening set.")
    parser.add_argument("--profile", required=True, help="profile of a finished study")
    parser.add_argument("--out", type=Path, help="output folder; default: the profile's listening.examples")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted profile fields")
    call = parser.parse_args(arguments)
    try:
        study = Study(load(call.profile, call.overrides))
        folder = call.out or project_path(study.profile.listening.examples)
        songs = [*folds.alternating(study.songs("test"))[: study.profile.listening.songs], study.real_song]
        code = provenance.code()
        facts = {"profile": study.profile.name, "commit": code["commit"], "code": code["lib"]}
        facts["runs"] = {training.method: training.run.name for training in methods(study.folds[0])}
        examples.write(folder, [separated_excerpt(study, song) for song in songs], facts)
        outputs, excerpt = outputs_of(study, songs[0])
        pretraining = Pretraining(study, study.profile.pretrain.seeds[0])
        size = examples.write_outputs(
            folder, outputs, excerpt, {"profile": study.profile.name, "run": pretraining.run.name}
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder}: {len(songs)} songs, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
