"""What is listened to: excerpts of songs as every method separates them, by trained models or from a committed set."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from lib import STEMS, UserError, audio, evaluation, prose, scoring
from lib.corpora import Track
from lib.listening import examples
from lib.listening.players import REFERENCE, Excerpt
from lib.outputs import Statistics, best_groups
from lib.profile import resolve
from lib.results import claim_runs
from lib.runs import Run, code_fingerprint, fingerprint
from lib.separate import Progress, Song
from lib.stages import Study

EDGE = 0.15
"""Seconds at either end of a song that are not played: stempeg's example has a click of full scale in both."""


def methods(study: Study) -> list[tuple[str, int, int, Run]]:
    """(method, seed, labelled songs, run) of each method with the first seed and the most labelled songs."""
    chosen = (study.profile.finetune.seeds[0], max(study.profile.finetune.labeled_songs))
    return [found for found in claim_runs(study) if found[1:3] == chosen]


def source(study: Study) -> pd.DataFrame | Markdown:
    """Where the excerpts come from: the runs behind them, or the listening set and what that was made from."""
    if not plays_examples(study):
        return prose.run_table(methods(study))
    facts = examples.manifest(resolve(study.profile.listening.examples))
    return Markdown(
        f"No trained model of this profile is here: what plays below is the listening set of profile "
        f"`{facts['profile']}` (commit `{str(facts['commit'])[:12]}`), Ogg Vorbis; the scores are those of the "
        f"uncompressed estimates."
    )


def plays_examples(study: Study) -> bool:
    """Whether there is no trained model of this profile here, but a listening set."""
    trained = any((study.results / "runs").glob("*-*/model.safetensors"))
    return not trained and examples.exists(resolve(study.profile.listening.examples))


def excerpts(study: Study, songs: int | None = None) -> list[Excerpt]:
    """The first ``songs`` test songs (by default ``listening.songs``), then the real song; see `plays_examples`."""
    songs = study.profile.listening.songs if songs is None else songs
    if plays_examples(study):
        *tests, real = examples.read(resolve(study.profile.listening.examples))
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
    for method, _, _, run in methods(study):
        identity = [
            run.name,
            song.digest,
            start,
            seconds,
            study.profile.separate,
            code_fingerprint(*evaluation.SCORING_CODE),
        ]
        folder = study.results / "estimates" / song.name / f"{method}-{fingerprint(identity)}"
        versions[method] = _kept(
            folder, front.rate, lambda run=run: evaluation.estimate(study, study.load(run), mixture)
        )
    versions["ideal ratio mask"] = scoring.ideal_ratio_mask(mixture, stems, front.n_fft, front.hop)
    return Excerpt(song.name, start, front.rate, mixture, versions)


def clearest(study: Study, song: Track) -> Excerpt:
    """The same seconds as in `excerpt`, by the first pre-trained model alone: per stem its nearest output, and group.

    Nearest with the stems known, as no one could choose them.
    """
    rate, (start, seconds) = study.profile.audio.rate, passage(study, song)
    stems = song.stems(start, seconds, rate)
    outputs = evaluation.estimate(study, study.load(study.pretrain()), stems.sum(0))
    statistics = Statistics.of(torch.from_numpy(outputs), torch.from_numpy(stems))
    single = np.eye(len(outputs))[np.nan_to_num(statistics.snr(np.eye(len(outputs)))).argmax(1)]
    versions = {"nearest output": single, "nearest group": best_groups([statistics])}
    sums = {name: np.tensordot(chosen, outputs, 1).astype(np.float32) for name, chosen in versions.items()}
    return Excerpt(song.name, start, rate, stems.sum(0), {REFERENCE: stems, **sums})


def _kept(folder: Path, rate: int, estimate: Callable[[], np.ndarray]) -> np.ndarray:
    """Estimates [4, 2, T], from the WAV files in ``folder`` once they have been made."""
    files = [folder / f"{stem}.wav" for stem in STEMS]
    if not all(file.exists() for file in files):
        for file, wave in zip(files, estimate(), strict=True):
            audio.write(file, wave, rate)
    return np.stack([audio.read(file) for file in files])


def own(study: Study, path: Path | str, start: float, seconds: float, progress: Progress = False) -> Excerpt:
    """``seconds`` from ``start`` of any audio file, by the model with the lowest validation loss of those with weights.

    ``progress`` as in `lib.separate.separate_blocks`. Raises: UserError if the file cannot be decoded or is shorter,
    or if there is no trained model while a listening set plays.
    """
    rate = study.profile.audio.rate
    if plays_examples(study):
        raise UserError(f"no trained model of profile {study.profile.name} here: ./run_all.sh {study.profile.name}")
    runs = [(method, run) for method, _, _, run in claim_runs(study)]
    trained = [pair for pair in runs if pair[1].weights.exists()]  # a record would have to be trained again
    method, run = min(trained or runs, key=lambda pair: pair[1].facts()["best_validation_loss"])
    with tempfile.TemporaryDirectory() as cache:
        song = Song(audio.seekable(path, cache), rate)
        mixture = song[:, round(start * rate) : round((start + seconds) * rate)]
    if not mixture.shape[1]:
        raise UserError(f"{Path(path).name}: ends after {song.shape[1] / rate:.1f} s; start before that")
    estimates = evaluation.estimate(study, study.load(run), mixture, progress)
    return Excerpt(Path(path).name, start, rate, mixture, {method: estimates})
