"""A profile: every number of a study in nested frozen dataclasses, each with its unit and its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, Strict, with_config
from pydantic.fields import FieldInfo

from lib import ROOT, STEMS, UserError

PROFILES = ROOT / "notebooks" / "profiles"
RENDERED, ARRANGED, MUSDB, FMA = "rendered", "arranged", "musdb18hq", "fma:"
"""Sources of music that are named: made here, and published data sets (``fma:small`` and so on)."""
RECORDED, STEMMED = ("debian", "debian-more"), ("everythingisremixed", "mdb")
"""Sources of recorded music that are fetched (`lib.data.sources`): in the wild, and songs with stems."""
EMBEDDED = "TimGM6mb"
"""The sound font that comes with the packages."""


def is_named(source: str) -> bool:
    """Whether a source of music goes by its name, as against a folder."""
    return source in (RENDERED, ARRANGED, MUSDB, *RECORDED, *STEMMED) or source.startswith(FMA)


def parts_of(source: str) -> tuple[str, ...]:
    """The sources that a text joins by " + ". A folder may have one in its name: the longest that exists counts."""
    words, parts = source.split(" + "), []
    while words:
        joined = ((count, " + ".join(words[:count]).strip()) for count in range(len(words), 0, -1))
        count, part = next((n, name) for n, name in joined if n == 1 or _is_folder(name))
        parts, words = [*parts, part], words[count:]
    return tuple(parts)


def _is_folder(name: str) -> bool:
    try:
        return project_path(name).is_dir()
    except (UserError, OSError):
        return False


def must(fits: Callable, problem: str, validator: type = AfterValidator) -> AfterValidator | BeforeValidator:
    """A rule beyond bounds: ``problem`` says what is wrong with a "{value}" that does not fit."""

    def checked(value: object) -> object:
        if not fits(value):
            raise ValueError(problem)
        return value

    return validator(checked)


def doc(description: str, **bounds: float) -> FieldInfo:
    """What the JSON schema says of a field, and bounds beyond those of its type."""
    return Field(description=description, **bounds)


ModelSize = Literal["nano", "tiny", "mini", "compact", "small", "medium", "large"]
Transfer = Literal["body", "sliced", "group", "frequent", "random", "blocks", "encoder"]
Objective = Literal["mixit", "mixpit", "denoising", "reconstruction"]
Control = Literal["equal compute", "shuffled", "scratch until stalled", "pre-trained until stalled"]
Precision = Literal["32-true", "bf16-mixed", "auto"]
FmaSubset = Literal["small", "medium", "large", "full"]
Question = Literal["target", "suppression", "artefacts"]
Primary = Literal["uSDR", "uSDR per channel"]
TRANSFERS, CONTROLS, PRECISIONS = get_args(Transfer), get_args(Control), get_args(Precision)
FMA_SUBSETS, QUESTIONS = get_args(FmaSubset), get_args(Question)
FMA_SETS = tuple(FMA + subset for subset in FMA_SUBSETS)

MOST, DAY = 10**9, 86_400
"""What no study exceeds: 10^9 of anything, and a day of audio at once, in seconds."""
# strict: YAML has types, so neither "3" nor true nor 3.0 stands for 3
Flag, Whole, Real = Annotated[bool, Strict()], Annotated[int, Strict()], Annotated[float, Strict()]
CountOrZero = Annotated[Whole, Field(ge=0, le=MOST)]
Count = Annotated[Whole, Field(gt=0, le=MOST)]
Folds = Annotated[Whole, Field(ge=0, le=1000), must(lambda count: count != 1, "must be 0, or 2 or more")]
BatchSize = Annotated[Whole, Field(gt=0, le=1 << 16)]
Processes = Annotated[Whole, Field(ge=0, le=1024)]
ShareOrZero = Annotated[Real, Field(ge=0, le=1)]
Share = Annotated[Real, Field(gt=0, le=1)]
Probability = Annotated[Real, Field(ge=0, le=0.9)]
Seconds = Annotated[Real, Field(gt=0, le=DAY)]
HopSeconds = Annotated[Real, Field(ge=0.05, le=DAY)]

TextOrEmpty = Annotated[str, Strict(), must(str.isprintable, "holds control characters or invalid UTF-8")]
Text = Annotated[TextOrEmpty, Field(min_length=1)]
Word = Annotated[
    Text, must(lambda name: Path(name).name == name and name.strip("."), "must be a word, not a path: {value}")
]


def _as_text(value: object) -> object:
    return " + ".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value


_joined = BeforeValidator(_as_text)
_text_or_list = Field(json_schema_extra={"type": ["string", "array"], "items": {"type": "string"}})
_have_stems = (
    _joined,
    _text_or_list,
    must(lambda source: FMA not in source, "cannot be FMA, which has no stems"),
    must(lambda source: not {*parts_of(source)} & {*RECORDED}, "cannot be {value}, which has no stems"),
)
Labeled = Annotated[Text, *_have_stems]
Tested = Annotated[
    TextOrEmpty,
    *_have_stems,
    must(lambda source: not {*parts_of(source)} & {RENDERED, ARRANGED}, "cannot be {value}: name songs on the disk"),
]
Unlabeled = Annotated[
    Text,
    _joined,
    _text_or_list,
    must(lambda source: MUSDB not in parts_of(source), f"cannot be {MUSDB}, whose stems would be taken for songs"),
    must(lambda source: not {*parts_of(source)} & {*STEMMED}, "cannot be {value}, for stems are no songs"),
    must(
        lambda source: source in FMA_SETS or not any(part.startswith(FMA) for part in parts_of(source)),
        f"must be one of {', '.join(FMA_SETS)}, alone, or folders and rendered, not {{value}}",
    ),
]

Item = TypeVar("Item")
# YAML has sets too, which come in no order
_ordered = must(lambda items: isinstance(items, list | tuple), "must be a list, not {value}", BeforeValidator)
_distinct = must(lambda items: len(set(items)) == len(items), "names something twice: {value}")
_unique = Field(json_schema_extra={"uniqueItems": True})
Listed = Annotated[tuple[Item, ...], _ordered]
DistinctOrEmpty = Annotated[tuple[Item, ...], _ordered, _distinct, _unique]
Distinct = Annotated[tuple[Item, ...], Field(min_length=1), _ordered, _distinct, _unique]
Decibels = Annotated[Real, Field(ge=-200, le=200)]
_ascending = must(lambda pair: pair[0] <= pair[1], "must be [low, high], not {value}")
DecibelRange = Annotated[tuple[Decibels, ...], Field(min_length=2, max_length=2), _ordered, _ascending]


@dataclass(frozen=True)
class Audio:
    """Front end."""

    rate: Annotated[Whole, doc("sample rate in Hz", ge=1000, le=192_000)] = 44100
    n_fft: Annotated[Whole, doc("FFT size in samples", ge=16, le=16_384)] = 2048
    hop: Annotated[Count, doc("hop in samples, at most a third of the FFT size")] = 512


@dataclass(frozen=True)
class Rendered:
    """The embedded corpus: songs that are composed and rendered."""

    seed: Annotated[CountOrZero, doc("seed of all songs")] = 0
    song_seconds: Annotated[Real, doc("length of a song in seconds", ge=1, le=DAY)] = 20.0
    train_songs: Annotated[Count, doc("labelled training songs")] = 8
    validation_songs: Annotated[Count, doc("labelled validation songs")] = 4
    test_songs: Annotated[Count, doc("labelled test songs")] = 12
    unlabeled_songs: Annotated[Count, doc("unlabelled mixtures")] = 240
    redealt: Annotated[Flag, doc("stems of an unlabelled mixture come from four songs of unlike key and tempo")] = False
    single_share: Annotated[ShareOrZero, doc("share of the unlabelled mixtures that hold one stem alone")] = 0.0


@dataclass(frozen=True)
class Arranged(Rendered):
    """People's compositions: MIDI files that are played stem by stem with any sound fonts."""

    song_seconds: Annotated[Real, doc("length of an excerpt in seconds; shorter songs are left out", ge=2, le=1200)] = (
        30.0
    )
    train_songs: Annotated[Count, doc("labelled training songs")] = 24
    midi: Annotated[Distinct[Text], doc("folders of MIDI files")] = ("data/midi",)
    fonts: Annotated[Distinct[Text], doc("SF2 or SF3 files; TimGM6mb: the embedded one")] = (EMBEDDED,)


@dataclass(frozen=True)
class Corpus:
    """Where the music comes from, and the rules that cut it into segments."""

    labeled: Annotated[
        Labeled, doc('rendered, arranged, musdb18hq, mdb, folders; several as a list, or joined by " + "')
    ] = "rendered"
    tested: Annotated[
        Tested, doc("musdb18hq, mdb, folders: songs with stems to test on; empty: labelled ones of their own")
    ] = ""
    unlabeled: Annotated[
        Unlabeled, doc("fma:SUBSET, or rendered, arranged, debian and folders; several as labeled")
    ] = "rendered"
    rendered: Rendered = field(default_factory=Rendered)
    arranged: Arranged = field(default_factory=Arranged)
    fma_subset: Annotated[FmaSubset, doc("subset that is read of a folder of FMA")] = "large"
    fma_root: Annotated[Text, doc("folder of FMA")] = "data/fma"
    musdb_root: Annotated[Text, doc("folder of MUSDB18-HQ")] = "data/musdb18hq"
    sources_root: Annotated[Text, doc("folder of other music that is fetched by name")] = "data"
    download: Annotated[Flag, doc("fetch what is missing of music that goes by its name")] = False
    unlabeled_fraction: Annotated[Share, doc("share of the unlabelled songs that is used")] = 1.0
    validation_songs: Annotated[Count, doc("validation songs, of a fold or where MUSDB18's own are absent")] = 4
    folds: Annotated[Folds, doc("groups that labelled songs are tested in, once each; 0: the corpus's own splits")] = 0
    segment_seconds: Annotated[Seconds, doc("length of a segment in seconds")] = 10.0
    segment_hop_seconds: Annotated[HopSeconds, doc("from one segment to the next in seconds")] = 5.0
    drop_whole_track: Annotated[Flag, doc("one half silent segment drops an unlabelled song whole")] = False
    activity_seconds: Annotated[Real, doc("window of the activity rule in seconds", ge=0.5, le=DAY)] = 8.0
    workers: Annotated[Processes, doc("processes that read audio; 0: the training's own")] = 2

    @property
    def music(self) -> dict[str, tuple[str, ...]]:
        """The fields that name music, each with the sources that it joins by " + "."""
        return {key: parts_of(getattr(self, key)) for key in ("labeled", "tested", "unlabeled") if getattr(self, key)}

    @property
    def unlabeled_parts(self) -> tuple[str, ...]:
        """The sources of ``unlabeled``."""
        return self.music["unlabeled"]

    def recipe_of(self, source: str) -> Rendered | None:
        """The settings of music that is made here; None for other sources."""
        return {RENDERED: self.rendered, ARRANGED: self.arranged}.get(source)

    def folder_of(self, source: str) -> Path | None:
        """The folder of what ``labeled`` or a part of ``unlabeled`` names; None for music that is made here."""
        if self.recipe_of(source):
            return None
        if source in (*RECORDED, *STEMMED):
            return project_path(self.sources_root) / source
        return project_path({MUSDB: self.musdb_root}.get(source, self.fma_root if source.startswith(FMA) else source))


@dataclass(frozen=True)
class Model:
    """The separator."""

    size: Annotated[ModelSize, doc("a size of lib.model.SIZES")] = "small"
    sources: Annotated[Whole, doc("outputs N of MixIT pre-training; four become stems", ge=4, le=16)] = 12
    dropout: Annotated[Probability, doc("dropout probability")] = 0.1
    band_scale: Annotated[Real, doc("widths of the bands, relative to BS-RoFormer's", ge=0.25, le=64)] = 1.0


@dataclass(frozen=True)
class Optimisation:
    """One training stage.

    With ``patience``, the decay begins early once so many validations in a row brought no new lowest loss, and
    training ends after as many steps of decay as there were to be.
    """

    steps: Annotated[Count, doc("optimiser steps")] = 1000
    batch: Annotated[BatchSize, doc("examples a step")] = 8
    accumulate: Annotated[BatchSize, doc("parts in which a step's batch is computed, to save memory")] = 1
    crop_seconds: Annotated[Seconds, doc("length of an example in seconds, at most a segment's")] = 6.0
    learning_rate: Annotated[ShareOrZero, doc("peak learning rate; 0: that of the model's size")] = 0.0
    warmup_steps: Annotated[CountOrZero, doc("steps of linear warm-up")] = 100
    decay_factor: Annotated[Share, doc("factor of the learning rate at each decay")] = 0.98
    decay_every: Annotated[Count, doc("steps from one decay to the next")] = 1000
    decay_start: Annotated[CountOrZero, doc("step from which the learning rate decays")] = 0
    weight_decay: Annotated[Real, doc("weight decay of AdamW", ge=0, le=MOST)] = 0.01
    clip_norm: Annotated[Real, doc("norm to which gradients are clipped", gt=0, le=MOST)] = 5.0
    validate_every: Annotated[Count, doc("steps from one validation to the next")] = 100
    average_best: Annotated[Count, doc("checkpoints of lowest validation loss whose weights are averaged")] = 5
    checkpoint_every: Annotated[Count, doc("steps from one checkpoint to resume from to the next")] = 100
    patience: Annotated[CountOrZero, doc("validations without a new lowest loss that begin the decay; 0: off")] = 0

    @property
    def part(self) -> int:
        """Examples that are computed at a time."""
        return math.ceil(self.batch / self.accumulate)

    def lengthened(self, steps: int) -> Optimisation:
        """The same schedule with ``steps`` more at the full learning rate, before the decay."""
        return replace(self, steps=self.steps + steps, decay_start=self.decay_start + steps)

    def decaying_from(self, step: int) -> Optimisation:
        """The same schedule with its decay begun at ``step``."""
        return replace(self, steps=step + self.steps - self.decay_start, decay_start=step)

    def stretched(self, steps: int) -> Optimisation:
        """The same schedule, with as many validations, over another number of steps; the warm-up stays as it is."""
        old = {name: getattr(self, name) for name in ("decay_start", "decay_every", "validate_every")}
        scaled = {name: max(min(1, value), round(value * steps / self.steps)) for name, value in old.items()}
        return replace(self, steps=steps, **scaled)


@dataclass(frozen=True)
class Pretrain(Optimisation):
    """MixIT pre-training on mixtures of mixtures (MoMs)."""

    checkpoint: Annotated[TextOrEmpty, doc("file of a separator to use instead of pre-training; empty: none")] = ""
    seeds: Annotated[
        Distinct[CountOrZero], doc("a model each; supervised seed s takes number s modulo their count")
    ] = (0,)
    objective: Annotated[Objective, doc("what is asked of pairs of mixtures: see lib.pretrain")] = "mixit"
    same_song: Annotated[Flag, doc("the two mixtures are passages of one song")] = False
    level_db: Annotated[DecibelRange, doc("[low, high] of the two mixtures' level ratio in dB")] = (-5.0, 5.0)
    assignment: Annotated[Literal["exact", "least_squares"], doc("how outputs are assigned to mixtures")] = "exact"
    validation_moms: Annotated[Count, doc("MoMs of the validation loss")] = 32


@dataclass(frozen=True)
class Finetune(Optimisation):
    """Supervised training on stems, of arms that start pre-trained and from scratch."""

    validate_on: Annotated[Literal["segments", "songs"], doc("crops of segments, or whole songs")] = "segments"
    transfer_learning_rate: Annotated[ShareOrZero, doc("learning rate of pre-trained arms; 0: learning_rate")] = 0.0
    body_rate: Annotated[ShareOrZero, doc("learning rate of encoder and blocks relative to the decoders'")] = 1.0
    seeds: Annotated[Distinct[CountOrZero], doc("a training of every arm each")] = (0, 1, 2)
    labeled_songs: Annotated[Distinct[Count], doc("budgets: numbers of labelled training songs")] = (8,)
    transfers: Annotated[Distinct[Transfer], doc("how MixIT outputs become stems")] = ("group",)
    controls: Annotated[DistinctOrEmpty[Control], doc("further arms for comparison")] = ()
    gain_db: Annotated[DecibelRange, doc("dynamic mixing: [low, high] of a stem's gain in dB")] = (-10.0, 10.0)
    silence_probability: Annotated[Probability, doc("dynamic mixing: probability that a stem is silent")] = 0.05
    frozen_blocks: Annotated[Flag, doc("pre-trained arms keep their blocks; encoder and decoders learn")] = False
    validation_from_budget: Annotated[
        Flag, doc("a quarter of a budget validates, in place of the validation songs: see lib.data.folds.of_budget")
    ] = False


@dataclass(frozen=True)
class Separate:
    """Separating whole songs in overlapping windows."""

    window_seconds: Annotated[Real, doc("length of a window in seconds", ge=0.1, le=DAY)] = 12.0
    hop_seconds: Annotated[HopSeconds, doc("from one window to the next in seconds, at most a window's")] = 6.0
    batch: Annotated[BatchSize, doc("windows at a time")] = 4
    mixture_consistency: Annotated[Flag, doc("spread what the stems lack of the mixture over them")] = False


@dataclass(frozen=True)
class Scoring:
    """What is measured of whole songs, beside uSDR in both conventions and cSDR, and what decides."""

    primary: Annotated[Primary, doc("the metric of the claims; see lib.scoring")] = "uSDR"
    bss_eval: Annotated[Flag, doc("ISR, SIR, SAR of final models by museval: 10 CPU seconds or more a song")] = False


@dataclass(frozen=True)
class Protocol:
    """What the numbers of pre-trainings and seeds are planned for, before any test song is scored."""

    smallest_effect: Annotated[Real, doc("smallest difference of interest in dB", gt=0, le=20)] = 0.2
    power: Annotated[Real, doc("probability that smallest_effect is shown", gt=0, le=0.999)] = 0.8


@dataclass(frozen=True)
class Regime:
    """What is chosen on validation songs before the claim is tested: a search of schedules, and a map of the gain.

    Either trains every combination of its lists, pre-trained and from scratch; an empty list leaves it out.
    """

    seeds: Annotated[Distinct[CountOrZero], doc("seeds of search and map")] = (0,)
    transfers: Annotated[Distinct[Transfer], doc("search: transfers; the map takes the first")] = ("body",)
    learning_rates: Annotated[DistinctOrEmpty[Share], doc("search: peak learning rates")] = ()
    steps: Annotated[DistinctOrEmpty[Count], doc("search: steps of fine-tuning")] = ()
    body_rates: Annotated[Distinct[Share], doc("search: body_rate of fine-tuning")] = (1.0,)
    searched_songs: Annotated[DistinctOrEmpty[Count], doc("search: numbers of labelled training songs")] = ()
    pretrain_steps: Annotated[DistinctOrEmpty[CountOrZero], doc("map: steps of pre-training; 0: pretrain.steps")] = ()
    labeled_songs: Annotated[DistinctOrEmpty[Count], doc("map: numbers of labelled training songs")] = ()


@dataclass(frozen=True)
class Probes:
    """What is pre-trained beside the base for the probes."""

    seeds: Annotated[Distinct[CountOrZero], doc("seeds of all trainings that are compared")] = (0,)
    redealt: Annotated[Flag, doc("pre-train on re-dealt songs too")] = True
    same_song: Annotated[Flag, doc("pre-train on mixtures of two passages of one song too")] = True


@dataclass(frozen=True)
class Level:
    """One level of an ablation axis."""

    label: Annotated[Text, doc("name of the level")]
    set: Annotated[dict[str, JsonValue], doc("values by dotted field, unlike the base's")] = field(default_factory=dict)
    transfer: Annotated[Literal["", "scratch", Transfer], doc("scratch: none; empty: that of the ablations")] = ""


@dataclass(frozen=True)
class Axis:
    """One axis of the ablations."""

    name: Annotated[Text, doc("name of the axis")]
    base: Annotated[Text, doc("label of the level that equals the base")]
    levels: Annotated[Listed[Level], doc("levels with distinct labels, the base among them")]


@dataclass(frozen=True)
class Ablations:
    """One axis at a time around the base."""

    seeds: Annotated[Distinct[CountOrZero], doc("seeds of every level")] = (0,)
    transfer: Annotated[Transfer, doc("how MixIT outputs become stems")] = "group"
    labeled_songs: Annotated[CountOrZero, doc("labelled training songs; 0: the first of finetune.labeled_songs")] = 0
    pretrain_steps: Annotated[CountOrZero, doc("steps to which pre-training is stretched; 0: pretrain.steps")] = 0
    finetune_steps: Annotated[CountOrZero, doc("steps to which fine-tuning is stretched; 0: finetune.steps")] = 0
    axes: Annotated[Listed[Axis], doc("what is varied")] = ()


@dataclass(frozen=True)
class Design:
    """What a blind listening test asks, of whatever sounds; power decides how many trials pairs take."""

    test: Annotated[Literal["mushra", "preference", "abx"], doc("mushra (ITU-R BS.1534-3), or in pairs")] = "mushra"
    methods: Annotated[
        DistinctOrEmpty[Text], doc("methods that are heard; none: all; in pairs: the study's claim")
    ] = ()
    loudness: Annotated[Real | None, doc("loudness in LUFS (ITU-R BS.1770); null: as it is", ge=-100, le=-6)] = -26.0
    leak_db: Annotated[Real, doc("other stems in the leakage anchor, in dB to the target", ge=-100, le=20)] = 0.0
    minutes: Annotated[Real, doc("longest session; longer tests are split over participants", ge=1, le=600)] = 30.0
    detectable: Annotated[Real, doc("pairs: share of right answers to detect; chance is 0.5", gt=0.5, le=1)] = 0.75
    alpha: Annotated[Real, doc("pairs: level of significance", gt=0, le=0.5)] = 0.05
    power: Annotated[Real, doc("pairs: probability that detectable is detected", gt=0, le=0.999)] = 0.8
    seed: Annotated[CountOrZero, doc("draws a participant's order, together with the code")] = 0


@dataclass(frozen=True)
class Blind(Design):
    """A blind listening test of ``songs`` x ``stems`` x ``questions``."""

    songs: Annotated[CountOrZero, doc("test songs; 0: the real song alone")] = 2
    seconds: Annotated[Seconds, doc("length of an excerpt in seconds")] = 8.0
    stems: Annotated[Distinct[Literal[STEMS]], doc("stems that are heard")] = STEMS
    questions: Annotated[Distinct[Question], doc("what is asked about each stem")] = QUESTIONS
    texts: Annotated[TextOrEmpty, doc("YAML file of texts (lib/listening/README.md), such as consent")] = ""
    panel: Annotated[Whole, doc("simulated listeners; 0: none", ge=0, le=1000)] = 0


@dataclass(frozen=True)
class Listening:
    """What the listening notebook plays, and its blind test."""

    songs: Annotated[CountOrZero, doc("test songs")] = 2
    seconds: Annotated[Seconds, doc("length of an excerpt in seconds")] = 10.0
    examples: Annotated[Text, doc("folder that is played while no model is trained")] = "results/listening_set"
    blind: Blind = field(default_factory=Blind)


@dataclass(frozen=True)
class Compute:
    """Machine and precision. On CPUs two runs of one thread each end sooner than two of two threads in turn."""

    accelerator: Annotated[Literal["auto", "cpu", "gpu", "cuda"], doc("device")] = "auto"
    precision: Annotated[Precision, doc("auto: bfloat16 where that is faster")] = "32-true"
    threads: Annotated[Processes, doc("CPU threads of a run; 0: torch's choice")] = 0
    jobs: Annotated[Whole, doc("runs at a time", gt=0, le=1024)] = 1
    training: Annotated[Flag, doc("false: take finished runs alone; a missing one is an error")] = True
    compile: Annotated[Flag, doc("GPUs: have torch compile the model")] = False
    recompute: Annotated[Flag, doc("GPUs: save memory by computing blocks again for gradients")] = False


# sections have no settings of their own and take these over; a field's title in the JSON schema is its name
@with_config(
    extra="forbid", allow_inf_nan=False, revalidate_instances="always", field_title_generator=lambda key, _: key
)
@dataclass(frozen=True)
class Profile:
    """A whole study."""

    name: Annotated[Word, doc("a word; the file's name by default")]
    results: Annotated[Text, doc("folder that receives the study; results/NAME by default")]
    audio: Audio = field(default_factory=Audio)
    corpus: Corpus = field(default_factory=Corpus)
    model: Model = field(default_factory=Model)
    pretrain: Pretrain = field(default_factory=Pretrain)
    finetune: Finetune = field(default_factory=Finetune)
    protocol: Protocol = field(default_factory=Protocol)
    regime: Regime = field(default_factory=Regime)
    probes: Probes = field(default_factory=Probes)
    separate: Separate = field(default_factory=Separate)
    scoring: Scoring = field(default_factory=Scoring)
    ablations: Ablations = field(default_factory=Ablations)
    listening: Listening = field(default_factory=Listening)
    compute: Compute = field(default_factory=Compute)


def contradictions(profile: Profile) -> list[str]:
    """What every field allows by itself but no study can mean, each as "FIELD must ..."."""
    audio, pretrain, windows = profile.audio, profile.pretrain, profile.separate
    rules = {
        # the model's input lacks the last frame, so that at the end of a wave only windows further in can be inverted
        "audio.hop must not exceed a third of audio.n_fft": 3 * audio.hop <= audio.n_fft,
        "separate.hop_seconds must not exceed separate.window_seconds": windows.hop_seconds <= windows.window_seconds,
    }
    if any(control.endswith("until stalled") for control in profile.finetune.controls):
        rules["finetune.patience must not be 0: finetune.controls train until they stall"] = (
            profile.finetune.patience > 0
        )
    if "equal compute" in profile.finetune.controls:
        rules["pretrain.patience must be 0: equal compute is that of all pretrain.steps"] = pretrain.patience == 0
    if profile.corpus.labeled == ARRANGED:
        problem = "corpus.folds must be 0 with corpus.labeled=arranged, whose test songs have instruments of their own"
        rules[problem] = not profile.corpus.folds
    if profile.corpus.tested:
        rules["corpus.folds must be 0 with corpus.tested, whose songs are all tested"] = not profile.corpus.folds
    if pretrain.checkpoint:
        rules["pretrain.seeds must name one seed: pretrain.checkpoint is one model"] = len(pretrain.seeds) == 1
    for name, stage in (("pretrain", pretrain), ("finetune", profile.finetune)):
        crop, segment = stage.crop_seconds, profile.corpus.segment_seconds
        rules[f"{name}.crop_seconds must not exceed corpus.segment_seconds, {segment}"] = crop <= segment
        rules[f"{name}.crop_seconds must not be below an FFT, audio.n_fft"] = crop * audio.rate >= audio.n_fft
    for number, axis in enumerate(profile.ablations.axes):
        labels = [level.label for level in axis.levels]
        problem = f"ablations.axes[{number}].levels must differ in label and hold the base '{axis.base}'"
        rules[problem] = axis.base in labels and len(set(labels)) == len(labels)
    return [problem for problem, holds in rules.items() if not holds]


def project_path(folder: str) -> Path:
    """A folder named in a profile: relative ones count from the project's root, ``~`` is the home folder.

    Raises: UserError for a name that no folder can have, or where one may not look.
    """
    try:
        path = ROOT / Path(folder).expanduser()
        path.exists()
        return path
    except (OSError, RuntimeError) as error:
        raise UserError(f"folder '{folder}': {getattr(error, 'strerror', None) or error}") from None
