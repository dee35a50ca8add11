"""A study: a profile, its music, and its results folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain

import numpy as np
import pandas as pd

from lib import ROOT, UserError
from lib.data import corpora, folds
from lib.data.corpora import of_split, take
from lib.data.segments import Manifest, mixture_manifest, stem_manifest
from lib.data.tracks import Skipped, Track, corpus_fingerprint
from lib.machine.distributed import rank
from lib.model.locoformer import SIZES, Size
from lib.model.separator import Separator
from lib.profile.fields import Profile, project_path
from lib.profile.load import override
from lib.store import tables
from lib.store.files import file_lock

PRETRAINING = ("audio", "corpus", "model", "pretrain")
"""Sections of a profile that say what is pre-trained."""


class Study:
    """Everything one profile asks for. ``Study(profile)`` reads nothing until something is asked of it.

    ``music`` holds what studies of one corpus have read already; variants and folds share it. With ``corpus.folds``, a
    study trains in its `folds` alone: a ``fold`` is the same study whose labelled songs have the splits of that fold.
    """

    def __init__(self, profile: Profile, music: dict | None = None, fold: int | None = None):
        self.profile, self.fold = profile, fold
        self.results = project_path(profile.results)
        self.cache = self.results / "corpora"
        self._music = {} if music is None else music

    def __reduce__(self) -> tuple:
        return type(self), (self.profile, None, self.fold)

    @cached_property
    def folds(self) -> list[Study]:
        """The study as seen from each fold, so that every labelled song is tested once; itself without folds."""
        if self.fold is not None or not self.profile.corpus.folds:
            return [self]
        return [type(self)(self.profile, self._music, fold) for fold in range(self.profile.corpus.folds)]

    def variant(self, changes: Mapping[str, object] | None = None, **steps: int) -> Study:
        """The same study with dotted fields replaced, and with stages stretched to other ``steps`` (``pretrain=500``).

        A file stands for the profile's own pre-training, not for another one: that is trained.

        Raises: UserError.
        """
        stretched = {stage: getattr(self.profile, stage).stretched(count) for stage, count in steps.items() if count}
        changes = dict(changes or {})
        if "pretrain" in stretched or {key.split(".")[0] for key in changes} & set(PRETRAINING):
            changes = {"pretrain.checkpoint": "", **changes}
        return type(self)(override(dataclasses.replace(self.profile, **stretched), changes), self._music, self.fold)

    # Music

    @property
    def labeled(self) -> list[Track]:
        """All songs with stems; what could not be read is listed in ``tables/skipped.csv``, what was done to songs (a
        stem cut by some samples, channels folded down) in ``tables/adjusted.csv``.

        With folds, and outside of one, all of them are of the split ``test``: nothing can be learned or chosen there.
        """
        songs = self._once("labeled", lambda: self._listed("labeled", *corpora.labeled(self.profile, self.cache)))
        if self.fold is None:
            return songs
        corpus = self.profile.corpus
        return folds.of_fold(songs, self.fold, corpus.folds, corpus.validation_songs, corpus.rendered.seed)

    @property
    def unlabeled(self) -> Sequence[Track]:
        """All songs without stems that the profile's fraction leaves."""
        return self._once("unlabeled", self._read_unlabeled)

    def _read_unlabeled(self) -> Sequence[Track]:
        corpus = self.profile.corpus
        songs = self._listed(f"unlabeled, {corpus.unlabeled}", *corpora.unlabeled(self.profile, self.cache))
        if corpus.unlabeled_fraction == 1:
            return songs
        training = [track.name for track in songs if track.split == "train"]
        count = round(len(training) * corpus.unlabeled_fraction)
        order = np.random.default_rng([corpus.rendered.seed, 1]).permutation(len(training))
        chosen = {training[i] for i in order[:count]}
        return take(songs, [i for i, track in enumerate(songs) if track.split != "train" or track.name in chosen])

    @property
    def real_song(self) -> Track:
        """The one real song with stems that every profile separates (stempeg's example)."""
        return self._once("real song", lambda: corpora.real_song(self.cache))

    @property
    def recorded_songs(self) -> list[Track]:
        """Songs of other sources on the disk, to be heard (`lib.data.corpora.recorded_songs`)."""
        return self._once("recorded songs", lambda: corpora.recorded_songs(self.profile, self.cache))

    def songs(self, split: str) -> list[Track]:
        """Labelled songs of ``train``, ``validation`` or ``test``. Raises: UserError if there are none."""
        songs = [track for track in self.labeled if track.split == split]
        if not songs:
            raise UserError(f"corpus.labeled: no {split} songs in '{self.profile.corpus.labeled}'; add some")
        return songs

    def budget(self, count: int) -> list[Track]:
        """The first ``count`` training songs of a seeded order, so that larger budgets contain smaller ones.

        Raises: UserError if there are fewer.
        """
        songs = self.songs("train")
        return [songs[i] for i in sorted(self._drawn(count, len(songs)))]

    def labeled_splits(self, count: int) -> tuple[list[Track], list[Track]]:
        """Labelled songs that a budget trains on, and those that its checkpoints and outputs are chosen on.

        The latter lie beside the budget, or are a quarter of it (``finetune.validation_from_budget``).
        Raises: UserError if there are too few.
        """
        if not self.profile.finetune.validation_from_budget:
            return self.budget(count), self.songs("validation")
        songs = self.songs("train")
        return folds.of_budget([songs[i] for i in self._drawn(count, len(songs))])

    def labeled_songs_used(self, count: int) -> dict[str, float]:
        """``training_songs`` and ``validation_songs`` that a budget takes, in the first fold; of a cut song, parts."""
        study = self.folds[0]
        if study.profile.finetune.validation_from_budget and count == 1:
            return {"training_songs": 1 - folds.HELD_OUT, "validation_songs": folds.HELD_OUT}
        training, held_out = study.labeled_splits(count)
        return {"training_songs": len(training), "validation_songs": len(held_out)}

    def _drawn(self, count: int, songs: int) -> list[int]:
        if count > songs:
            raise UserError(f"finetune.labeled_songs: {count} songs asked for, the labelled corpus has {songs}")
        generator = np.random.default_rng([self.profile.corpus.rendered.seed, 0])
        return generator.permutation(songs)[:count].tolist()

    def unlabeled_splits(self) -> tuple[Sequence[Track], Sequence[Track]]:
        """Unlabelled songs to train on and to validate on: the same where none are held out."""
        training, held_out = (of_split(self.unlabeled, split) for split in ("train", "validation"))
        return training, held_out or training

    def unlabeled_content(self) -> object:
        """What identifies the unlabelled songs: names, splits and content."""
        return self._once("unlabeled content", lambda: corpus_fingerprint(list(chain(*self.unlabeled_splits()))))

    def labeled_content(self, count: int) -> object:
        """What identifies the first ``count`` labelled songs and the validation songs."""
        return corpus_fingerprint(chain(*self.labeled_splits(count)))

    def mixture_segments(self, songs: Sequence[Track]) -> Manifest:
        """The segments of unlabelled songs that are heard."""
        corpus = self.profile.corpus
        rules = (corpus.segment_seconds, corpus.segment_hop_seconds)
        manifest = mixture_manifest(songs, *rules, self.cache, corpus.workers, corpus.drop_whole_track)
        self._list(f"unlabeled segments, {corpus.unlabeled}, {songs[0].split}", manifest.skipped)
        return manifest

    def stem_segments(self, songs: Sequence[Track]) -> Manifest:
        """The segments of labelled songs in which a stem sounds."""
        corpus = self.profile.corpus
        manifest = stem_manifest(songs, corpus.activity_seconds, self.cache, corpus.workers)
        self._list("labeled segments", manifest.skipped)
        return manifest

    def _once(self, what: str, read: Callable[[], object]) -> object:
        key = what, self.results, self.profile.corpus, self.profile.audio
        if key not in self._music:
            self._music[key] = read()
        return self._music[key]

    def _listed(self, kind: str, songs: Sequence[Track], skipped: Iterable[Skipped]) -> Sequence[Track]:
        self._list(kind, skipped)
        noted = [(song.name, song.note) for song in songs if song.note] if isinstance(songs, list) else []
        self._replace("adjusted", kind, pd.DataFrame(noted, columns=["song", "note"]))
        return songs

    def _list(self, kind: str, skipped: Iterable[Skipped]) -> None:
        """Put what was left out, and why, into ``tables/skipped.csv``.

        Files within the project's folder are named from there. ``tables/skipped_reasons.csv`` counts the files of every
        reason, numbers aside ("N s long, shorter than N s").
        """
        inside = f"{ROOT}/"
        rows = [(item.path.removeprefix(inside), item.reason) for item in skipped]
        self._replace("skipped", kind, pd.DataFrame(rows, columns=["file", "reason"]))

    def _replace(self, name: str, kind: str, rows: pd.DataFrame) -> None:
        """Put rows about a corpus into ``tables/NAME.csv`` in place of an earlier look at the same."""
        path = self.results / "tables" / f"{name}.csv"
        if rank() > 0:
            return
        with file_lock(self.results / "runs" / "skipped.lock"):
            table = rows.assign(corpus=kind)[["corpus", *rows]]
            if path.exists():
                others = tables.read_table(path)
                table = pd.concat([others[others["corpus"] != kind], table])
            elif name == "adjusted" and rows.empty:
                return
            table = table.sort_values(list(table)[:2], ignore_index=True)
            tables.write_table(path, table)
            if name == "skipped":
                table["reason"] = table["reason"].str.replace(r"\d+(\.\d+)?", "N", regex=True)
                counts = table.groupby(["corpus", "reason"]).size().rename("files").reset_index()
                tables.write_table(path.with_name("skipped_reasons.csv"), counts)

    # Model

    def samples(self, seconds: float) -> int:
        """``seconds`` as whole STFT hops, in samples."""
        audio = self.profile.audio
        return max(1, round(seconds * audio.rate / audio.hop)) * audio.hop

    @property
    def size(self) -> Size:
        """The size of the profile's model."""
        return SIZES[self.profile.model.size]

    def new_separator(self, sources: int, seed: int) -> Separator:
        """A separator of the profile's size with weights drawn from ``seed``."""
        front = {**dataclasses.asdict(self.profile.audio), "band_scale": self.profile.model.band_scale}
        return Separator.from_size(self.profile.model.size, sources, seed, dropout=self.profile.model.dropout, **front)

    # Tables

    def write(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write ``tables/NAME.csv`` and return the table."""
        tables.write_table(self.results / "tables" / f"{name}.csv", frame)
        return frame

    def read(self, name: str) -> pd.DataFrame:
        """Read ``tables/NAME.csv``. Raises: UserError if it is not there."""
        return tables.read_table(self.results / "tables" / f"{name}.csv")
