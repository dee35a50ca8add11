"""People's compositions for the four stems: which song serves what, which passage, who sings, and what plays."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lib import STEMS, UserError
from lib.data.audio import UndecodableError
from lib.data.composed import fonts, midi
from lib.data.composed.compose import (
    CENTRES,
    DRUMS,
    KINDS,
    PROGRAMS,
    Note,
    Part,
    Song,
    draw_mix,
    draw_voice,
    drum_part,
)  # fmt: skip
from lib.data.composed.midi import DRUM_CHANNEL, Line, Score
from lib.data.tracks import Skipped, content_digest, printable, skip
from lib.machine.progress import SHOWN
from lib.profile.fields import Arranged, project_path

VERSION = 1
"""Raise it when the same files and settings are arranged otherwise: songs are made again."""
MIDI = re.compile(r"\.(midi?|smf|kar)$", re.IGNORECASE)
BASS = range(32, 40)
"""General MIDI's programs of basses."""
EFFECTS = 120
"""Program from which on there are sound effects, which are not played: among them helicopters and applause."""
MELODIC, SINGABLE = 5, 0.5
"""A lead has so many pitches at least, and so large a share of its notes does not sound together with others."""
ENOUGH = 0.6
"""Share of seconds beyond which it does not count how much of a passage a stem sounds."""
SHINGLE, SAME = 8, 0.3
"""Two songs are one if of their runs of so many notes such a share is the same."""
KEYS = {35: "kick", 36: "kick", **dict.fromkeys((37, 38, 39, 40, 41, 43, 45, 47, 48, 50), "snare")}
"""Part of the kit that a drum key belongs to; all others are "cymbals" (and percussion)."""


class Passage(NamedTuple):
    """What a song is made from: a file, and where in it the excerpt starts (seconds)."""

    path: Path
    start: float


class Source(NamedTuple):
    """A usable file: its passages, best first, and its runs of notes, by which copies are noticed."""

    path: Path
    digest: str
    starts: tuple[float, ...]
    runs: frozenset[int]


@dataclass(frozen=True)
class Arranger:
    """Gives song ``index`` of a kind, as `compose` does, from the passages of each kind; `plan` makes one."""

    settings: Arranged
    passages: dict[str, tuple[Passage, ...]]
    sides: dict[bool, fonts.Side]

    def __call__(self, kind: str, index: int) -> Song:
        """The song; another ``index`` on the same passage has other instruments, levels and a room of its own."""
        passages, side = self.passages[kind], self.sides[kind == "test"]
        path, start = passages[index % len(passages)]
        font = side.fonts[self.font_number(kind, index)]
        seed = (self.settings.seed, KINDS.index(kind), index)
        title = " ".join(re.sub(r"[^\w.-]+", " ", path.stem).replace(" - ", " ").split())[:60] or "untitled"
        score = _read(path)
        rng = np.random.default_rng(seed)
        return Song(
            name=f"{kind.capitalize()} {index + 1:03d} - {title}", seed=seed, seconds=self.settings.song_seconds,
            key="", mode="", bpm=score.bpm, genre="Arranged", groove=printable(path.parent.name),
            sections=((printable(path.name), start),),
            parts=_parts(score, start, self.settings.song_seconds, font, side, rng), **draw_mix(rng),
        )  # fmt: skip

    def font_number(self, kind: str, index: int) -> int:
        """Which of its side's fonts plays a song: fonts take turns, also over the songs of one passage."""
        side, count = self.sides[kind == "test"], len(self.passages[kind])
        return (index + index // count) % len(side.fonts)


def identity(settings: Arranged) -> dict:
    """What the songs depend on: the settings, and what files hold, in place of where they are. Raises: UserError."""
    facts = asdict(settings) | {"version": VERSION}
    facts["midi"] = sorted([path.parent.name, path.stem, _digest(path)] for path in midi_files(settings))
    files = map(fonts.font_path, settings.fonts)
    facts["fonts"] = sorted([path.stem, fonts.digest(path)] for path in files)
    return facts


def _digest(path: Path) -> str:
    try:
        return content_digest({"midi": path})
    except OSError:  # which is why it will be left out
        return ""


def midi_files(settings: Arranged) -> list[Path]:
    """The MIDI files of the profile's folders, in sorted order. Raises: UserError where there is none."""
    found = []
    for name in settings.midi:
        folder = project_path(name)
        if not folder.is_dir():
            raise UserError(f"corpus.arranged.midi: no such folder: {folder}; give folders of MIDI files")
        paths = (Path(parent, file) for parent, _, files in os.walk(folder) for file in files if MIDI.search(file))
        found += sorted(path for path in paths if not path.name.startswith("."))
    if not found:
        raise UserError(f"corpus.arranged.midi: no MIDI files (.mid) in {', '.join(settings.midi)}")
    return found


def plan(settings: Arranged) -> tuple[Arranger, list[Skipped]]:
    """Deal the songs, and say what was left out.

    Usable songs in the order of a hash of seed and content serve the test, validation, training, and the rest is
    unlabelled; no song serves twice. A labelled song is the best passage of one (`_starts`), an unlabelled one the
    best, then the second best passages and so on; beyond these, passages are played again by other instruments.

    Raises: UserError where there are too few songs or the fonts do not do.
    """
    sides = fonts.sides([fonts.inspect(fonts.font_path(name)) for name in settings.fonts], settings.seed)
    sources, skipped = _sources(settings)
    counts = {"test": settings.test_songs, "valid": settings.validation_songs, "train": settings.train_songs}
    needed = sum(counts.values()) + 1
    if len(sources) < needed:
        why = f"; {len(skipped)} left out, first {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise UserError(
            f"corpus.arranged: {needed} songs needed (test, validation, training, 1 unlabelled), {len(sources)} usable "
            f"in {', '.join(settings.midi)}{why}"
        )
    passages, first = {}, 0
    for kind, count in counts.items():
        passages[kind] = tuple(Passage(s.path, s.starts[0]) for s in sources[first : first + count])
        first += count
    rest = sources[first:]
    ranks = range(max(len(source.starts) for source in rest))
    passages["unlabeled"] = tuple(
        Passage(source.path, source.starts[rank]) for rank in ranks for source in rest if rank < len(source.starts)
    )
    return Arranger(settings, passages, sides), skipped


def _sources(settings: Arranged) -> tuple[list[Source], list[Skipped]]:
    """Usable files in seeded order, without copies of one another."""

    def rank(source: Source) -> bytes:
        return hashlib.sha256(f"{settings.seed} {source.digest}".encode()).digest()

    found, skipped = [], []
    for path in tqdm(midi_files(settings), "reading MIDI", unit="song", **SHOWN):
        try:
            score = _read(path)
            starts = _starts(score, settings.song_seconds, path)
            found.append(Source(path, _digest(path), starts, _runs(score)))
        except UndecodableError as error:
            skipped.append(skip(path, error.reason))

    def is_same(one: Source, other: Source) -> bool:
        smaller = min(len(one.runs), len(other.runs))
        return one.digest == other.digest or len(one.runs & other.runs) > SAME * max(smaller, 1)

    usable: list[Source] = []
    for source in sorted(found, key=rank):
        same = next((other for other in usable if is_same(source, other)), None)
        if same:
            skipped.append(skip(source.path, f"the same music as {same.path.name}"))
        else:
            usable.append(source)
    return usable, skipped


@lru_cache(4)
def _read(path: Path) -> Score:
    return midi.read(path)


def _runs(score: Score) -> frozenset[int]:
    """Runs of `SHINGLE` notes of all lines but drums, as steps of pitch: transposed or faster, they are the same."""
    found = set()
    for line in (line for line in score.lines if line.channel != DRUM_CHANNEL):
        steps = np.diff([note.pitch for note in line.notes]).tolist()
        runs = {tuple(steps[i : i + SHINGLE - 1]) for i in range(len(steps) - SHINGLE + 2)}
        found |= {hash(run) for run in runs if len(set(run)) > 2}
    return frozenset(found)


def stem_lines(score: Score) -> dict[str, list[Line]]:
    """The lines of each stem: drums by channel, basses by program, the lead (`find_lead`) as vocals, the rest.

    Raises: UndecodableError without a path, for a song that lacks one of them.
    """
    lead = find_lead(score)
    stems: dict[str, list[Line]] = {stem: [] for stem in STEMS}
    for line in score.lines:
        if line.program < EFFECTS:
            stems["vocals" if line is lead else _stem(line)].append(line)
    if not stems["drums"]:
        raise UndecodableError("", "no drums (channel 10)")
    if not stems["bass"]:
        raise UndecodableError("", "no bass (programs 33 to 40)")
    if lead is None:
        raise UndecodableError("", "no part that could be sung: all are chords, or hardly sound")
    if not stems["other"]:
        raise UndecodableError("", "nothing beside drums, bass and one part")
    return stems


def _stem(line: Line) -> str:
    return "drums" if line.channel == DRUM_CHANNEL else "bass" if line.program in BASS else "other"


def find_lead(score: Score) -> Line | None:
    """The line that is most like a sung melody; None if all play chords or hardly anything.

    It counts how much it sounds (up to `ENOUGH`), how many of its notes stand alone, its register, a name such as
    "melody", and an instrument that plays leads.
    """
    ranked = [(_melodic(line, score.seconds), -place) for place, line in enumerate(score.lines)]
    best, place = max(ranked, default=(0.0, 0))
    return score.lines[-place] if best > 0 else None


def _melodic(line: Line, seconds: float) -> float:
    starts, pitches = np.array([(note.start, note.pitch) for note in line.notes]).T
    gaps = np.diff(starts, prepend=-1.0, append=seconds + 1) > 0.03
    alone = np.mean(gaps[1:] & gaps[:-1])
    sounding = np.mean(_active([line], seconds))
    if _stem(line) != "other" or alone < SINGABLE or len(set(pitches.tolist())) < MELODIC or sounding < 0.15:
        return 0.0
    register = 1.0 if 55 <= np.median(pitches) <= 84 else 0.5
    named = 1.5 if re.search("voc|voice|vox|sing|melod|lead|solo", line.name, re.IGNORECASE) else 1.0
    played = 1.3 if line.program in (*range(52, 55), *range(56, 88), 40, 29, 30) else 1.0
    return float(min(sounding, ENOUGH) * alone * register * named * played)


def _active(lines: Sequence[Line], seconds: float) -> np.ndarray:
    """Whether any line sounds in each second."""
    edges = np.zeros(int(seconds) + 2)
    for line in lines:
        first = np.array([int(note.start) for note in line.notes])
        last = np.array([min(int(note.end), len(edges) - 2) for note in line.notes])
        np.add.at(edges, first, 1)
        np.add.at(edges, last + 1, -1)
    return np.cumsum(edges)[:-1] > 0


def _starts(score: Score, seconds: float, path: Path) -> tuple[float, ...]:
    """Where the passages of ``seconds`` start, best first, on whole seconds and without overlap.

    A passage counts by the sum over the stems of the share of its seconds in which a stem sounds, what lies above
    `ENOUGH` by a tenth. The first has all four stems, the others at least two.
    """
    if score.seconds < seconds:
        raise UndecodableError(path, f"{score.seconds:.1f} s long, shorter than corpus.arranged.song_seconds")
    try:
        stems = stem_lines(score)
    except UndecodableError as error:
        raise UndecodableError(path, error.reason) from None
    length = int(seconds)
    totals = np.cumsum([np.pad(_active(lines, score.seconds), (1, 0)) for lines in stems.values()], 1)
    shares = (totals[:, length:] - totals[:, :-length])[:, : int(score.seconds - seconds) + 1] / length
    value, found = (np.minimum(shares, ENOUGH) + 0.1 * shares).sum(0), []  # of two such, the one without a silent start
    value[(shares > 0.1).sum(0) < 2] = 0
    complete = np.where((shares > 0.1).all(0), value, 0)
    if not complete.any():
        raise UndecodableError(path, f"drums, bass, lead and the rest never sound within one passage of {seconds:g} s")
    at = int(complete.argmax())
    while value[at] > 0:
        found.append(float(at))
        value[max(0, at - int(np.ceil(seconds)) + 1) : at + int(np.ceil(seconds))] = 0
        at = int(value.argmax())
    return tuple(found)


def _parts(
    score: Score, start: float, seconds: float, font: fonts.Font, side: fonts.Side, rng: np.random.Generator
) -> tuple[Part, ...]:
    playing = {font.path for font in side.fonts} - {font.path}
    kits = [kit for kit in side.kits if kit.path not in playing] or side.kits  # its own, and those of drums alone
    kit = kits[int(rng.integers(len(kits)))]
    stems = {stem: [_cut(line, start, seconds) for line in lines] for stem, lines in stem_lines(score).items()}
    lead = stems["vocals"][0]
    sung = melody(lead.notes)
    heard = {(note.start, note.pitch) for note in sung}
    below = tuple(note for note in lead.notes if (note.start, note.pitch) not in heard)
    stems["other"].append(replace(lead, notes=below))  # a second voice is played, not sung
    parts = [*_drums(stems["drums"], kit, rng), *_sung(sung, font, rng)]
    for stem in ("bass", "other"):
        loudest = max((_loudness(line) for line in stems[stem] if line.notes), default=1.0)
        for line in (line for line in stems[stem] if line.notes):
            level = float(np.clip(_loudness(line) / loudest, 0.2, 1.0))
            pan, send = (rng.uniform(-0.8, 0.8), rng.uniform(0.05, 0.35)) if stem == "other" else (0.0, 0.02)
            parts.append(
                Part(stem, Path(font.path).stem, font.nearest(line.program), line.notes, level, pan, send,
                     font=font.path, controls=line.controls)
            )  # fmt: skip
    return tuple(part for part in parts if part.notes)


def _cut(line: Line, start: float, seconds: float) -> Line:
    """A passage of a line: notes that sound in it, from its start on; of older controls their last values."""

    def moved(item):
        return max(item.start - start, 0.0)

    notes = [
        replace(note, start=moved(note), end=min(note.end - start, seconds))
        for note in line.notes
        # what began before is heard from the start if much of it is left; a drum that was hit before is not
        if start <= note.start < start + seconds
        or (note.start < start < note.end - 0.25 and line.channel != DRUM_CHANNEL)
    ]
    before = {control.name: control for control in line.controls if control.seconds <= start}
    controls = [c._replace(seconds=0.0) for c in before.values()]
    controls += [c._replace(seconds=c.seconds - start) for c in line.controls if start < c.seconds < start + seconds]
    return replace(line, notes=tuple(notes), controls=tuple(controls))


def _loudness(line: Line) -> float:
    """How loud a line is to be beside others, linear: as General MIDI has it, squares of velocity and volume."""
    volume = float(np.median([control.value for control in line.controls if control.name == "volume"] or [100]))
    return float(np.mean([(note.velocity / 127) ** 2 for note in line.notes]) * (max(volume, 1) / 127) ** 2)


def _drums(lines: list[Line], kit: fonts.Kit, rng: np.random.Generator) -> list[Part]:
    notes: dict[str, list[Note]] = {role: [] for role in DRUMS}
    for note in (note for line in lines for note in line.notes):
        key = 36 if note.pitch == 35 else note.pitch  # some kits have one kick drum
        notes[KEYS.get(key, "cymbals")].append(replace(note, pitch=key, end=max(note.end, note.start + 0.2)))
    parts = [drum_part(rng, role, kit.preset, tuple(some)) for role, some in notes.items()]
    controls = tuple(c for line in lines for c in line.controls if c.name in ("volume", "expression"))
    return [replace(part, font=kit.path, bank=kit.bank, controls=controls) for part in parts]


def _sung(notes: list[Note], font: fonts.Font, rng: np.random.Generator) -> list[Part]:
    """A lead of one note at a time, in the octave of a singer's range."""
    if not notes:
        return []
    program = font.nearest(int(rng.choice(PROGRAMS["voice"][0])))
    middle = float(np.median([note.pitch for note in notes]))
    centre, shift = min(
        ((centre, 12 * octave) for centre in CENTRES for octave in range(-6, 7)),
        key=lambda pair: abs(middle + pair[1] - pair[0]),
    )
    tie = rng.uniform(0.3, 0.7)
    sung = [replace(note, pitch=note.pitch + shift) for note in notes]
    for i, (before, note) in enumerate(pairwise(notes)):
        if note.start - before.end < 0.03 and abs(note.pitch - before.pitch) <= 12 and rng.random() < tie:
            sung[i], sung[i + 1] = replace(sung[i], end=note.start), replace(sung[i + 1], tied=True)
    voice = draw_voice(rng, centre, program)
    send = rng.uniform(0.06, 0.3)
    return [Part("vocals", Path(font.path).stem, program, tuple(sung), send=send, voice=voice, font=font.path)]


def melody(notes: Sequence[Note]) -> list[Note]:
    """The highest of notes that start together, each ending where the next one starts."""
    found: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.start, -note.pitch)):
        if found and note.start - found[-1].start < 0.05:
            continue
        if found and found[-1].end > note.start:
            found[-1] = replace(found[-1], end=note.start)
        found.append(note)
    return found
