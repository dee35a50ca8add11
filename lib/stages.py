"""The stages of the study: every run of one profile, trained once and found again afterwards."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial, reduce
from itertools import chain
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lib import STEMS, UserError, corpora, launch, scoring
from lib.compute import first_alone, gathered, rank, ranks, resolve_precision, shared, start_fabric
from lib.corpora import Track, corpus_fingerprint, of_split, take
from lib.losses import assign, mixture_loss, stem_snr_loss
from lib.mixing import MixturesOfMixtures, StemMixtures, song_segments, validation_mixtures
from lib.model import SIZES, Separator, Size
from lib.outputs import Statistics, is_body, segment_statistics, shuffled, transfer
from lib.profile import ROOT, Finetune, Optimisation, Profile, override, resolve
from lib.runs import Run, code_fingerprint, file_digest, held
from lib.segments import mixture_manifest, stem_manifest
from lib.separate import separate
from lib.training import Task, fit, imported

SCRATCH, EQUAL_COMPUTE, SHUFFLED, LONG = "scratch", "equal compute", "shuffled", "long"
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
LATER_FIELDS = {"validate_on": "segments", "checkpoint": ""}
"""Fields that earlier runs did not have, and what they did: with these values they are no part of a run's hash."""
PRETRAINING = ("audio", "corpus", "model", "pretrain")
"""Sections of a profile that say what is pre-trained."""


class Study:
    """Everything one profile asks for. ``Study(profile)`` computes nothing until something is asked of it."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.results = resolve(profile.results)
        self.cache = self.results / "corpora"

    def variant(self, changes: Mapping[str, object] | None = None, **steps: int) -> Study:
        """The same study with dotted fields replaced, and with stages stretched to other ``steps`` (``pretrain=500``).

        A file stands for the profile's own pre-training, not for another one: that is trained.

        Raises: UserError.
        """
        stretched = {stage: getattr(self.profile, stage).stretched(count) for stage, count in steps.items() if count}
        changes = dict(changes or {})
        if "pretrain" in stretched or {key.split(".")[0] for key in changes} & set(PRETRAINING):
            changes = {"pretrain.checkpoint": "", **changes}
        return type(self)(override(dataclasses.replace(self.profile, **stretched), changes))

    # Corpora

    @cached_property
    def labeled(self) -> list[Track]:
        """All songs with stems; what could not be read is listed in ``tables/skipped.csv``."""
        return self._listed("labeled", *corpora.labeled(self.profile, self.cache))

    @cached_property
    def unlabeled(self) -> Sequence[Track]:
        """All songs without stems that the profile's fraction leaves."""
        kind = f"unlabeled, {self.profile.corpus.unlabeled}"
        tracks = self._listed(kind, *corpora.unlabeled(self.profile, self.cache))
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

        Files within the project's folder are named from there. ``tables/skipped_reasons.csv`` counts the files of every
        reason, numbers aside ("N s long, shorter than N s").
        """
        path = self.results / "tables" / "skipped.csv"
        if rank() > 0:
            return
        with held(self.results / "runs" / "skipped.lock"):
            rows = [] if not path.exists() else scoring.read_table(path).to_dict("records")
            rows = [row for row in rows if row["corpus"] != kind]
            inside = f"{ROOT}/"
            rows += [{"corpus": kind, "file": s.path.removeprefix(inside), "reason": s.reason} for s in skipped]
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
        if stage.checkpoint:
            identity = {"checkpoint": file_digest(self._checkpoint_file)}
            return Run.of(self.results, "pretrain", identity, self._import_checkpoint)
        seed = stage.seeds[0] if seed is None else seed
        identity = {"pretrain": _identifying(stage, seeds=()), "seed": seed, "corpus": self._unlabeled_content()}
        train = partial(self._pretrain, seed)
        return self._run("pretrain", identity, train, stage.batch, pretraining_words(seed))

    def _unlabeled_content(self) -> object:
        """What the unlabelled songs are, as a run's identity has it."""
        return corpus_fingerprint(list(chain(*self._unlabeled_splits())))

    def _labeled_content(self, count: int) -> object:
        """What the first ``count`` labelled songs and the validation songs are, as a run's identity has it."""
        return corpus_fingerprint([*self.budget(count), *self.songs("validation")])

    @property
    def _checkpoint_file(self) -> Path:
        """The file that stands for the pre-training. Raises: UserError if it is not there."""
        file = resolve(self.profile.pretrain.checkpoint)
        file = file / "model.safetensors" if file.is_dir() else file
        if not file.is_file():
            raise UserError(f"pretrain.checkpoint: no file {file}: name a .safetensors or a published .pth file")
        return file

    def _import_checkpoint(self) -> None:
        file = self._checkpoint_file
        separator = Separator.from_pretrained(file)
        config = {**separator.config(), "dropout": self.profile.model.dropout}
        wanted = self.new_separator(self.profile.model.sources, 0).config()
        if off := [key for key in wanted if config[key] != wanted[key]]:
            theirs, ours = (", ".join(f"{key} {of[key]}" for key in off) for of in (config, wanted))
            raise UserError(f"{file}: has {theirs}, the profile's model and audio say {ours}: set them to the file's")
        with first_alone():
            if rank() == 0:
                imported(Separator.from_config(config), separator, self.pretrain_run())

    def _unlabeled_splits(self) -> tuple[Sequence[Track], Sequence[Track]]:
        """Unlabelled songs to train on and to validate on: the same where none are held out."""
        training, held_out = (of_split(self.unlabeled, split) for split in ("train", "validation"))
        return training, held_out or training

    def pretrain(self, seed: int | None = None) -> Run:
        """MixIT pre-training on the unlabelled songs (arXiv 2006.12701; arXiv 2505.07631), from the first seed."""
        with first_alone():
            run = self.pretrain_run(seed)
        return _trained(run)

    def _pretrain(self, seed: int) -> None:
        profile, stage, run = self.profile, self.profile.pretrain, self.pretrain_run(seed)
        samples = self.samples(stage.crop_seconds)
        with first_alone():
            training, held_out = self._unlabeled_splits()
            manifests = [self._mixture_manifest(tracks) for tracks in (training, held_out)]
            _begin(run)
        facts = (samples, profile.audio.rate, seed, stage.level_db, stage.same_song)
        validation = validation_mixtures(stage.validation_moms, MixturesOfMixtures(held_out, manifests[1], *facts))
        loss = self.mixit_loss
        task = Task(
            self.new_separator(profile.model.sources, seed),
            MixturesOfMixtures(training, manifests[0], *facts),
            loss,
            lambda separator: _mean_loss(loss, separator, lambda: validation.split(stage.batch)),
        )
        label = f"MixIT pre-training, seed {seed}"
        fit(task, stage, run, seed, profile.compute, profile.corpus.workers, label)

    def mixit_loss(self, separator: Separator, mixtures: Tensor) -> Tensor:
        """The loss [B] of mixtures [B, 2, C, samples] by the profile's assignment."""
        rule = self.profile.pretrain.assignment
        return mixture_loss(separator(mixtures.sum(1), lambda estimates: assign(estimates, mixtures, rule)), mixtures)

    def pretraining_seed(self, seed: int) -> int:
        """The seed of the pre-training that supervised seed ``seed`` starts from."""
        seeds = self.profile.pretrain.seeds
        return seeds[seed % len(seeds)]

    def supervised_run(self, how: str, seed: int, labeled_songs: int) -> Run:
        """The run of `supervised`, finished or not; nothing is trained."""
        stage, from_scratch, profile = self.schedule(how), how in FROM_SCRATCH, self.profile
        start = {"from": SCRATCH}
        if not from_scratch:
            source = {SHUFFLED: f"{how} {self.first_transfer}", LONG: self.first_transfer}.get(how, how)
            start = {"from": source, "pretrained": self.pretrain_run(self.pretraining_seed(seed)).name}
        shared = {"seeds": (), "labeled_songs": (), "transfers": (), "controls": (), "transfer_learning_rate": 0}
        identity = {
            "finetune": _identifying(stage, **shared),
            "seed": seed,
            "corpus": self._labeled_content(labeled_songs),
            **start,
        }
        if stage.validate_on == "songs":
            identity["validation"] = [profile.separate, code_fingerprint("separate")]
        train = partial(self._supervise, how, seed, labeled_songs)
        words = supervised_words(how, seed, labeled_songs)
        return self._run("scratch" if from_scratch else "finetune", identity, train, stage.batch, words)

    def supervised(self, how: str, seed: int, labeled_songs: int) -> Run:
        """Supervised training: ``how`` is scratch, a transfer (see `lib.outputs`) or a control.

        *Equal compute* is scratch with the pre-training's compute as further steps at the full learning rate, before
        its decay; *shuffled* is fine-tuning from the profile's first transfer, its weights permuted within each tensor;
        *long* is that fine-tuning with as many steps as *equal compute*.
        """
        with first_alone():
            run = self.supervised_run(how, seed, labeled_songs)
        return _trained(run)

    def _supervise(self, how: str, seed: int, labeled_songs: int) -> None:
        profile, stage, run = self.profile, self.schedule(how), self.supervised_run(how, seed, labeled_songs)
        samples, rate = self.samples(stage.crop_seconds), profile.audio.rate
        with first_alone():
            songs, held_out = self.budget(labeled_songs), self.songs("validation")
            manifest = stem_manifest(songs, profile.corpus.activity_seconds, self.cache, profile.corpus.workers)
            self._list("labeled segments", manifest.skipped)
            _begin(run)
        validate = partial(_mean_loss, _supervised_loss, batches=lambda: _batches(held_out, samples, rate, stage.batch))
        if stage.validate_on == "songs":
            validate = partial(self._song_loss, held_out)
        task = Task(
            self._start(how, seed),
            StemMixtures(songs, manifest, samples, rate, seed, stage.gain_db, stage.silence_probability),
            _supervised_loss,
            validate,
            is_body,
            stage.body_rate,
        )
        label = f"{how}, {labeled_songs} songs, seed {seed}"
        fit(task, stage, run, seed, profile.compute, profile.corpus.workers, label)

    def _song_loss(self, songs: list[Track], separator: Separator) -> float:
        """Mean loss of whole songs, which the processes share among them, separated in overlapping windows."""
        settings, rate, losses = self.profile.separate, self.profile.audio.rate, []
        window, hop = (round(seconds * rate) for seconds in (settings.window_seconds, settings.hop_seconds))
        bf16 = resolve_precision(self.profile.compute) == "bf16-mixed"
        for song in songs[rank() :: ranks()]:
            stems = torch.from_numpy(song.stems(rate=rate))
            estimates = separate(separator, stems.sum(0), window, hop, settings.batch, bf16=bf16)
            losses.append(stem_snr_loss(estimates[None], stems[None]).item())
        return float(np.mean(list(chain(*gathered(losses)))))

    def schedule(self, how: str) -> Finetune:
        """The supervised schedule of an arm."""
        stage = self.profile.finetune
        if how in (EQUAL_COMPUTE, LONG):
            stage = stage.lengthened(self.equivalent_steps)
        if how in FROM_SCRATCH:
            return stage
        return dataclasses.replace(stage, learning_rate=stage.transfer_learning_rate or stage.learning_rate)

    @property
    def first_transfer(self) -> str:
        """The first of the profile's transfers: what the controls *shuffled* and *long* start from."""
        return self.profile.finetune.transfers[0]

    def _start(self, how: str, seed: int) -> Separator:
        """The separator that a supervised training starts from."""
        if how in FROM_SCRATCH:
            return self.new_separator(len(STEMS), seed)
        pretrained = self.load(self.pretrain(self.pretraining_seed(seed)))
        statistics = partial(self.segment_statistics, "validation", pretrained)
        if how == SHUFFLED:
            return shuffled(transfer(pretrained, self.first_transfer, statistics, seed), seed)
        return transfer(pretrained, self.first_transfer if how == LONG else how, statistics, seed)

    @cached_property
    def equivalent_steps(self) -> int:
        """Supervised steps from scratch that take as many floating-point operations as the whole pre-training."""
        stages = {name: getattr(self.profile, name) for name in ("pretrain", "finetune")}
        sides = [stage.batch * self.example_flops(name) for name, stage in stages.items()]
        return round(self.profile.pretrain.steps * sides[0] / sides[1])

    def example_flops(self, stage: str, samples: int = 0) -> int:
        """Floating-point operations that a step of ``pretrain`` or ``finetune`` takes for one example.

        Forward and backward, by default of a crop as long as the profile's.
        """
        samples = samples or self.samples(getattr(self.profile, stage).crop_seconds)
        sources, mixtures, loss = len(STEMS), len(STEMS), _supervised_loss
        if stage == "pretrain":
            sources, mixtures, loss = self.profile.model.sources, 2, self.mixit_loss
        example = torch.rand(1, mixtures, 2, samples, generator=torch.Generator().manual_seed(0))
        separator = self.new_separator(sources, 0)
        with FlopCounterMode(display=False) as counter:
            loss(separator, example).mean().backward()
        return counter.get_total_flops()

    def load(self, run: Run) -> Separator:
        """The separator of a finished run, on the profile's device; trained again where its weights were not kept."""
        if not shared(run.weights.exists()):
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
        self._list(f"unlabeled segments, {corpus.unlabeled}, {tracks[0].split}", manifest.skipped)
        return manifest

    def _run(self, stage: str, identity: dict, train: Callable[[], None], batch: int, words: tuple[str, ...]) -> Run:
        """A run; it is trained by ``train``, or, where there are several GPUs, by ``words`` to `lib.training`."""
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
        train = partial(launch.spread, profile, batch, words, train) if profile.compute.training else _refuse
        return Run.of(self.results, stage, {**general, **identity}, train)

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


def pretraining_words(seed: int) -> tuple[str, ...]:
    """What `lib.training` is told to pre-train."""
    return ("--stage", "pretrain", "--seed", str(seed))


def supervised_words(how: str, seed: int, labeled_songs: int) -> tuple[str, ...]:
    """What `lib.training` is told to train as `Study.supervised` does."""
    stage = ("--stage", how) if how in (*FROM_SCRATCH, SHUFFLED, LONG) else ("--stage", "finetune", "--transfer", how)
    return (*stage, "--seed", str(seed), "--songs", str(labeled_songs))


def _batches(songs: list[Track], samples: int, rate: int, batch: int) -> Iterable[Tensor]:
    """All whole segments of the songs in batches [batch, 4, C, samples], one batch in memory at a time."""
    segments = (stems for _, stems in song_segments(songs, samples / rate, rate))
    while some := list(itertools.islice(segments, batch)):
        yield torch.stack(some)


def _supervised_loss(separator: Separator, stems: Tensor) -> Tensor:
    return stem_snr_loss(separator(stems.sum(1)), stems)


def _mean_loss(loss, separator: Separator, batches: Callable[[], Iterable[Tensor]]) -> float:
    """Mean over the examples of all batches, which the processes share among them."""
    device = separator.window.device
    mine = itertools.islice(batches(), rank(), None, ranks())
    losses = [loss(separator, batch.to(device)) for batch in mine]
    if ranks() > 1:
        losses = [torch.tensor(list(chain(*gathered([value for part in losses for value in part.tolist()]))))]
    return torch.cat(losses).mean().item()


def _identifying(stage: Optimisation, **without: object) -> dict:
    """The fields of a stage that a run's identity holds, those in ``without`` as they are there."""
    fields = dataclasses.asdict(dataclasses.replace(stage, **without))
    return {name: value for name, value in fields.items() if LATER_FIELDS.get(name) != value}


def _trained(run: Run) -> Run:
    if not shared(run.finished):
        run.train()
    return run


def _begin(run: Run) -> None:
    if rank() == 0:
        run.begin()
