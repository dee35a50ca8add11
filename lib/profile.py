"""A profile: every number of a study in nested frozen dataclasses, read from YAML, with ``key=value`` overrides.

Unknown keys, duplicate keys and ill-typed values are refused with a `UserError` that names the field.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib import STEMS, UserError, schema

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ROOT / "notebooks" / "profiles"
RENDERED, MUSDB, FMA = "rendered", "musdb18hq", "fma:"
"""Sources of music that are named: composed, and published data sets (``fma:small`` and so on)."""


def is_named(source: str) -> bool:
    """Whether a source of music goes by its name, as against a folder."""
    return source in (RENDERED, MUSDB) or source.startswith(FMA)


@dataclass(frozen=True)
class Audio:
    """Front end: sample rate in Hz, FFT size and hop in samples."""

    rate: int = 44100
    n_fft: int = 2048
    hop: int = 512


@dataclass(frozen=True)
class Rendered:
    """The embedded corpus: how many songs of which length are composed and rendered, and from which seed.

    With ``redealt``, an unlabelled mixture's stems come from four songs that share neither key nor tempo.
    """

    seed: int = 0
    song_seconds: float = 20.0
    train_songs: int = 8
    validation_songs: int = 4
    test_songs: int = 12
    unlabeled_songs: int = 240
    redealt: bool = False


@dataclass(frozen=True)
class Corpus:
    """Where the music comes from: ``rendered`` or a folder, and the rules that cut it into segments.

    ``labeled`` may be ``musdb18hq``, which lies in ``musdb_root``, and ``unlabeled`` one of ``fma:small``, ``medium``,
    ``large`` and ``full``, which lies in ``fma_root``; with ``download`` what is missing of them is fetched.
    ``unlabeled`` may join several others with " + ".
    """

    labeled: str = "rendered"
    unlabeled: str = "rendered"
    rendered: Rendered = field(default_factory=Rendered)
    fma_subset: str = "large"
    fma_root: str = "data/fma"
    musdb_root: str = "data/musdb18hq"
    download: bool = False
    unlabeled_fraction: float = 1.0
    validation_songs: int = 4
    segment_seconds: float = 10.0
    segment_hop_seconds: float = 5.0
    activity_seconds: float = 8.0
    workers: int = 2

    @property
    def unlabeled_parts(self) -> tuple[str, ...]:
        """The sources that ``unlabeled`` joins by " + "."""
        return tuple(part.strip() for part in self.unlabeled.split(" + "))

    def folder_of(self, source: str) -> Path | None:
        """The folder of what ``labeled`` or a part of ``unlabeled`` names; None for composed music."""
        if source == RENDERED:
            return None
        return resolve({MUSDB: self.musdb_root}.get(source, self.fma_root if source.startswith(FMA) else source))


@dataclass(frozen=True)
class Model:
    """The separator: a size of `lib.model.SIZES` and the number of outputs N of MixIT pre-training."""

    size: str = "small"
    sources: int = 12
    dropout: float = 0.1
    band_scale: float = 1.0


@dataclass(frozen=True)
class Optimisation:
    """One training stage. ``batch`` counts examples a step; ``learning_rate`` 0 takes the model size's own.

    With ``patience``, the decay begins early once so many validations in a row brought no new lowest loss, and
    training ends after as many steps of decay as there were to be.
    """

    steps: int = 1000
    batch: int = 8
    accumulate: int = 1
    crop_seconds: float = 6.0
    learning_rate: float = 0.0
    warmup_steps: int = 100
    decay_factor: float = 0.98
    decay_every: int = 1000
    decay_start: int = 0
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    validate_every: int = 100
    average_best: int = 5
    checkpoint_every: int = 100
    patience: int = 0

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
    """MixIT pre-training: level ratio of the two mixtures in dB, the assignment rule, validation MoMs.

    One model is pre-trained per seed; supervised seed s starts from number s modulo their count. With ``same_song``
    the two mixtures are passages of one song. ``checkpoint``, a separator's file, stands for the pre-training: nothing
    is trained.
    """

    checkpoint: str = ""
    seeds: tuple[int, ...] = (0,)
    same_song: bool = False
    level_db: tuple[float, float] = (-5.0, 5.0)
    assignment: str = "exact"
    validation_moms: int = 32


@dataclass(frozen=True)
class Finetune(Optimisation):
    """Supervised training on stems: budgets, seeds, and the arms that are compared with training from scratch.

    ``transfers`` says how MixIT outputs become stems, ``controls`` what else is trained (see `Study.supervised`).
    ``transfer_learning_rate`` is that of every arm that starts pre-trained (0: the same as from scratch), ``body_rate``
    the learning rate of encoder and blocks in every arm, relative to that of the decoders. ``validate_on`` takes the
    validation loss of ``segments`` as long as a crop, or of whole ``songs``, separated as ``separate`` says.
    """

    validate_on: str = "segments"
    transfer_learning_rate: float = 0.0
    body_rate: float = 1.0
    seeds: tuple[int, ...] = (0, 1, 2)
    labeled_songs: tuple[int, ...] = (8,)
    transfers: tuple[str, ...] = ("group",)
    controls: tuple[str, ...] = ()
    gain_db: tuple[float, float] = (-10.0, 10.0)
    silence_probability: float = 0.05


@dataclass(frozen=True)
class Separate:
    """Separating whole songs: window and hop in seconds, windows a batch, mixture consistency."""

    window_seconds: float = 12.0
    hop_seconds: float = 6.0
    batch: int = 4
    mixture_consistency: bool = False


@dataclass(frozen=True)
class Regime:
    """What is chosen on validation songs before the claim is tested: a search of schedules, and a map of the gain.

    The search trains scratch and ``transfers`` with every ``learning_rates`` x ``body_rates`` x ``steps`` at every
    budget of ``searched_songs``; the map trains scratch and the first transfer with every ``pretrain_steps`` x
    ``labeled_songs``. Empty lists leave either out.
    """

    seeds: tuple[int, ...] = (0,)
    transfers: tuple[str, ...] = ("body",)
    learning_rates: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    body_rates: tuple[float, ...] = (1.0,)
    searched_songs: tuple[int, ...] = ()
    pretrain_steps: tuple[int, ...] = ()
    labeled_songs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Probes:
    """What is pre-trained beside the base for the probes: on re-dealt songs, and on mixtures of one song's halves.

    ``seeds`` are those of all trainings that are compared there.
    """

    seeds: tuple[int, ...] = (0,)
    redealt: bool = True
    same_song: bool = True


@dataclass(frozen=True)
class Level:
    """One level of an ablation axis: its label and the profile fields it sets (dotted names).

    ``transfer`` replaces that of the ablations; "scratch" transfers nothing.
    """

    label: str
    set: dict[str, object] = field(default_factory=dict)
    transfer: str = ""


@dataclass(frozen=True)
class Axis:
    """One axis of the ablations: a name, the level that equals the base, and the levels."""

    name: str
    base: str
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Ablations:
    """One axis at a time around the base.

    ``pretrain_steps`` and ``finetune_steps`` stretch the schedules; ``labeled_songs`` is one budget. 0 keeps the
    profile's own (the first of its budgets).
    """

    seeds: tuple[int, ...] = (0,)
    transfer: str = "group"
    labeled_songs: int = 0
    pretrain_steps: int = 0
    finetune_steps: int = 0
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Blind:
    """A blind listening test: ``test`` is mushra (ITU-R BS.1534-3), preference (of two) or abx.

    ``songs`` test songs (0: the real song alone) x ``stems`` x ``questions`` are heard, ``seconds`` of each, as
    ``methods`` separate them (none named: all; preference and abx compare the first two). ``loudness`` in LUFS (ITU-R
    BS.1770); ``leak_db`` is the level of the other stems in the leakage anchor, relative to the target. Preference and
    abx take as many trials as find a share of ``detectable`` right answers with ``power``, tested at ``alpha``.
    ``panel`` listeners are simulated. ``seed`` draws every participant's order, together with the code.
    """

    test: str = "mushra"
    songs: int = 2
    seconds: float = 8.0
    stems: tuple[str, ...] = ("bass", "drums", "vocals", "other")
    questions: tuple[str, ...] = ("target", "suppression", "artefacts")
    methods: tuple[str, ...] = ()
    loudness: float = -26.0
    leak_db: float = 0.0
    detectable: float = 0.75
    alpha: float = 0.05
    power: float = 0.8
    panel: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Listening:
    """What the listening notebook plays: test songs and seconds of each; and its blind test.

    Without trained models it plays ``examples``, a folder that `lib.listening.examples` wrote.
    """

    songs: int = 2
    seconds: float = 10.0
    examples: str = "results/listening_set"
    blind: Blind = field(default_factory=Blind)


@dataclass(frozen=True)
class Compute:
    """Device, precision (one of `PRECISIONS`), CPU threads of a run (0 leaves torch's choice), runs at a time.

    On CPUs two runs of one thread each are done sooner than one run of two threads after the other. Without
    ``training`` tables and figures are only drawn from finished runs, and one that is missing is an error. On GPUs
    ``compile`` has torch compile the model, and ``recompute`` saves memory: blocks are computed again for gradients.
    """

    accelerator: str = "auto"
    precision: str = "32-true"
    threads: int = 0
    jobs: int = 1
    training: bool = True
    compile: bool = False
    recompute: bool = False


@dataclass(frozen=True)
class Profile:
    """A whole study; ``results`` is the folder that receives it."""

    name: str
    results: str
    audio: Audio = field(default_factory=Audio)
    corpus: Corpus = field(default_factory=Corpus)
    model: Model = field(default_factory=Model)
    pretrain: Pretrain = field(default_factory=Pretrain)
    finetune: Finetune = field(default_factory=Finetune)
    regime: Regime = field(default_factory=Regime)
    probes: Probes = field(default_factory=Probes)
    separate: Separate = field(default_factory=Separate)
    ablations: Ablations = field(default_factory=Ablations)
    listening: Listening = field(default_factory=Listening)
    compute: Compute = field(default_factory=Compute)


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Profile:
    """Read a profile by its name in ``notebooks/profiles`` or by its path, then apply ``key=value`` overrides.

    A file may start from another with ``base: NAME or FILE`` (maps are merged, lists replaced). ``name`` and
    ``results`` are never inherited: they default to the file's own name and ``results/NAME``.

    Raises: UserError, one line naming file and field.
    """
    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides or ()):
        raise UserError(f"overrides must be a list of texts, key=value, not {overrides!r:.60}")
    path = find(name_or_path)
    content = {"name": path.stem, "results": f"results/{path.stem}", **_with_base(path)}
    profile = schema.build(Profile, content, path.name)
    if Path(profile.name).name != profile.name or not profile.name.strip("."):
        raise UserError(f"{path.name}: name must be a word, not a path: '{profile.name}'")
    changes = {}
    for text in overrides or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"override '{text}' is not of the form key=value")
        # texts (folders above all) are taken as typed: YAML would read something into ': ' and '#'
        is_text = schema.kind_of(Profile, key, f"override '{text}'") is str
        changes[key] = value if is_text else schema.parse(value, f"override '{text}'")
    profile = override(profile, changes)
    _validate_ablations(profile)
    return profile


def find(name_or_path: str) -> Path:
    """The file of a profile given by name, or by a path ending in .yaml. Raises: UserError."""
    with contextlib.suppress(OSError, RuntimeError):  # a name that is too long, or the home of nobody
        for path in (PROFILES / f"{name_or_path}.yaml", Path(str(name_or_path)).expanduser()):
            if path.suffix in (".yaml", ".yml") and path.is_file():
                return path
    known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
    raise UserError(f"profile '{name_or_path}' is unknown: use one of {known}, or the path of a .yaml file")


def override(profile: Profile, changes: Mapping[str, object]) -> Profile:
    """``profile`` with dotted fields replaced (``{"finetune.seeds": [0, 1]}``), checked. Raises: UserError."""
    new = schema.replaced(profile, changes, profile.name)
    _validate(new)
    return new


def to_dict(profile: Profile) -> dict:
    """The profile as nested maps, lists, numbers and texts: what a YAML file of it would hold."""
    return schema.plain(profile)


def resolve(folder: str) -> Path:
    """A folder named in a profile: relative ones count from the project's root, ``~`` is the home folder.

    Raises: UserError for a name that no folder can have, or where one may not look.
    """
    try:
        path = ROOT / Path(folder).expanduser()
        path.exists()
        return path
    except (OSError, RuntimeError) as error:
        raise UserError(f"folder '{folder}': {getattr(error, 'strerror', None) or error}") from None


def _with_base(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    if path.resolve() in seen:
        raise UserError(f"{path.name}: base leads back to this file")
    if len(seen) > MOST_BASES:
        raise UserError(f"{path.name}: base upon base, more than {MOST_BASES}")
    content = schema.read(path)
    if "base" not in content:
        return content
    name = content.pop("base")
    if not isinstance(name, str):
        raise UserError(f"{path.name}: base must be the name or file of a profile, not {name!r:.60}")
    beside = resolve(str(path.parent / name))
    base = _with_base(beside if beside.is_file() else find(name), (*seen, path.resolve()))
    return schema.merged({key: value for key, value in base.items() if key not in ("name", "results")}, content)


MOST_BASES = 20
PRECISIONS = ("32-true", "bf16-mixed", "auto")
TRANSFERS = ("body", "sliced", "group", "frequent", "random", "blocks", "encoder")
CONTROLS = ("equal compute", "shuffled", "long")
FMA_SUBSETS = ("small", "medium", "large", "full")

_CHOICES = {
    "size": ("nano", "tiny", "mini", "demo", "small", "medium", "large"),
    "transfers": TRANSFERS,
    "transfer": TRANSFERS,
    "controls": CONTROLS,
    "assignment": ("exact", "least_squares"),
    "validate_on": ("segments", "songs"),
    "precision": PRECISIONS,
    "accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "fma_subset": FMA_SUBSETS,
    "test": ("mushra", "preference", "abx"),
    "stems": STEMS,
    "questions": ("target", "suppression", "artefacts"),
}
_MAY_BE_ZERO = {
    *("seed", "seeds", "dropout", "learning_rate", "warmup_steps", "decay_start", "weight_decay", "workers", "threads"),
    *("silence_probability", "pretrain_steps", "finetune_steps", "songs", "transfer_learning_rate", "body_rate"),
    *("patience", "ablations.labeled_songs"),
}
_MAY_BE_EMPTY = (
    *("finetune.controls", "regime.learning_rates", "regime.steps", "regime.searched_songs"),
    *("regime.pretrain_steps", "regime.labeled_songs", "pretrain.checkpoint", "listening.blind.methods"),
)
_MAY_BE_NEGATIVE = ("loudness", "leak_db")
_AT_LEAST = {
    **{"rate": 1000, "n_fft": 16, "band_scale": 0.25, "segment_hop_seconds": 0.05, "loudness": -100, "leak_db": -100},
    **{"separate.window_seconds": 0.1, "separate.hop_seconds": 0.05, "song_seconds": 1, "activity_seconds": 0.5},
}
_MOST_SECONDS, _MOST = 86_400, 10**9
"""What no study means beyond: a day of audio at once, and a milliard of anything else."""
_AT_MOST = {
    **{"rate": 192_000, "n_fft": 16_384, "band_scale": 64, "batch": 1 << 16, "accumulate": 1 << 16, "panel": 1000},
    **{"workers": 1024, "threads": 1024, "jobs": 1024},
    **{"dropout": 0.9, "silence_probability": 0.9, "decay_factor": 1, "learning_rate": 1, "sources": 16},
    **{"transfer_learning_rate": 1, "body_rate": 1, "unlabeled_fraction": 1, "body_rates": 1},
    **{"detectable": 1, "alpha": 0.5, "power": 0.999, "loudness": -6, "leak_db": 20},
}


def _validate(profile: Profile) -> None:
    """Refuse values that no study can mean. Raises: UserError."""

    def require(condition: bool, dotted: str, problem: str) -> None:
        if not condition:
            raise UserError(f"{profile.name}: {dotted} {problem}")

    for dotted, value in schema.leaves(profile):
        if dotted == "ablations.axes" or isinstance(value, bool):
            continue
        name, items = dotted.split(".")[-1], value if isinstance(value, tuple) else (value,)
        empty = len(items) == 0 or "" in items
        require(not empty or dotted in _MAY_BE_EMPTY, dotted, "must not be empty")
        if name in ("level_db", "gain_db"):
            require(-200 <= items[0] <= items[1] <= 200, dotted, f"must be [low, high] within 200 dB, not {value}")
            continue
        require(len(set(items)) == len(items), dotted, f"names something twice: {value}")
        for item in items:
            choices = _CHOICES.get(name, (item,))
            require(item in choices, dotted, f"must be one of {', '.join(map(str, choices))}, not '{item}'")
            if isinstance(item, str):
                require(item.isprintable(), dotted, "holds control characters or invalid UTF-8")
            else:
                zero = name in _MAY_BE_NEGATIVE or name in _MAY_BE_ZERO or dotted in _MAY_BE_ZERO
                require(item > 0 or zero, dotted, f"must be more than 0, not {item}")
                require(item >= 0 or name in _MAY_BE_NEGATIVE, dotted, f"must be at least 0, not {item}")
                least = _AT_LEAST.get(dotted, _AT_LEAST.get(name, item))
                require(item >= least, dotted, f"must be at least {least}, not {item}")
                most = _AT_MOST.get(name, _MOST_SECONDS if "seconds" in name else _MOST)
                require(item <= most, dotted, f"must be at most {most}, not {item}")
    # the model's input lacks the last frame, so that at the end of a wave only windows further in can be inverted
    require(3 * profile.audio.hop <= profile.audio.n_fft, "audio.hop", "must not exceed a third of audio.n_fft")
    require(profile.model.sources >= 4, "model.sources", "must be 4 to 16: four of them become stems")
    parts, sets = profile.corpus.unlabeled_parts, [FMA + subset for subset in FMA_SUBSETS]
    if any(part.startswith(FMA) for part in parts):
        alone = len(parts) == 1 and parts[0] in sets
        require(alone, "corpus.unlabeled", f"must be one of {', '.join(sets)}, alone, or folders and rendered")
    require(MUSDB not in parts, "corpus.unlabeled", f"cannot be {MUSDB}: it would take stems for songs")
    require(not profile.corpus.labeled.startswith(FMA), "corpus.labeled", "cannot be FMA: it has no stems")
    one = not profile.pretrain.checkpoint or len(profile.pretrain.seeds) == 1
    require(one, "pretrain.seeds", "must name one seed: pretrain.checkpoint is one pre-training")
    require(profile.listening.blind.detectable > 0.5, "listening.blind.detectable", "must be more than 0.5, chance")
    windows = profile.separate
    require(windows.hop_seconds <= windows.window_seconds, "separate.hop_seconds", "must not exceed window_seconds")
    for stage in ("pretrain", "finetune"):
        crop = getattr(profile, stage).crop_seconds
        require(crop <= profile.corpus.segment_seconds, f"{stage}.crop_seconds", "must not exceed a segment's seconds")
        require(crop * profile.audio.rate >= profile.audio.n_fft, f"{stage}.crop_seconds", "must not be below an FFT's")


def _validate_ablations(profile: Profile) -> None:
    """Build every level once, so that a bad one is refused before anything runs. Raises: UserError."""
    for axis in profile.ablations.axes:
        where = f"{profile.name}: ablations '{axis.name}'"
        labels = [level.label for level in axis.levels]
        if axis.base not in labels or len(set(labels)) < len(labels):
            raise UserError(f"{where}: levels must differ and hold the base '{axis.base}'")
        for level in axis.levels:
            if level.transfer not in ("", "scratch", *TRANSFERS):
                raise UserError(
                    f"{where}: transfer must be scratch or one of {', '.join(TRANSFERS)}, not '{level.transfer}'"
                )
            if any(key.split(".")[0] in ("name", "results", "ablations") for key in level.set):
                raise UserError(f"{where}: a level cannot set {', '.join(level.set)}")
            override(profile, level.set)
