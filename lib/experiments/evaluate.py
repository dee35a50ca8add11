"""What the trained models and the references score on whole songs, each computed once and found again afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import scoring, separate
from lib.arms import Finetuning, whole_song
from lib.data.tracks import Track, corpus_fingerprint
from lib.model.separator import Separator
from lib.separate import Progress
from lib.store import tables
from lib.store.fingerprints import fingerprint
from lib.store.runs import Run
from lib.study import Study

Estimate = Callable[[np.ndarray], np.ndarray]
"""Stems [4, C, T] to estimates [4, C, T]; all but oracles look at the sum of the stems alone."""


def estimate(study: Study, separator: Separator, mixture: np.ndarray, progress: Progress = False) -> np.ndarray:
    """Separate a whole song: [C, T] -> [S, C, T]; ``progress`` as in `lib.separate.separate_blocks`."""
    consistent = study.profile.separate.mixture_consistency
    return whole_song(study, separator, torch.from_numpy(mixture), consistent, progress).numpy()


def songs(study: Study, split: str) -> list[tuple[str, Track]]:
    """(experiment, song) of a split; beside the ``test`` songs stands the real song, as ``real song``."""
    real = [("real song", study.real_song)] if split == "test" else []
    return [*((split, song) for song in study.songs(split)), *real]


def scores(training: Finetuning, split: str = "test") -> pd.DataFrame:
    """uSDR and cSDR of a model, trained if need be, on all songs of a split; also one museval JSON a song."""
    model = functools.cache(training.load)  # only if a score is missing
    separated = lambda stems: estimate(training.study, model(), stems.sum(0))  # noqa: E731
    table = scored(training.study, training.trained(), separated, split)
    return _named(table, method=training.method, seed=training.seed, labeled_songs=training.songs)


def baselines(study: Study) -> pd.DataFrame:
    """Scores of the mixture as estimate, and of the oracle ideal-ratio mask as ceiling, on the test songs."""
    front = study.profile.audio
    methods: dict[str, Estimate] = {
        "mixture": lambda stems: scoring.mixture_as_estimate(stems.sum(0)),
        "ideal ratio mask": lambda stems: scoring.ideal_ratio_mask(stems.sum(0), stems, front.n_fft, front.hop),
    }
    return pd.concat([reference(study, name, function) for name, function in methods.items()], ignore_index=True)


def reference(study: Study, name: str, function: Estimate) -> pd.DataFrame:
    """Scores on the test songs of something that was not trained."""
    folder = f"{name.replace(' ', '-')}-{fingerprint(study.profile.audio)}"
    return _named(scored(study, Run(study.results / "runs" / "references" / folder), function, "test"), method=name)


def scored(study: Study, run: Run, function: Estimate, split: str) -> pd.DataFrame:
    """The score table of ``function`` on a split, kept in the folder of ``run``; method and seed are left empty."""
    chosen, rate = songs(study, split), study.profile.audio.rate

    def score() -> pd.DataFrame:
        rows = []
        for experiment, song in chosen:
            stems = song.stems(rate=rate)
            estimates = function(stems)
            rows.extend(tables.song_rows(song.name, scoring.score_song(stems, estimates, rate), experiment=experiment))
            if split == "test":
                frames = scoring.csdr(stems.swapaxes(1, 2), estimates.swapaxes(1, 2), rate)
                scoring.museval_json(run.folder / "museval", song.name, frames)
        return tables.table(rows)

    identity = [corpus_fingerprint([song for _, song in chosen]), study.profile.separate]
    return cached(run, "scores", [*identity, separate.VERSION, scoring.VERSION], score)


def cached(run: Run, name: str, identity: Sequence, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What ``measure`` finds of a run, made once per ``identity`` and weights: ``NAME-HASH.csv`` in its folder."""

    def path() -> Path:
        weights = run.facts()["weights"] if run.finished else None  # references have none
        return run.folder / f"{name}-{fingerprint([*identity, weights])}.csv"

    if not path().exists():
        found = measure()
        tables.write_table(path(), found)  # a run whose weights had to be made again may have others now
    return tables.read_table(path())


def _named(frame: pd.DataFrame, **facts: object) -> pd.DataFrame:
    return tables.table(frame.assign(**facts).to_dict("records"))
