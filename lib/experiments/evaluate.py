"""What the trained models and the references score on whole songs, each computed once and found again afterwards."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import STEMS, scoring, separate
from lib.arms import Finetuning, whole_song
from lib.data.tracks import Track, corpus_fingerprint
from lib.experiments import hdemucs
from lib.machine.distributed import device
from lib.model.separator import Separator
from lib.separate import Progress
from lib.store import tables
from lib.store.fingerprints import file_digest, fingerprint
from lib.store.runs import Run
from lib.study import Study

Estimate = Callable[[np.ndarray], np.ndarray]
"""Stems [4, C, T] to estimates [4, C, T]; all but oracles look at the sum of the stems alone."""
Framewise = Callable[[np.ndarray, np.ndarray, int], scoring.Frames]
"""Stems and estimates [4, C, T] and their rate to metrics of every second."""


def estimate(study: Study, separator: Separator, mixture: np.ndarray, progress: Progress = False) -> np.ndarray:
    """Separate a whole song: [C, T] -> [S, C, T]; ``progress`` as in `lib.separate.separate_blocks`."""
    consistent = study.profile.separate.mixture_consistency
    return whole_song(study, separator, torch.from_numpy(mixture), consistent, progress).numpy()


def songs(study: Study, split: str) -> list[tuple[str, Track]]:
    """(experiment, song) of a split; beside the ``test`` songs, of the first fold, stands the real song."""
    real = [("real song", study.real_song)] if split == "test" and not study.fold else []
    return [*((split, song) for song in study.songs(split)), *real]


def scores(training: Finetuning, split: str = "test") -> pd.DataFrame:
    """All of `METRICS` of a model, trained if need be, on all songs of a split; also one museval JSON a song."""
    return _of_model(training, split, "scores", scoring.sdr_frames)


def bss_eval(training: Finetuning) -> pd.DataFrame:
    """ISR, SIR and SAR of a model on the test songs, medians over seconds (SDR's is cSDR), by museval: slow.

    The museval JSON of every song then holds all four metrics of every second.
    """
    table = _of_model(training, "test", "bss-eval", scoring.bss_eval_frames)
    return table[table["metric"].isin(scoring.BSS_EVAL)]


def known_scores(training: Finetuning, split: str) -> pd.DataFrame | None:
    """`scores` where they are kept already, else None: nothing is trained, and no other split's are looked at."""
    known = _identity(training.study, [song for _, song in songs(training.study, split)])
    if not training.run.finished or not (path := _path(training.run, "scores", known)).exists():
        return None
    return _of(training, tables.read_table(path))


def _of_model(training: Finetuning, split: str, name: str, framewise: Framewise) -> pd.DataFrame:
    model = functools.cache(training.load)  # only if a score is missing
    separated = lambda stems: estimate(training.study, model(), stems.sum(0))  # noqa: E731
    return _of(training, scored(training.study, training.trained(), separated, split, name, framewise))


def _of(training: Finetuning, table: pd.DataFrame) -> pd.DataFrame:
    facts = {"seed": training.seed, "labeled_songs": training.songs, "fold": training.study.fold}
    return named(table, method=training.method, **facts)


def baselines(study: Study) -> pd.DataFrame:
    """Scores on the test songs of the mixture as estimate, the oracle ideal ratio mask, and `hdemucs` where it is."""
    front = study.profile.audio
    ideal = lambda stems: scoring.ideal_ratio_mask(stems.sum(0), stems, front.n_fft, front.hop)  # noqa: E731
    frames = [
        reference(study, "mixture", lambda stems: scoring.mixture_as_estimate(stems.sum(0))),
        reference(study, "ideal ratio mask", ideal),
        *(published(study, name, weights) for name, weights in hdemucs.on_disk().items()),
    ]
    return pd.concat(frames, ignore_index=True)


def published(study: Study, name: str, weights: Path) -> pd.DataFrame:
    """Scores on the test songs of Hybrid Demucs with published ``weights``."""
    settings, rate = study.profile.separate, study.profile.audio.rate
    # only if a score is missing
    model = functools.cache(lambda: hdemucs.load(weights).to(device(study.profile.compute)))
    separated = lambda stems: hdemucs.separate_song(model(), stems.sum(0), rate, settings)  # noqa: E731
    return reference(study, name, separated, hdemucs.VERSION, file_digest(weights))


def reference(study: Study, name: str, function: Estimate, *identity: object) -> pd.DataFrame:
    """Scores on the test songs of something that was not trained here; ``identity``: what else determines them."""
    words = re.findall(r"[\w-]+", name)
    run = Run(study.results / "runs" / "references" / "-".join([*words, fingerprint(study.profile.audio)]))
    return named(scored(study, run, function, "test", identity=identity), method=name)


def scored(
    study: Study,
    run: Run,
    function: Estimate,
    split: str,
    name: str = "scores",
    framewise: Framewise = scoring.sdr_frames,
    identity: Sequence = (),
) -> pd.DataFrame:
    """The score table of ``function`` on a split, kept in the folder of ``run``; method and seed are left empty."""
    chosen, rate = songs(study, split), study.profile.audio.rate

    def score() -> pd.DataFrame:
        rows = []
        for experiment, song in chosen:
            stems = song.stems(rate=rate)
            estimates = function(stems)
            frames = _of_sounding(framewise, song, stems, estimates, rate)
            rows += tables.song_rows(song.name, scoring.score_song(stems, estimates, frames), experiment=experiment)
            if split == "test":
                scoring.museval_json(run.folder / "museval", song.name, frames, experiment)
        return tables.table(rows)

    return cached(run, name, [*_identity(study, [song for _, song in chosen]), *identity], score)


def _identity(study: Study, chosen: Sequence[Track]) -> list:
    """What determines the scores of a model on songs, beside its weights."""
    known = [corpus_fingerprint(chosen), study.profile.separate]
    absent = [[stem for stem in STEMS if stem not in song.files] for song in chosen]
    known += [absent] if any(absent) else []  # what songs lack is left out of what a second is scored by
    return [*known, separate.VERSION, scoring.VERSION]


def _of_sounding(
    framewise: Framewise, song: Track, stems: np.ndarray, estimates: np.ndarray, rate: int
) -> scoring.Frames:
    """Metrics of every second, nan for a stem that the song does not have: BSSEval knows no silent references."""
    rows = [i for i, stem in enumerate(STEMS) if stem in song.files]
    found = {}
    for metric, values in framewise(stems[rows], estimates[rows], rate).items():
        found[metric] = np.full((len(STEMS), values.shape[1]), np.nan)
        found[metric][rows] = values
    return found


def cached(run: Run, name: str, identity: Sequence, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What ``measure`` finds of a run, made once per ``identity`` and weights: ``NAME-HASH.csv`` in its folder."""
    path = _path(run, name, identity)
    if not path.exists():
        found = measure()
        path = _path(run, name, identity)  # weights that have to be made again may be others then
        tables.write_table(path, found)
    return tables.read_table(path)


def _path(run: Run, name: str, identity: Sequence) -> Path:
    weights = run.facts()["weights"] if run.finished else None  # references have none
    return run.folder / f"{name}-{fingerprint([*identity, weights])}.csv"


def named(frame: pd.DataFrame, **facts: object) -> pd.DataFrame:
    """A score table with columns set to ``facts``."""
    return tables.whole(frame.assign(**facts)[list(tables.COLUMNS)])
