"""The stages of the study: every run of one profile, trained once and found again afterwards."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial, reduce
from itertools import chain
from operator import add

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lib import STEMS, UserError, corpora, scoring
from lib.compute import resolve_precision, start_fabric
from lib.corpora import Track, corpus_fingerprint, of_split, take
from lib.losses import assign, mixture_loss, stem_snr_loss
from lib.mixing import MixturesOfMixtures, StemMixtures, song_segments, validation_mixtures
from lib.model import SIZES, Separator, Size
from lib.outputs import Statistics, is_body, segment_statistics, shuffled, transfer
from lib.profile import Finetune, Profile, override, resolve
from lib.runs import Run, code_fingerprint, held
from lib.segments import mixture_manifest, stem_manifest
from lib.training import Task, fit

SCRATCH, EQUAL_COMPUTE, SHUFFLED = "scratch", "equal compute", "shuffled"
FROM_SCRATCH = (SCRATCH, EQUAL_COMPUTE)
TRAINING_CODE = (
    "model",
    "losses",
    "mixing",
    "segments",
    "outputs",
    "training",
    "stages",
    "audio",
    "corpora/tracks",
    "corpora/silence",
)
"""Modules whose code can change weights: their syntax is part of the hash of every run."""


class Study:
    """Everything one profile asks for. ``Study(profile)`` computes nothing until something is asked of it."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.results = resolve(profile.results)
        self.cache = self.results / "corpora"

    def variant(self, changes: Mapping[str, object] | None = None, **steps: int) -> Study:
        """The same study with dotted fields replaced, and with stages stretched to other ``steps`` (``pretrain=500``).

        Raises: UserError.
        """
        stretched = {stage: getattr(self.profile, stage).stretched(count) for stage, count in steps.items() if count}
        return Study(override(dataclasses.replace(self.profile, **stretched), changes or {}))

    # Corpora

    @cached_property
    def labeled(self) -> list[Track]:
        """All songs with stems; what could not be read is listed in ``tables/skipped.csv``."""
        return self._listed("labeled", *corpora.labeled(self.profile, self.cache))

    @cached_property
    def unlabeled(self) -> Sequence[Track]:
        """All songs without stems that the profile's fraction leaves."""
        tracks = self._listed("unlabeled", *corpora.unlabeled(self.profile, self.cache))
        if self.profile.corpus.unlabeled_fraction == 1:
            return tracks
        training = [track.name for track in tracks if track.split == "train"]
        count = round(len(training) * self.profile.corpus.unlabeled_fraction)
        order = np.random.default_rng([self.profile.corpus.rendered.seed, 1]).permutation(len(training))
        kept = {training[i] for i in order[:count]}
        return take(tracks, [i for i, track in enumerate(tracks) if track.split != "train" or track.name in kept])

    @cached_property
    def real_song(self) -> Track:
        """The one real song with stems that every profile separates (stempeg's example)."""
        return corpora.real_song(self.cache)

    def songs(self, split: str) -> list[Track]:
        """Labelled songs of ``train``, ``validation`` or ``test``. Raises: UserError if there are none."""
        found = [track for track in self.labeled if track.split == split]
        if not found:
            raise UserError(f"corpus.labeled: no {split} songs in '{self.profile.corpus.labeled}'; add some")
        return found

    def budget(self, count: int) -> list[Track]:
        """The first ``count`` training songs of a seeded order, so that larger budgets contain smaller ones.

        Raises: UserError if there are fewer.
        """
        songs = self.songs("train")
        if count > len(songs):
            raise UserError(f"finetune.labeled_songs: {count} songs asked for, the labelled corpus has {len(songs)}")
        order = np.random.default_rng([self.profile.corpus.rendered.seed, 0]).permutation(len(songs))
        return [songs[i] for i in sorted(order[:count])]

    def _listed(self, kind: str, tracks: Sequence[Track], skipped: Iterable[corpora.Skipped]) -> Sequence[Track]:
        self._list(kind, skipped)
        return tracks

    def _list(self, kind: str, skipped: Iterable[corpora.Skipped]) -> None:
        """Put what was left out, and why, into ``tables/skipped.csv`` in place of an earlier look at the same.

        ``tables/skipped_reasons.csv`` counts the files of every reason, numbers aside ("N s long, shorter than N s").
        """
        path = self.results / "tables" / "skipped.csv"
        with held(self.results / "runs" / "skipped.lock"):
            rows = [] if not path.exists() else scoring.read_table(path).to_dict("records")
            rows = [row for row in rows if row["corpus"] != kind]
            rows += [{"corpus": kind, "file": item.path, "reason": item.reason} for item in skipped]
            rows.sort(key=lambda row: (row["corpus"], row["file"]))
            table = pd.DataFrame(rows, columns=["corpus", "file", "reason"])
            scoring.write_table(path, table)
            table["reason"] = table["reason"].str.replace(r"\d+(\.\d+)?", "N", regex=True)
            counts = table.groupby(["corpus", "reason"]).size().rename("files").reset_index()
            scoring.write_table(path.with_name("skipped_reasons.csv"), counts)

    # Training

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

    def pretrain_run(self, seed: int | None = None) -> Run:
        """The run of `pretrain`, finished or not; nothing is trained."""
        stage = self.profile.pretrain
        seed = stage.seeds[0] if seed is None else seed
        identity = {"pretrain": dataclasses.replace(stage, seeds=()), "seed": seed}
        identity["corpus"] = corpus_fingerprint(list(chain(*self._unlabeled_splits())))
        return self._run("pretrain", identity, partial(self._pretrain, seed))

    def _unlabeled_splits(self) -> tuple[Sequence[Track], Sequence[Track]]:
        """Unlabelled songs to train on and to validate on: the same where none are held out."""
        training, held_out = (of_split(self.unlabeled, split) for split in ("train", "validation"))
        return training, held_out or training

    def pretrain(self, seed: int | None = None) -> Run:
        """MixIT pre-training on the unlabelled songs (arXiv 2006.12701; arXiv 2505.07631), from the first seed."""
        run = self.pretrain_run(seed)
        if not run.finished:
            run.train()
        return run

    def _pretrain(self, seed: int) -> None:
        profile, stage, run = self.profile, self.profile.pretrain, self.pretrain_run(seed)
        training, held_out = self._unlabeled_splits()
        samples = self.samples(stage.crop_seconds)
        manifests = [self._mixture_manifest(tracks) for tracks in (training, held_out)]
        facts = (samples, profile.audio.rate, seed, stage.level_db, stage.same_song)
        validation = validation_mixtures(stage.validation_moms, MixturesOfMixtures(held_out, manifests[1], *facts))
        loss = self._mixit_loss
        task = Task(
            self.new_separator(profile.model.sources, seed),
            MixturesOfMixtures(training, manifests[0], *facts),
            loss,
            lambda separator: _mean_loss(loss, separator, validation.split(stage.batch)),
        )
        label = f"MixIT pre-training, seed {seed}"
        fit(task, stage, run.begin(), seed, profile.compute, profile.corpus.workers, label)

    def _mixit_loss(self, separator: Separator, mixtures: Tensor) -> Tensor:
        rule = self.profile.pretrain.assignment
        return mixture_loss(separator(mixtures.sum(1), lambda estimates: assign(estimates, mixtures, rule)), mixtures)

    def pretraining_seed(self, seed: int) -> int:
        """The seed of the pre-training that supervised seed ``seed`` starts from."""
        seeds = self.profile.pretrain.seeds
        return seeds[seed % len(seeds)]

    def supervised_run(self, how: str, seed: int, labeled_songs: int) -> Run:
        """The run of `supervised`, finished or not; nothing is trained."""
        stage, from_scratch = self._schedule(how), how in FROM_SCRATCH
        start = {"from": SCRATCH}
        if not from_scratch:
            source = f"{how} {self.shuffled_transfer}" if how == SHUFFLED else how
            start = {"from": source, "pretrained": self.pretrain_run(self.pretraining_seed(seed)).name}
        shared = {"seeds": (), "labeled_songs": (), "transfers": (), "controls": (), "transfer_learning_rate": 0}
        identity = {
            "finetune": dataclasses.replace(stage, **shared),
            "seed": seed,
            "corpus": corpus_fingerprint([*self.budget(labeled_songs), *self.songs("validation")]),
            **start,
        }
        train = partial(self._supervise, how, seed, labeled_songs)
        return self._run("scratch" if from_scratch else "finetune", identity, train)

    def supervised(self, how: str, seed: int, labeled_songs: int) -> Run:
        """Supervised training: ``how`` is scratch, a transfer (see `lib.outputs`) or a control.

        *Equal compute* is scratch with the pre-training's compute as further steps at the full learning rate, before
        its decay; *shuffled* is fine-tuning from the profile's first transfer, its weights permuted within each tensor.
        """
        run = self.supervised_run(how, seed, labeled_songs)
        if not run.finished:
            run.train()
        return run

    def _supervise(self, how: str, seed: int, labeled_songs: int) -> None:
        profile, stage, run = self.profile, self._schedule(how), self.supervised_run(how, seed, labeled_songs)
        songs, held_out = self.budget(labeled_songs), self.songs("validation")
        samples, rate = self.samples(stage.crop_seconds), profile.audio.rate
        manifest = stem_manifest(songs, profile.corpus.activity_seconds, self.cache, profile.corpus.workers)
        self._list("labeled segments", manifest.skipped)
        task = Task(
            self._start(how, seed),
            StemMixtures(songs, manifest, samples, rate, seed, stage.gain_db, stage.silence_probability),
            _supervised_loss,
            lambda separator: _mean_loss(_supervised_loss, separator, _batches(held_out, samples, rate, stage.batch)),
            is_body,
            stage.body_rate,
        )
        label = f"{how}, {labeled_songs} songs, seed {seed}"
        fit(task, stage, run.begin(), seed, profile.compute, profile.corpus.workers, label)

    def _schedule(self, how: str) -> Finetune:
        stage = self.profile.finetune
        if how == SCRATCH:
            return stage
        if how == EQUAL_COMPUTE:
            return stage.lengthened(self.equivalent_steps)
        return dataclasses.replace(stage, learning_rate=stage.transfer_learning_rate or stage.learning_rate)

    @property
    def shuffled_transfer(self) -> str:
        """The transfer whose weights the control *shuffled* permutes: the first of the profile's."""
        return self.profile.finetune.transfers[0]

    def _start(self, how: str, seed: int) -> Separator:
        """The separator that a supervised training starts from."""
        if how in FROM_SCRATCH:
            return self.new_separator(len(STEMS), seed)
        pretrained = self.load(self.pretrain(self.pretraining_seed(seed)))
        statistics = partial(self.segment_statistics, "validation", pretrained)
        if how == SHUFFLED:
            return shuffled(transfer(pretrained, self.shuffled_transfer, statistics, seed), seed)
        return transfer(pretrained, how, statistics, seed)

    @cached_property
    def equivalent_steps(self) -> int:
        """Supervised steps from scratch that take as many floating-point operations as the whole pre-training."""
        sides = []
        for stage, sources, mixtures, loss in (
            (self.profile.pretrain, self.profile.model.sources, 2, self._mixit_loss),
            (self.profile.finetune, len(STEMS), len(STEMS), _supervised_loss),
        ):
            example = torch.rand(
                1, mixtures, 2, self.samples(stage.crop_seconds), generator=torch.Generator().manual_seed(0)
            )
            separator = self.new_separator(sources, 0)
            with FlopCounterMode(display=False) as counter:
                loss(separator, example).mean().backward()
            sides.append(stage.batch * counter.get_total_flops())
        return round(self.profile.pretrain.steps * sides[0] / sides[1])

    def load(self, run: Run) -> Separator:
        """The separator of a finished run, on the profile's device; trained again where its weights were not kept."""
        if not run.weights.exists():
            run.train()
        return Separator.from_pretrained(run.folder).to(start_fabric(self.profile.compute).device)

    def segment_statistics(self, split: str, separator: Separator) -> list[list[Statistics]]:
        """What the outputs of ``separator`` hold of every segment of each song of a split."""
        seconds = self.samples(self.profile.finetune.crop_seconds) / self.profile.audio.rate
        return [segment_statistics(separator, song, seconds) for song in self.songs(split)]

    def output_statistics(self, split: str, separator: Separator | None = None) -> list[Statistics]:
        """What the outputs hold (of ``separator``, by default the first pre-trained one) of each song of a split."""
        segments = self.segment_statistics(split, separator or self.load(self.pretrain()))
        return [reduce(add, song) for song in segments]

    def _mixture_manifest(self, tracks: Sequence[Track]):
        corpus = self.profile.corpus
        rules = (corpus.segment_seconds, corpus.segment_hop_seconds)
        manifest = mixture_manifest(tracks, *rules, self.cache, corpus.workers)
        self._list(f"unlabeled segments, {tracks[0].split}", manifest.skipped)
        return manifest

    def _run(self, stage: str, identity: dict, train: Callable[[], None]) -> Run:
        profile = self.profile
        general = {
            "audio": profile.audio,
            "model": profile.model if stage != "scratch" else dataclasses.replace(profile.model, sources=0),
            "segments": [profile.corpus.segment_seconds, profile.corpus.segment_hop_seconds],
            "activity": profile.corpus.activity_seconds,
            "precision": resolve_precision(profile.compute),
            "threads": profile.compute.threads,
            "torch": torch.__version__,
            "code": code_fingerprint(*TRAINING_CODE),
        }
        return Run.of(self.results, stage, {**general, **identity}, train if profile.compute.training else _refuse)

    # Tables

    def write(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Write ``tables/NAME.csv`` and return the table."""
        scoring.write_table(self.results / "tables" / f"{name}.csv", frame)
        return frame

    def read(self, name: str) -> pd.DataFrame:
        """Read ``tables/NAME.csv``. Raises: UserError if it is not there."""
        return scoring.read_table(self.results / "tables" / f"{name}.csv")


def _refuse() -> None:
    raise UserError("a run, or its weights, is not there, and compute.training=false: set it to true to train it")


def _batches(songs: list[Track], samples: int, rate: int, batch: int) -> Iterable[Tensor]:
    """All whole segments of the songs in batches [batch, 4, C, samples], one batch in memory at a time."""
    segments = (stems for _, stems in song_segments(songs, samples / rate, rate))
    while some := list(itertools.islice(segments, batch)):
        yield torch.stack(some)


def _supervised_loss(separator: Separator, stems: Tensor) -> Tensor:
    return stem_snr_loss(separator(stems.sum(1)), stems)


def _mean_loss(loss, separator: Separator, batches: Iterable[Tensor]) -> float:
    device = separator.window.device
    return torch.cat([loss(separator, batch.to(device)) for batch in batches]).mean().item()
