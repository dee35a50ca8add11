"""Every run of a study is a value: what it starts from, how long it trains, what identifies it, its name.

All that is decided between a profile and a training is decided here; `lib.pretrain` and `lib.finetune` decide nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from lib import STEMS, UserError, finetune, losses, mixing, pretrain, separate, training, transfer
from lib.data.segments import Manifest
from lib.data.tracks import Track, expect
from lib.machine import torchrun
from lib.machine.devices import cpu, resolve_precision
from lib.machine.distributed import broadcast, device, rank, rank_zero_first
from lib.mixing import Crops, MixturesOfMixtures, StemMixtures
from lib.model import checkpoints, separator
from lib.model.separator import Separator
from lib.profile.fields import TRANSFERS, Finetune, Pretrain, project_path
from lib.store.files import read_facts, write_json
from lib.store.fingerprints import LIB, file_digest, fingerprint
from lib.store.runs import Log, Run
from lib.study import Study
from lib.training import Task
from lib.transfer import Statistics, segment_statistics

SCRATCH, EQUAL_COMPUTE, SHUFFLED = "scratch", "equal compute", "shuffled"
STALLED, PRETRAINED_STALLED = "scratch until stalled", "pre-trained until stalled"
OF_OUTPUTS = ("sliced", "group", "frequent", "random")
"""Transfers that keep outputs of MixIT."""
FIRST = "first"
"""In place of a transfer: the profile's first one."""
NOT_IDENTIFYING = ("accumulate", "checkpoint_every")
"""Fields of a stage that change no result but by rounding: a run can move to a smaller card."""
OF_FILES = dict.fromkeys(("steps", "seconds", "waited_seconds", "skipped_steps", "audio_seconds", "peak_memory_mib"), 0)
"""What a run took whose weights come from a file."""


@dataclass(frozen=True)
class Arm:
    """A way to train with labels. ``transfer``: how the pre-trained outputs become stems, "" from scratch.

    ``longer``: as many further steps, at the full learning rate, as the pre-training's compute allows; all of them
    unless it is ``patient``: then it ends early where validation stalls (``finetune.patience``).
    ``shuffled``: the weights it starts from are permuted within each tensor, which leaves their statistics alone.
    """

    name: str
    transfer: str = ""
    longer: bool = False
    patient: bool = False
    shuffled: bool = False


ARMS = {
    SCRATCH: Arm("scratch"),
    EQUAL_COMPUTE: Arm("scratch, equal compute", longer=True),
    SHUFFLED: Arm("pre-trained, shuffled", FIRST, shuffled=True),
    STALLED: Arm("scratch, until it stalls", longer=True, patient=True),
    PRETRAINED_STALLED: Arm("pre-trained, until it stalls", FIRST, longer=True, patient=True),
    **{how: Arm(f"pre-trained ({how})", how) for how in TRANSFERS},
}
"""The arms, by what a profile calls them."""


def method_name(arm: str) -> str:
    """The name of an arm in every table and figure."""
    return ARMS[arm].name


def of_profile(study: Study) -> tuple[str, ...]:
    """Scratch, the controls and the transfers of a profile."""
    settings = study.profile.finetune
    return (SCRATCH, *settings.controls, *settings.transfers)


def pairs(study: Study) -> list[tuple[str, str]]:
    """(arm, arm that it is compared with): everything with scratch, every transfer with the controls too.

    The arms that train until they stall are compared with each other instead of with the transfers.
    """
    (first, *others), settings = of_profile(study), study.profile.finetune
    controls = [control for control in settings.controls if not ARMS[control].patient]
    found = [(arm, first) for arm in others] + [(arm, control) for arm in settings.transfers for control in controls]
    both = (PRETRAINED_STALLED, STALLED)
    return found + [both] * (set(both) <= set(settings.controls))


def origin(study: Study) -> Callable[[int], int]:
    """The seed of the pre-training that a supervised seed starts from."""
    seeds = study.profile.pretrain.seeds
    return lambda seed: seeds[seed % len(seeds)]


class Training:
    """One training of a study, not yet done or done: a value that can be sent to another process.

    A kind of training says its ``stage`` (the first word of its run's name), the ``section`` of the profile that it
    goes by, ``schedule``, ``identity``, ``label``, the ``arguments`` by which `lib.pipeline.train` trains it, the
    separator that it starts from (``start``) and its `lib.training.Task`.
    """

    @cached_property
    def run(self) -> Run:
        """Its run folder, finished or not; nothing is trained."""
        return Run.of(self.study.results, self.stage, self.identity)

    @property
    def step_flops(self) -> int:
        """Floating-point operations of a step, forward and backward; those of validation are not among them."""
        return self.schedule.batch * example_flops(self.study, self.section)

    def trained(self) -> Run:
        """Its run, trained now unless it is finished."""
        with rank_zero_first():
            run = self.run
        if not broadcast(run.finished):
            self._spread()
        return run

    def load(self) -> Separator:
        """Its separator, on the profile's device; trained again where a finished run's weights were not kept."""
        if not broadcast(self.trained().weights.exists()):
            self._spread()
        return checkpoints.load(self.run.folder).to(device(self.study.profile.compute))

    def _spread(self) -> None:
        """Train on all GPUs of this machine where there are several."""
        profile = self.study.profile
        if not profile.compute.training:
            raise UserError(
                "a run, or its weights, is not there, and compute.training=false: set it to true to train it"
            )
        torchrun.spread(profile, self.schedule.batch, self.arguments, self.train)

    def train(self) -> None:
        """Train it here, in this process."""
        task, profile = self.task(), self.study.profile
        if rank() == 0:
            self.run.begin()
        training.fit(task, self.schedule, self.run, self.seed, profile.compute, profile.corpus.workers, self.label)

    def _common(self, *computing: object) -> dict:
        """What identifies every training; ``computing`` are modules whose version counts."""
        profile, modules = self.study.profile, (separator, losses, mixing, training, *computing)
        return {
            "audio": profile.audio,
            "seed": self.seed,
            "precision": resolve_precision(profile.compute),
            "versions": {module.__name__.rpartition(".")[2]: module.VERSION for module in modules},
        }

    def _crops(self, songs: Sequence[Track], segments: Manifest) -> Crops:
        return Crops(songs, segments, self.study.samples(self.schedule.crop_seconds), self.study.profile.audio.rate)


@dataclass(frozen=True)
class Pretraining(Training):
    """MixIT on the unlabelled songs from one seed; or a file that stands for it (``pretrain.checkpoint``)."""

    study: Study
    seed: int
    stage = section = "pretrain"

    @property
    def schedule(self) -> Pretrain:
        return self.study.profile.pretrain

    @property
    def label(self) -> str:
        return f"{pretrain.NAMES.get(self.schedule.objective, self.schedule.objective)} pre-training, seed {self.seed}"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--stage", "pretrain", "--seed", str(self.seed))

    @cached_property
    def identity(self) -> dict:
        if self.schedule.checkpoint:
            return {"checkpoint": file_digest(self._file)}
        profile, corpus = self.study.profile, self.study.profile.corpus
        rules = [corpus.segment_seconds, corpus.segment_hop_seconds]
        return self._common() | {
            "pretrain": _identifying(self.schedule, "seeds", "checkpoint", *["objective"] * self.is_mixit),
            "model": profile.model,
            "segments": rules + ["whole tracks"] * corpus.drop_whole_track,
            "corpus": self.study.unlabeled_content(),
        }

    @property
    def is_mixit(self) -> bool:
        return self.schedule.objective == "mixit"

    def start(self) -> Separator:
        outputs = pretrain.OUTPUTS.get(self.schedule.objective, self.study.profile.model.sources)
        return self.study.new_separator(outputs, self.seed)

    def train(self) -> None:
        """Train it here, in this process, unless a file stands for it."""
        return self._import() if self.schedule.checkpoint else super().train()

    def task(self) -> Task:
        with rank_zero_first():
            songs = self.study.unlabeled_splits()
            segments = [self.study.mixture_segments(some) for some in songs]
        facts = self.seed, self.schedule.level_db, self.schedule.same_song
        examples = [MixturesOfMixtures(self._crops(*pair), *facts) for pair in zip(songs, segments, strict=True)]
        return pretrain.task(self.start(), *examples, self.schedule)

    @property
    def _file(self) -> Path:
        """The file that stands for the pre-training. Raises: UserError if it is not there."""
        file = project_path(self.schedule.checkpoint)
        file = file / "model.safetensors" if file.is_dir() else file
        if not file.is_file():
            raise UserError(f"pretrain.checkpoint: no file {file}: name a .safetensors or a published .pth file")
        return file

    def _import(self) -> None:
        """Finish the run without a step: the file's weights, with the profile's dropout."""
        given = checkpoints.load(self._file)
        theirs = {**given.config(), "dropout": self.study.profile.model.dropout}
        ours = self.start().config()
        if off := [key for key in ours if theirs[key] != ours[key]]:
            found, expected = (", ".join(f"{key} {of[key]}" for key in off) for of in (theirs, ours))
            raise UserError(
                f"{self._file}: has {found}, the profile's model and audio say {expected}: set them to the file's"
            )
        with rank_zero_first():
            if rank() == 0:
                self._finish(Separator.from_config(theirs), given)

    def _finish(self, empty: Separator, given: Separator) -> None:
        empty.load_state_dict(given.state_dict())
        self.run.begin()
        Log(self.run.folder / "log.csv", 0).close()
        checkpoints.save(empty, self.run.weights)
        facts = {"best_validation_loss": None, "averaged_steps": [], "cpu": cpu()}
        self.run.finish(**OF_FILES, **facts, weights=file_digest(self.run.weights))


@dataclass(frozen=True)
class Finetuning(Training):
    """Supervised training of one arm of `ARMS` from one seed with the first ``songs`` labelled songs."""

    study: Study
    arm: str
    seed: int
    songs: int
    section = "finetune"

    @property
    def kind(self) -> Arm:
        return ARMS[self.arm]

    @property
    def stage(self) -> str:
        return "finetune" if self.kind.transfer else "scratch"

    @property
    def method(self) -> str:
        """The arm's name in tables and figures."""
        return self.kind.name

    @property
    def label(self) -> str:
        return f"{self.arm}, {self.songs} songs, seed {self.seed}"

    @property
    def transfer(self) -> str:
        """How the pre-trained outputs become stems; "" from scratch."""
        return self.study.profile.finetune.transfers[0] if self.kind.transfer == FIRST else self.kind.transfer

    @cached_property
    def pretraining(self) -> Pretraining | None:
        """The pre-training that it starts from, if any."""
        return Pretraining(self.study, origin(self.study)(self.seed)) if self.kind.transfer else None

    @property
    def schedule(self) -> Finetune:
        stage = self.study.profile.finetune
        if self.kind.longer:
            stage = stage.lengthened(equivalent_steps(self.study))
            stage = stage if self.kind.patient else dataclasses.replace(stage, patience=0)
        if not self.kind.transfer:
            return dataclasses.replace(stage, frozen_blocks=False)
        return dataclasses.replace(stage, learning_rate=stage.transfer_learning_rate or stage.learning_rate)

    @property
    def arguments(self) -> tuple[str, ...]:
        how = ("finetune", "--transfer", self.arm) if self.arm in TRANSFERS else (self.arm,)
        fold = () if self.study.fold is None else ("--fold", str(self.study.fold))
        return ("--stage", *how, "--seed", str(self.seed), "--songs", str(self.songs), *fold)

    @cached_property
    def identity(self) -> dict:
        profile, stage, pretrained = self.study.profile, self.schedule, bool(self.kind.transfer)
        by_songs = stage.validate_on == "songs"
        without = ("seeds", "labeled_songs", "transfers", "controls", "transfer_learning_rate", "frozen_blocks")
        model = dataclasses.asdict(profile.model)
        if not pretrained:
            del model["sources"]
        identity = self._common(*[separate] * by_songs, *[transfer] * pretrained) | {
            "finetune": _identifying(stage, *without, "validation_from_budget"),
            "model": model,
            "activity": profile.corpus.activity_seconds,
            "corpus": self.study.labeled_content(self.songs),
            "from": f"{'shuffled ' * self.kind.shuffled}{self.transfer}" or SCRATCH,
        }
        identity |= {"separate": profile.separate} if by_songs else {}
        identity |= {"frozen": "blocks"} if stage.frozen_blocks else {}
        return identity | ({"pretrained": self.pretraining.run.name} if pretrained else {})

    def start(self) -> Separator:
        if not self.kind.transfer:
            return self.study.new_separator(len(STEMS), self.seed)
        if self.transfer in OF_OUTPUTS and not self.pretraining.is_mixit:
            raise UserError(
                f"transfer '{self.transfer}' chooses among the outputs of MixIT, which pretrain.objective="
                f"{self.pretraining.schedule.objective} does not train: use body, blocks or encoder"
            )
        pretrained = self.pretraining.load()
        held_out = self.study.labeled_splits(self.songs)[1]
        statistics = partial(validation_statistics, self.study, pretrained, held_out)
        begun = transfer.transfer(pretrained, self.transfer, statistics, self.seed)
        return transfer.shuffled(begun, self.seed) if self.kind.shuffled else begun

    def task(self) -> Task:
        stage, study = self.schedule, self.study
        with rank_zero_first():
            songs, held_out = study.labeled_splits(self.songs)
            segments = study.stem_segments(songs)
        crops = self._crops(songs, segments)
        examples = StemMixtures(crops, self.seed, stage.gain_db, stage.silence_probability)
        if stage.validate_on == "songs":
            validate = finetune.song_loss(held_out, crops.rate, partial(whole_song, study))
        else:
            validate = finetune.segment_loss(held_out, crops.samples, crops.rate, stage.part)
        return finetune.task(self.start(), examples, validate, stage)


def whole_song(study: Study, model: Separator, mixture: Tensor, mixture_consistency: bool = False, progress=False):
    """The estimates [S, C, T] of a song [C, T], in windows as the profile says; ``progress`` as in `lib.separate`."""
    settings, rate = study.profile.separate, study.profile.audio.rate
    window, hop = (round(seconds * rate) for seconds in (settings.window_seconds, settings.hop_seconds))
    bf16 = resolve_precision(study.profile.compute) == "bf16-mixed"
    options = {"mixture_consistency": mixture_consistency, "bf16": bf16, "progress": progress}
    return separate.separate(model, mixture, window, hop, settings.batch, **options)


def validation_statistics(study: Study, model: Separator, songs: list[Track]) -> list[list[Statistics]]:
    """What the outputs of ``model`` hold of every segment of each validation song: all that choices may look at."""
    seconds = study.samples(study.profile.finetune.crop_seconds) / study.profile.audio.rate
    expect(songs, "validation")
    return [segment_statistics(model, song, seconds) for song in songs]


def equivalent_steps(study: Study) -> int:
    """Supervised steps from scratch that take as many floating-point operations as the whole pre-training."""
    whole, scratch = Pretraining(study, 0), Finetuning(study, SCRATCH, 0, 1)
    return round(whole.schedule.steps * whole.step_flops / scratch.step_flops)


def example_flops(study: Study, section: str) -> int:
    """Floating-point operations of a step of ``pretrain`` or ``finetune`` for one example, forward and backward."""
    profile = study.profile
    samples = study.samples(getattr(profile, section).crop_seconds)
    asked = (profile.pretrain.objective, profile.pretrain.assignment) if section == "pretrain" else ()
    return _known_flops(study.results / "runs", profile.audio, profile.model, samples, *asked)


@functools.cache
def _known_flops(runs: Path, *counted: object) -> int:
    """`_example_flops`, kept in a results folder that has runs: counting takes seconds, and names of runs need it."""
    kept, sources = runs / "flops.json", (*(LIB / "model").glob("*.py"), LIB / "losses.py", LIB / "training.py")
    key = fingerprint([*counted, sorted(map(file_digest, sources))])
    known = read_facts(kept) if kept.exists() else {}
    if key not in known:
        known[key] = _example_flops(*counted)
        if runs.is_dir():
            write_json(kept, known)
    return known[key]


def _example_flops(audio, model, samples: int, objective: str = "", assignment: str = "") -> int:
    """With an ``objective``, of a pre-training."""
    sources, mixtures, loss = len(STEMS), len(STEMS), training.supervised
    if objective:
        sources, mixtures = pretrain.OUTPUTS.get(objective, model.sources), 2
        loss = pretrain.objective(Pretrain(objective=objective, assignment=assignment))
    front = {**dataclasses.asdict(audio), "band_scale": model.band_scale, "dropout": model.dropout}
    return training.example_flops(lambda: Separator.from_size(model.size, sources, **front), loss, mixtures, samples)


def _identifying(stage: Pretrain | Finetune, *without: str) -> dict:
    """The fields of a stage that can change the result of one run."""
    fields = dataclasses.asdict(stage)
    return {name: value for name, value in fields.items() if name not in (*NOT_IDENTIFYING, *without)}
