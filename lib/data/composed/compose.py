"""Songs composed by rule: a seed gives key, tempo, form, chords and every part's notes, sharing one time grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import cycle, pairwise
from typing import NamedTuple

import numpy as np

KINDS = ("train", "valid", "test", "unlabeled")
"""The part of the corpus a song is for; a song's generator is seeded with (seed, position in this list, index)."""
# Each role's General MIDI programs: those of training songs, those kept for test songs alone.
PROGRAMS = {
    "voice": ((52, 81, 84, 85, 20), (53, 68, 111)),
    "bass": ((32, 33, 36, 38, 39), (34, 35, 37)),
    "keys": ((0, 1, 4, 6, 16), (3, 5, 17, 18)),
    "guitar": ((24, 25, 27), (26, 105, 106)),
    "drive": ((29,), (30,)),
    "pad": ((48, 50, 89, 90, 19), (49, 51, 91, 95)),
    "pluck": ((46, 11, 12, 45, 108, 98), (8, 13, 15, 104, 107, 114)),
    "brass": ((61, 62), (60, 63)),
    "solo": ((65, 56, 71, 73, 80), (40, 57, 66, 75)),
}
# Of the font's eight kits 32 (Jazz) is left out: it is 0 (Standard) but for one note.
KITS = ((0, 8, 24, 48), (16, 25, 40))
DRUMS = {"kick": (1.0, 0.02), "snare": (0.8, 0.2), "cymbals": (0.35, 0.08)}
"""Parts of a kit, each with its peak and what of it is sent to the reverberation, linear."""
BALANCE = {"bass": -1.0, "drums": 0.5, "vocals": 1.0, "other": 0.0}
"""Mean level of each stem in dB."""
CENTRES = (52, 54, 57, 62, 64, 67)
"""MIDI pitches about which leads are sung, those below 60 by lower voices."""
MODES = {
    "major": ((0, 2, 4, 5, 7, 9, 11), ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 2, 3, 4), (1, 4, 0, 5), (0, 3))),
    "minor": ((0, 2, 3, 5, 7, 8, 10), ((0, 5, 2, 6), (0, 3, 6, 2), (0, 6, 5, 6), (5, 6, 0, 0), (0, 3, 0, 4))),
    "harmonic minor": ((0, 2, 3, 5, 7, 8, 11), ((0, 3, 4, 0), (0, 5, 3, 4), (0, 5, 1, 4))),
    "dorian": ((0, 2, 3, 5, 7, 9, 10), ((0, 3), (0, 2, 6, 3), (0, 6, 3, 0), (1, 0, 3, 6))),
    "mixolydian": ((0, 2, 4, 5, 7, 9, 10), ((0, 6, 3, 0), (0, 3, 6, 3), (0, 4, 6, 3))),
}
# Patterns have one character a sixteenth: a digit is a velocity (9 loudest), a dot a rest; 12 of them in 6/8 and 3/4.
GROOVES = {  # genre, tempo range in BPM, swing (sixteenths to a half, share of the first half), kick, snare
    "rock": ("Rock", (96, 150), (2, 0.5), "9.......9.......", "....9.......9..."),
    "drive": ("Rock", (100, 160), (2, 0.5), "9.....7.9.8.....", "....9.......9..."),
    "four": ("Electronic", (114, 132), (1, 0.54), "9...9...9...9...", "....7.......7..."),
    "break": ("Electronic", (140, 170), (1, 0.5), "9.9.......99....", "....9..4.4..9..4"),
    "boombap": ("Hip-Hop", (74, 102), (1, 0.58), "9......7..9.....", "....9..3.3..9..3"),
    "funk": ("Pop", (92, 118), (1, 0.54), "9.8...7...8..7..", "....9..4.4..9..4"),
    "motown": ("Pop", (88, 132), (2, 0.52), "9..8....9..8....", "8...8...8...8..."),
    "half": ("Experimental", (70, 150), (2, 0.5), "9.....7...7.....", "........9......."),
    "onedrop": ("International", (70, 92), (2, 0.55), "........9.......", "........8......."),
    "bossa": ("International", (96, 140), (1, 0.5), "9..79..79..79..7", "7..7..7...7..7.."),
    "swing": ("Instrumental", (100, 168), (2, 0.64), "7...5...7...5...", "....6..3....6..5"),
    "six": ("Folk", (70, 110), (2, 0.5), "9....7......", "......9....."),
    "waltz": ("Folk", (84, 126), (2, 0.5), "9...........", "....7...7..."),
    "march": ("Folk", (84, 126), (2, 0.5), "9...7...9...7...", "8.546.458.546.55"),
}
CYMBALS = ("8.6.8.6.8.6.8.6.", "8...7...8...7...", "8565856585658565", "..8...8...8...8.", "8.658.658.658.65",
           "8..68..68..68.6.", "7...8.67...8.67.", "85.585.585.585.5")  # fmt: skip
BASSLINES = {  # rhythm, steps of the chord's scale in turn (0 leads to the next chord), share held
    "roots": ("8.7.8.7.8.7.8.7.", "1", 0.9),
    "octaves": ("8.6.8.6.8.6.8.6.", "18", 0.6),
    "walking": ("8...7...8...7...", "1350", 0.95),
    "long": ("8.......7.....6.", "115", 1.0),
    "pushed": ("8..7..6.8..7..6.", "1158", 0.8),
    "funk": ("8..5.6.8..7.5..6", "181758", 0.5),
    "dub": ("8.....7.8..7....", "15131", 0.7),
    "bossa": ("8.....6.8.....6.", "1155", 0.9),
    "sixteenths": ("8.558.558.558.55", "1118", 0.6),
    "arpeggio": ("8.6.7.6.8.6.7.6.", "13585351", 0.8),
}
FIGURES = {  # rhythms, voicing, share held, roles that play it
    "pad": (("8...............", "8.......7......."), "chord", 1.0, ("pad", "pad", "keys")),
    "strum": (("8...6.58..6.8.65", "8..7..6.8..7.65.", "8.6.8.6.8.6.8.65"), "chord", 0.8, ("guitar",)),
    "comp": (("8..7....6..7..5.", "..8....7..8.....", "8.....7...6.8..."), "chord", 0.6, ("keys", "guitar")),
    "quarters": (("8...7...8...7...", "8...6...7...6..."), "chord", 0.85, ("keys", "guitar")),
    "offbeat": (("..8...8...8...8.", "....8.......8...", "..86..86..86..86"), "chord", 0.3, ("guitar", "keys")),
    "power": (("9.7.7.7.9.7.7.7.", "9..7..7.9..7..7.", "9.779.779.779.77"), "power", 0.7, ("drive",)),
    "rise": (("8.6.7.6.8.6.7.6.", "8565756585657565"), "rise", 1.2, ("pluck", "keys", "solo")),
    "weave": (("8.6.7.6.8.6.7.6.", "8.66.66.8.66.66."), "weave", 1.0, ("guitar", "pluck")),
    "riff": (("8..67..8..6.7...", "8.6..7.6..8...6.", "8.8...7.8.8..67."), "riff", 0.7, ("pluck", "solo", "drive")),
    "stabs": (("8.....8.........", "..........8..8..", "8..8............"), "chord", 0.4, ("brass", "keys")),
}
FORM = ("intro", "verse", "verse", "chorus", "chorus", "bridge", "chorus")
KEYS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
WORDS = (
    ("Amber", "Quiet", "Paper", "Velvet", "Northern", "Hollow", "Winter", "Electric", "Scarlet", "Slow", "Neon"),
    ("Window", "River", "Letter", "Harbour", "Garden", "Summer", "Engine", "Lantern", "Signal", "Comet", "Parade"),
)  # fmt: skip


@dataclass(frozen=True)
class Note:
    """One note: start and end in seconds, MIDI pitch, velocity 1 to 127; a tied one is reached by gliding."""

    start: float
    end: float
    pitch: int
    velocity: int
    tied: bool = False


@dataclass(frozen=True)
class Voice:
    """How a lead is sung."""

    tract: float  # formants are this many times those of the vowel table
    vibrato_hz: float
    vibrato_semitones: float
    glide_seconds: float
    scoop: float  # semitones that a word starts too low
    formants: float  # share of the vowel filter
    breath: float  # noise in the voice, linear
    vowels: tuple[int, ...]


class Control(NamedTuple):
    """From some second on, another value of a part's ``volume``, ``expression``, ``bend`` or ``range``.

    Volume and expression are 0 to 127, the bend 0 to 16383, its range in semitones either way.
    """

    seconds: float
    name: str
    value: float


@dataclass(frozen=True)
class Part:
    """One instrument: its stem, General MIDI program (or kit, if drums), notes, and its place in the mix."""

    stem: str
    role: str
    program: int
    notes: tuple[Note, ...]
    level: float = 1.0
    pan: float = 0.0  # -1 left, 1 right
    send: float = 0.1  # to the reverberation, linear
    tuning: float = 0.0  # semitones
    voice: Voice | None = None
    font: str = ""  # file of the sound font; empty: the embedded one
    bank: int = 0  # of the font; kits are in bank 128, but for fonts that hold nothing else
    controls: tuple[Control, ...] = ()


@dataclass(frozen=True)
class Song:
    """A composed song: parts full of notes, and what is needed to mix them."""

    name: str
    seed: tuple[int, int, int]
    seconds: float
    key: str
    mode: str
    bpm: float
    genre: str
    groove: str
    sections: tuple[tuple[str, float], ...]  # name, start in seconds
    parts: tuple[Part, ...]
    levels_db: dict[str, float]
    room_seconds: float
    ratio: float  # of the bus compressor

    def describe(self) -> dict:
        """The song for ``songs.json``: of its parts, what plays how many notes."""
        parts = [{"stem": p.stem, "role": p.role, "program": p.program, "notes": len(p.notes)} for p in self.parts]
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"parts": parts}


def compose(seed: int, kind: str, index: int, seconds: float) -> Song:
    """Song ``index`` of a kind; the same arguments give the same song, whatever else the corpus holds."""
    return _Composer((seed, KINDS.index(kind), index), kind == "test", seconds).song(kind, index)


def drum_part(rng: np.random.Generator, role: str, kit: int, notes: tuple[Note, ...]) -> Part:
    """A part of `DRUMS`, tuned and placed in the mix by chance."""
    level, send = DRUMS[role]
    return Part(
        "drums", role, kit, notes, level * 10 ** rng.uniform(-0.15, 0.15), rng.uniform(-0.25, 0.25),
        send * rng.uniform(0.3, 1.5), rng.uniform(-2.5, 2.5), bank=128,
    )  # fmt: skip


def draw_voice(rng: np.random.Generator, centre: int, program: int) -> Voice:
    """A singer whose range is about the MIDI pitch ``centre``, to sing over the sound of a ``program``."""
    return Voice(
        tract=(0.84 if centre < 60 else 1.0) * rng.uniform(0.95, 1.1),
        vibrato_hz=rng.uniform(4.8, 6.4),
        vibrato_semitones=rng.uniform(0.15, 0.5),
        glide_seconds=rng.uniform(0.06, 0.16),
        scoop=rng.uniform(0.3, 2.0),
        # the font's choirs have vowels of their own; other programs get theirs from the filter alone
        formants=rng.uniform(0.4, 0.7) if program in (52, 53) else rng.uniform(0.8, 0.95),
        breath=10 ** rng.uniform(-2.6, -1.6),
        vowels=tuple(rng.permutation(5)[:3].tolist()),
    )


def draw_mix(rng: np.random.Generator) -> dict[str, object]:
    """The fields of a `Song` that mix it: the stems' levels, the room, and the bus compressor."""
    return {
        "levels_db": {stem: round(level + rng.uniform(-3, 3), 2) for stem, level in BALANCE.items()},
        "room_seconds": round(rng.uniform(0.4, 2.0), 3),
        "ratio": round(rng.uniform(1.5, 4.0), 2),
    }


class _Composer:
    """The choices that the parts of one song share."""

    def __init__(self, seed: tuple[int, int, int], reserved: bool, seconds: float) -> None:
        self.seed, self.seconds, self.rng = seed, seconds, np.random.default_rng(seed)
        # A test song's parts take turns between kept and common programs; the index shifts whose turn comes first.
        self.turn = seed[2] if reserved else None
        self.groove = self.choice(list(GROOVES))
        self.genre, tempi, self.swing, *self.beats = GROOVES[self.groove]
        self.mode = self.choice(list(MODES))
        self.scale, progressions = MODES[self.mode]
        self.key = int(self.rng.integers(12))
        self.bpm = self.rng.uniform(*tempi)
        self.steps = len(self.beats[0])
        self.bars = math.ceil(seconds * self.bpm / 15 / self.steps)
        self.sections = self.form()
        self.progressions = {name: self.choice(progressions) for name in FORM}
        self.change = 2 if self.steps == 16 and self.bpm < 100 and self.chance(0.4) else 1  # chords a bar
        self.thirds = (0, 2, 4, 6) if self.chance(0.35) else (0, 2, 4)

    def choice(self, options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def program(self, options: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
        if self.turn is None:
            return self.choice(options[0])
        self.turn += 1
        return self.choice(options[self.turn % 2])

    def form(self) -> list[tuple[str, int, int]]:
        """Sections as (name, first bar, end bar), entering the form anywhere, as a clip of a song does."""
        unit = 4 if self.bars >= 14 else 2
        place = int(self.rng.integers(7)) if self.bars >= 3 * unit else int(self.rng.integers(1, 4))
        starts = range(0, self.bars, unit)
        return [(FORM[(place + i) % 7], bar, min(bar + unit, self.bars)) for i, bar in enumerate(starts)]

    def time(self, bar: int, step: float) -> float:
        """Seconds at a sixteenth of a bar, swung."""
        unit, share = self.swing
        pair, place = divmod(step, 2 * unit)
        swung = place * 2 * share if place < unit else 2 * unit - (2 * unit - place) * 2 * (1 - share)
        return (bar * self.steps + pair * 2 * unit + swung) * 15 / self.bpm

    def pitch(self, degree: int) -> int:
        """MIDI pitch of a scale degree, 0 being the tonic from C4 up."""
        return 60 + self.key + 12 * (degree // 7) + self.scale[degree % 7]

    def chord(self, section: str, bar: int, step: int = 0) -> tuple[int, ...]:
        """Scale degrees of the chord that sounds."""
        progression = self.progressions[section]
        root = progression[(bar * self.change + step * self.change // self.steps) % len(progression)]
        return tuple(root + third for third in self.thirds)

    def voiced(self, degrees: tuple[int, ...], centre: int) -> list[int]:
        """The chord's pitches, each in the octave nearest to ``centre``: chords change by small steps."""
        return sorted(centre - 6 + (self.pitch(d) - centre + 6) % 12 for d in degrees)

    def varied(self, pattern: str, rate: float) -> str:
        """A pattern with some of its soft beats left out and some rests filled softly."""
        cells = zip(pattern[: self.steps], self.rng.random(self.steps) < rate, strict=True)
        return "".join(("4" if c == "." else "." if c < "7" else c) if flip else c for c, flip in cells)

    def hits(self, pattern: str) -> Iterator[tuple[int, int, int]]:
        """(step, steps until the next hit or the bar's end, velocity) of a pattern."""
        places = [i for i, cell in enumerate(pattern) if cell != "."]
        for i, after in zip(places, [*places[1:], self.steps], strict=False):
            yield i, after - i, int(pattern[i]) * 13

    def note(self, start: float, length: float, pitch: int, velocity: float) -> Note:
        """A played note: a little early or late, a little louder or softer."""
        start = max(0.0, start + self.rng.normal(0, 0.005) + self.lag)
        velocity = int(np.clip(velocity + self.rng.normal(0, 5), 15, 127))
        return Note(round(start, 5), round(start + max(length, 0.04), 5), int(pitch), velocity)

    def play(self, active: dict[str, bool], bar_notes: Callable[[str, int, bool], list[Note]]) -> tuple[Note, ...]:
        """Notes of a part: ``bar_notes(section, bar, last bar of the section)`` where the part is active."""
        self.lag = self.rng.uniform(-0.008, 0.012)
        notes = [
            note
            for name, first, end in self.sections if active[name]
            for bar in range(first, end)
            for note in bar_notes(name, bar, bar == end - 1)
            if note.start < self.seconds
        ]  # fmt: skip
        return tuple(sorted(notes, key=lambda note: (note.start, note.pitch)))

    def drums(self) -> list[Part]:
        """Kick, snare and toms, cymbals and percussion: three parts of one kit, to be tuned and mixed apart."""
        rng, kit = self.rng, self.program(KITS)
        kick, snare, cymbal, extra = (self.varied(p, 0.06) for p in (*self.beats, *rng.choice(CYMBALS, 2)))
        boom, clap = self.choice((35, 36, 36)), self.choice((38, 38, 40, 37, 39) if self.bpm < 120 else (38, 38, 40))
        hats = {"verse": 42, "intro": 42, "bridge": self.choice((42, 44, 51)), "chorus": self.choice((42, 51, 46))}
        shaker = self.choice((54, 56, 70, 62, 82, 64))

        def beat(bar: int, pattern: str, key: int, share: float = 1.0) -> list[Note]:
            return [self.note(self.time(bar, i), 0.2, key, share * v) for i, _, v in self.hits(pattern)]

        def low(section: str, bar: int, last: bool) -> list[Note]:
            return beat(bar, self.varied(kick, 0.08 if section == "chorus" else 0.04), boom)

        def middle(section: str, bar: int, last: bool) -> list[Note]:
            turn = self.steps - self.choice((4, 4, 8)) if last and self.chance(0.7) else self.steps
            toms = sorted(rng.choice((50, 48, 45, 41, clap), self.steps - turn), reverse=True)
            fill = [(i, tom) for i, tom in enumerate(toms, turn) if i % 2 == 0 or self.chance(0.6)]
            return beat(bar, snare[:turn], clap) + [self.note(self.time(bar, i), 0.2, t, 80 + 2 * i) for i, t in fill]

        def high(section: str, bar: int, last: bool) -> list[Note]:
            notes = beat(bar, self.varied(cymbal, 0.05), hats[section], 0.85)
            if section == "chorus" and any(bar == first for _, first, _ in self.sections):
                notes.append(self.note(self.time(bar, 0), 1.0, 49, 95))
            if last and self.chance(0.5):
                notes.append(self.note(self.time(bar, self.steps - 2), 0.2, 46, 90))
            return notes + (beat(bar, extra, shaker, 0.6) if section in busy else [])

        busy = self.choice((("chorus", "bridge"), ("chorus",), ()))
        active = {"intro": self.chance(0.5), "verse": True, "chorus": True, "bridge": self.chance(0.6)}
        lines = zip(DRUMS, (low, middle, high), strict=True)
        return [drum_part(rng, role, kit, self.play(active, bar_notes)) for role, bar_notes in lines]

    def bass(self) -> Part:
        """One note at a time between E1 and about E3."""
        rhythm, tones, held = BASSLINES[self.choice(list(BASSLINES))]
        rhythm = self.varied(rhythm, 0.08)

        def bar_notes(section: str, bar: int, last: bool) -> list[Note]:
            notes = []
            for (i, length, velocity), tone in zip(self.hits(rhythm), cycle(tones), strict=False):
                root = self.chord(section, bar, i)[0]
                low = 28 + (self.pitch(root) - 28) % 12
                pitch = low + self.pitch(root + int(tone) - 1) - self.pitch(root)
                if tone == "0":
                    pitch = 27 + (self.pitch(self.chord(section, bar + 1)[0]) - 28) % 12
                seconds = held * (self.time(bar, i + length) - self.time(bar, i)) - 0.01
                notes.append(self.note(self.time(bar, i), seconds, pitch, velocity + 8))
            return notes

        active = {"intro": self.chance(0.6), "verse": True, "chorus": True, "bridge": self.chance(0.8)}
        notes = self.play(active, bar_notes)
        return Part("bass", "bass", self.program(PROGRAMS["bass"]), notes, send=0.02 * self.rng.random())

    def accompaniment(self, figure: str, main: bool) -> Part:
        """A figure over the chords; the main one never rests."""
        rhythms, voicing, held, roles = FIGURES[figure]
        rhythm, role = self.varied(self.choice(rhythms), 0.06 * (figure != "pad")), self.choice(roles)
        centre = int(self.rng.integers(55, 68)) + 7 * (role in ("pluck", "solo"))
        strum = self.rng.uniform(0.008, 0.02) * (role == "guitar")
        order, riff = self.rng.permutation(4), self.rng.choice((0, 1, 2, 4, 5, 7), 32)

        def pitches(section: str, bar: int, step: int, count: int) -> list[int]:
            chord = self.chord(section, bar, step)
            voiced = self.voiced(chord, centre)
            if voicing == "power":
                root = 40 + (self.pitch(chord[0]) - 40) % 12
                return [root, root + 7, root + 12]
            if voicing == "riff":
                return [self.pitch(int(riff[count + 16 * (bar % 2)]))]
            if voicing == "chord":
                return voiced
            return [[*voiced, voiced[0] + 12][(order[count % 4] if voicing == "weave" else count) % 4]]

        def bar_notes(section: str, bar: int, last: bool) -> list[Note]:
            return [
                self.note(self.time(bar, i) + k * strum, held * (self.time(bar, i + n) - self.time(bar, i)), p, v)
                for count, (i, n, v) in enumerate(self.hits(rhythm))
                for k, p in enumerate(pitches(section, bar, i, count))
            ]

        active = {name: main or self.chance(p) for name, p in (("intro", 0.6), ("verse", 0.7), ("bridge", 0.6))}
        notes = self.play(active | {"chorus": True}, bar_notes)
        level, pan = (1.0 if main else 0.7) * 10 ** self.rng.uniform(-0.2, 0.1), self.rng.uniform(-0.8, 0.8)
        return Part("other", role, self.program(PROGRAMS[role]), notes, level, pan, self.rng.uniform(0.05, 0.35))

    def motif(self, steps: int) -> list[tuple[int, int, int]]:
        """A phrase as (step, steps, move in scale degrees); it ends well before its bars do: there one breathes."""
        place, end = int(self.rng.integers(0, 3)) * 2, int(steps * self.rng.uniform(0.6, 0.8))
        lengths = (1, 2, 2, 3, 4, 4) if self.bpm < 107 else (2, 2, 4, 4, 6)
        phrase = []
        while place < end:
            length = self.choice(lengths)
            phrase.append((place, length, self.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3))))
            place += length + 2 * self.chance(0.06)
        place, length, move = phrase[-1]
        return [*phrase[:-1], (place, min(length + 4, steps - place - 2), move)]

    def melody(self, centre: int, sections: tuple[str, ...], tie: float) -> tuple[Note, ...]:
        """Phrases of two bars, repeated A A B A over changing chords; no two notes ever overlap."""
        self.lag = self.rng.uniform(-0.01, 0.02)
        motifs = {name: [self.motif(2 * self.steps) for _ in range(2)] for name in sections}
        middle = round((centre - 60 - self.key) * 7 / 12)
        phrases = [(s, bar, end) for s, first, end in self.sections if s in sections for bar in range(first, end, 2)]
        notes = []
        for count, (section, bar, end) in enumerate(phrases):
            degree = middle + 2 * (section == "chorus") + int(self.rng.integers(-2, 3))
            motif = [n for n in motifs[section][count % 4 == 2] if n[0] + n[1] < (end - bar) * self.steps]
            for step, length, move in motif:
                degree += move if abs(degree + move - middle) <= 5 else -move
                if step % 4 == 0 and self.chance(0.75):
                    chord = {d % 7 for d in self.chord(section, bar + step // self.steps, step % self.steps)}
                    degree = min(range(degree - 3, degree + 4), key=lambda d: (d % 7 not in chord, abs(d - degree)))
                seconds = self.time(bar, step + length) - self.time(bar, step)
                notes.append(self.note(self.time(bar, step), seconds, self.pitch(degree), 85 + 12 * (step % 8 == 0)))
        notes = sorted((n for n in notes if n.end < self.seconds), key=lambda n: n.start)
        for i, (note, after) in enumerate(pairwise(notes)):
            if abs(after.start - note.end) < 0.03 and self.chance(tie):
                notes[i], notes[i + 1] = replace(notes[i], end=after.start), replace(after, tied=True)
            else:
                notes[i] = replace(notes[i], end=max(min(note.end, after.start - 0.05), note.start + 0.03))
        return tuple(notes)

    def vocals(self) -> Part:
        """The lead: sung where the form has words, silent between phrases."""
        rng, program = self.rng, self.program(PROGRAMS["voice"])
        centre = self.choice(CENTRES)
        voice = draw_voice(rng, centre, program)
        sung = ("verse", "chorus", "bridge") if self.chance(0.5) else ("verse", "chorus")
        notes = self.melody(centre, sung, rng.uniform(0.3, 0.7))
        return Part("vocals", "voice", program, notes, send=rng.uniform(0.06, 0.3), voice=voice)

    def song(self, kind: str, index: int) -> Song:
        """Compose every part."""
        rng, silent = self.rng, str(self.rng.choice(["vocals", "drums", ""], p=[0.12, 0.08, 0.8]))
        parts = [] if silent == "vocals" else [self.vocals()]
        parts += [self.bass(), *([] if silent == "drums" else self.drums())]
        figures = rng.choice(list(FIGURES), self.choice((1, 2, 2, 3)), replace=False)
        parts += [self.accompaniment(figure, main=i == 0) for i, figure in enumerate(figures)]
        if silent == "vocals" or (len(figures) < 3 and self.chance(0.3)):
            notes = self.melody(int(rng.integers(66, 76)), FORM if silent == "vocals" else ("intro", "bridge"), 0.0)
            parts.append(Part("other", "solo", self.program(PROGRAMS["solo"]), notes, 0.9, rng.uniform(-0.5, 0.5), 0.2))
        return Song(
            name=f"{kind.capitalize()} {index + 1:03d} - {self.choice(WORDS[0])} {self.choice(WORDS[1])}",
            seed=self.seed, seconds=self.seconds, key=KEYS[self.key], mode=self.mode, bpm=self.bpm, genre=self.genre,
            groove=self.groove,
            sections=tuple((name, round(self.time(bar, 0), 3)) for name, bar, _ in self.sections),
            parts=tuple(part for part in parts if part.notes),
            **draw_mix(rng),
        )  # fmt: skip
