"""What is listened to: excerpts of songs as every method separates them, by trained models or from a committed set.

``python -m lib.listening.sources --profile NAME`` writes such a set (`lib.listening.examples`) from a finished study.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from lib import STEMS, UserError, scoring, separate
from lib.arms import Finetuning, Pretraining
from lib.data import audio
from lib.data.stream import Song
from lib.data.tracks import Track
from lib.experiments import evaluate
from lib.experiments.claim import claim_trainings, is_final
from lib.experiments.jobs import scored, train_in_parallel
from lib.experiments.records import named
from lib.listening import examples
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.profile.fields import project_path
from lib.profile.load import load
from lib.report import notebook
from lib.separate import Progress
from lib.store import provenance
from lib.store.fingerprints import fingerprint
from lib.study import Study
from lib.transfer import Statistics, best_groups

EDGE = 0.15
"""Seconds at either end of a song that are not played: stempeg's example has a click of full scale in both."""


def methods(study: Study) -> list[Finetuning]:
    """The final model of every arm (in every fold), trained where missing."""
    train_in_parallel(map(scored, claim_trainings(study)))
    return list(filter(is_final, claim_trainings(study)))


def testing(study: Study, song: Track) -> list[Finetuning]:
    """The `methods` of the fold that tests a song; of the first fold for songs that are of none."""
    fold = next((fold for fold in study.folds if song.name in {s.name for s in fold.songs("test")}), study.folds[0])
    return methods(fold)


def origin_note(study: Study) -> pd.DataFrame | Markdown:
    """Where the excerpts come from: the runs behind them, or the listening set and what that was made from."""
    if not plays_examples(study):
        return notebook.run_table(map(named, methods(study)))
    facts = examples.manifest(project_path(study.profile.listening.examples))
    return Markdown(
        f"No trained model of this profile is here: what plays below is the listening set of profile "
        f"`{facts['profile']}` (commit `{str(facts['commit'])[:12]}`), Ogg Vorbis; the scores are those of the "
        f"uncompressed estimates."
    )


def plays_examples(study: Study) -> bool:
    """Whether there is no trained model of this profile here, but a listening set."""
    trained = any((study.results / "runs").glob("*-*/model.safetensors"))
    return not trained and examples.exists(project_path(study.profile.listening.examples))


def excerpts(study: Study, songs: int | None = None) -> list[Excerpt]:
    """The first ``songs`` test songs (by default ``listening.songs``), then the real song; see `plays_examples`."""
    songs = study.profile.listening.songs if songs is None else songs
    if plays_examples(study):
        *tests, real = examples.read(project_path(study.profile.listening.examples))
        return [*tests[:songs], real]
    return [excerpt(study, song) for song in [*study.songs("test")[:songs], study.real_song]]


def passage(study: Study, song: Track) -> tuple[float, float]:
    """(start, length) in s of what is heard of a song: ``listening.seconds`` from its middle, less if it is short."""
    seconds = max(min(study.profile.listening.seconds, song.seconds - 2 * EDGE), song.seconds / 2)
    return math.floor((song.seconds - seconds) * 5) / 10, seconds


def excerpt(study: Study, song: Track) -> Excerpt:
    """``listening.seconds`` from the middle of a song with stems, by every method and the oracle mask.

    The mixture is the sum of the stems, as in the scores. The models hear the excerpt alone; their estimates are kept
    in ``estimates/SONG/METHOD-HASH``.
    """
    front = study.profile.audio
    start, seconds = passage(study, song)
    stems = song.stems(start, seconds, front.rate)
    mixture, versions = stems.sum(0), {REFERENCE: stems}
    for training in testing(study, song):
        identity = [
            training.run.name,
            song.digest,
            start,
            seconds,
            study.profile.separate,
            separate.VERSION,
        ]
        folder = study.results / "estimates" / song.name / f"{training.method}-{fingerprint(identity)}"
        versions[training.method] = _cached(
            folder, front.rate, lambda training=training: evaluate.estimate(study, training.load(), mixture)
        )
    versions["ideal ratio mask"] = scoring.ideal_ratio_mask(mixture, stems, front.n_fft, front.hop)
    return Excerpt(song.name, start, front.rate, mixture, versions)


def clearest(study: Study, song: Track) -> Excerpt:
    """The same seconds as in `excerpt`, by the first pre-trained model alone: per stem its nearest output, and group.

    Nearest with the stems known, as no one could choose them.
    """
    rate, (start, seconds) = study.profile.audio.rate, passage(study, song)
    stems = song.stems(start, seconds, rate)
    outputs = evaluate.estimate(study, Pretraining(study, study.profile.pretrain.seeds[0]).load(), stems.sum(0))
    statistics = Statistics.of(torch.from_numpy(outputs), torch.from_numpy(stems))
    single = np.eye(len(outputs))[np.nan_to_num(statistics.snr(np.eye(len(outputs)))).argmax(1)]
    versions = {"nearest output": single, "nearest group": best_groups([statistics])}
    sums = {name: np.tensordot(chosen, outputs, 1).astype(np.float32) for name, chosen in versions.items()}
    return Excerpt(song.name, start, rate, stems.sum(0), {REFERENCE: stems, **sums})


def _cached(folder: Path, rate: int, estimate: Callable[[], np.ndarray]) -> np.ndarray:
    """Estimates [4, 2, T], from the WAV files in ``folder`` once they have been made."""
    files = [folder / f"{stem}.wav" for stem in STEMS]
    if not all(file.exists() for file in files):
        for file, wave in zip(files, estimate(), strict=True):
            audio.write(file, wave, rate)
    return np.stack([audio.read(file) for file in files])


def own_file(study: Study, path: Path | str, start: float, seconds: float, progress: Progress = False) -> Excerpt:
    """``seconds`` from ``start`` of any audio file, by the model with the lowest validation loss of those with weights.

    ``progress`` as in `lib.separate.separate_blocks`. Raises: UserError if the file cannot be decoded or is shorter,
    or if there is no trained model while a listening set plays.
    """
    rate = study.profile.audio.rate
    if plays_examples(study):
        raise UserError(f"no trained model of profile {study.profile.name} here: ./run_all.sh {study.profile.name}")
    trainings = claim_trainings(study)
    trained = [one for one in trainings if one.trained().weights.exists()]  # a record would have to be trained again
    training = min(trained or trainings, key=lambda one: one.run.facts()["best_validation_loss"])
    with tempfile.TemporaryDirectory() as cache:
        song = Song(audio.seekable(path, cache), rate)
        mixture = song[:, round(start * rate) : round((start + seconds) * rate)]
    if not mixture.shape[1]:
        raise UserError(f"{Path(path).name}: ends after {song.shape[1] / rate:.1f} s; start before that")
    estimates = evaluate.estimate(study, training.load(), mixture, progress)
    return Excerpt(Path(path).name, start, rate, mixture, {training.method: estimates})


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 done, 2 wrong call or a set that cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m lib.listening.sources", description="Write a listening set.")
    parser.add_argument("--profile", required=True, help="a finished study: its models, songs and listening section")
    parser.add_argument("--out", type=Path, help="folder to write (default: the profile's listening.examples)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted profile fields")
    call = parser.parse_args(arguments)
    try:
        study = Study(load(call.profile, call.overrides))
        folder = call.out or project_path(study.profile.listening.examples)
        songs = [*study.songs("test")[: study.profile.listening.songs], study.real_song]
        code = provenance.code()
        facts = {"profile": study.profile.name, "commit": code["commit"], "code": code["lib"]}
        facts["runs"] = {training.method: training.run.name for training in methods(study.folds[0])}
        size = examples.write(folder, [excerpt(study, song) for song in songs], facts)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder}: {len(songs)} songs, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
