"""Standard MIDI files, read into lines: the notes of one program on one channel, and how they are played."""

from __future__ import annotations

import io
import itertools
import re
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import mido
import numpy as np

from lib.data.audio import UndecodableError
from lib.data.composed.compose import Control, Note

MOST_BYTES = 2_000_000
"""Size of a file, some 250,000 notes: songs have 20,000 at most."""
LONGEST = 3600
"""Seconds of a song."""
UNRELEASED = 2.0
"""Seconds that a note sounds which the file never ends."""
SHORTEST = 0.03
DRUM_CHANNEL = 9  # the tenth
KEY_SIGNATURE = re.compile(rb"\xff\x59\x02..", re.DOTALL)
"""Not needed here, and mido refuses a song for a key that does not exist."""


@dataclass(frozen=True)
class Line:
    """What one program plays on one channel: notes by time, and the channel's controls by time."""

    channel: int
    program: int
    name: str  # of the channel's tracks
    notes: tuple[Note, ...]
    controls: tuple[Control, ...]


@dataclass(frozen=True)
class Score:
    """A song: its lines, its length in seconds (to the end of the last note), its first tempo."""

    seconds: float
    bpm: float
    lines: tuple[Line, ...]


def read(path: Path) -> Score:
    """The score in a file of type 0 or 1. Raises: `UndecodableError`, which says what is wrong with the file."""
    file = _opened(path)
    events, tempi, names = [], [(0, 500_000)], defaultdict(str)
    for track in file.tracks:
        timed = list(zip(itertools.accumulate(message.time for message in track), track, strict=True))
        messages = [(tick, message) for tick, message in timed if hasattr(message, "channel") and not message.is_meta]
        events += messages
        tempi += [(tick, message.tempo or 1) for tick, message in timed if message.type == "set_tempo"]
        title = " ".join(message.name for message in track if message.type == "track_name")
        for channel in {message.channel for _, message in messages}:
            names[channel] += f" {title}"
    if not any(message.type == "note_on" for _, message in events):
        raise UndecodableError(path, "no notes in it")
    events.sort(key=lambda event: (event[0], event[1].type == "note_on"))  # a note ends before it sounds again
    tempi.sort(key=lambda tempo: tempo[0])
    seconds = _seconds([tick for tick, _ in events], tempi, file.ticks_per_beat)
    if seconds[-1] > LONGEST:
        raise UndecodableError(path, f"lasts {seconds[-1]:.0f} s, more than {LONGEST} s")
    channels = defaultdict(_Channel)
    for now, (_, message) in zip(seconds.tolist(), events, strict=True):
        channels[message.channel].play(now, message)
    lines = [line for number, channel in sorted(channels.items()) for line in channel.lines(number, names[number])]
    last = max(note.end for line in lines for note in line.notes)
    return Score(last, round(60e6 / [tempo for tick, tempo in tempi if tick == 0][-1], 2), tuple(lines))


def _opened(path: Path) -> mido.MidiFile:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise UndecodableError(path, error.strerror or str(error)) from error
    if size > MOST_BYTES:
        raise UndecodableError(path, f"{size / 1e6:.1f} MB: more than the {MOST_BYTES / 1e6:g} MB of any song")
    if data[:4] != b"MThd":
        raise UndecodableError(path, "no MIDI file")
    try:
        file = mido.MidiFile(file=io.BytesIO(KEY_SIGNATURE.sub(b"\xff\x59\x02\0\0", data)))
    except EOFError as error:
        raise UndecodableError(path, "truncated: its tracks break off") from error
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise UndecodableError(path, f"a damaged MIDI file ({error})") from error
    if file.type > 1:
        raise UndecodableError(path, f"MIDI of type {file.type}, which holds patterns and no song: save it as type 1")
    if file.ticks_per_beat <= 0:
        raise UndecodableError(path, "counts time in SMPTE frames: save it with ticks a beat")
    return file


def _seconds(ticks: list[int], tempi: list[tuple[int, int]], ticks_per_beat: int) -> np.ndarray:
    """Seconds at (ascending) ticks, under tempi as (tick, microseconds a beat)."""
    at, tempo = np.array(tempi, float).T
    starts = np.concatenate([[0], np.cumsum(np.diff(at) * tempo[:-1])])
    index = np.searchsorted(at, ticks, side="right") - 1
    return (starts[index] + (np.array(ticks) - at[index]) * tempo[index]) / (1e6 * ticks_per_beat)


@dataclass
class _Channel:
    """A channel's state while its messages come in."""

    program: int = 0
    pedal: bool = False
    parameter: tuple[int, int] = (127, 127)  # the registered parameter that data entry sets; none
    sounding: dict[int, tuple[float, int, int]] = field(default_factory=dict)  # by pitch: start, velocity, program
    sustained: set[int] = field(default_factory=set)
    notes: dict[int, list[Note]] = field(default_factory=lambda: defaultdict(list))
    controls: list[Control] = field(default_factory=list)

    def play(self, now: float, message: mido.Message) -> None:
        """Take a message in. The pedal lengthens notes here: the synthesiser knows none."""
        match message.type:
            case "note_on" if message.velocity:
                self.end(now, message.note)
                self.sounding[message.note] = now, message.velocity, self.program
            case "note_on" | "note_off":
                if self.pedal:
                    self.sustained.add(message.note)
                else:
                    self.end(now, message.note)
            case "program_change":
                self.program = message.program
            case "pitchwheel":
                self.controls.append(Control(now, "bend", message.pitch + 8192))
            case "control_change":
                self.control(now, message.control, message.value)

    def end(self, now: float, pitch: int) -> None:
        """Write down a note that sounds."""
        self.sustained.discard(pitch)
        if pitch in self.sounding:
            start, velocity, program = self.sounding.pop(pitch)
            self.notes[program].append(Note(start, max(now, start + SHORTEST), pitch, velocity))

    def control(self, now: float, number: int, value: int) -> None:
        """Volume, expression, pedal, range of the bend, reset of all, end of all notes."""
        if number in (7, 11):
            self.controls.append(Control(now, "volume" if number == 7 else "expression", value))
        elif number == 64:
            self.pedal = value >= 64
            if not self.pedal:
                for pitch in list(self.sustained):
                    self.end(now, pitch)
        elif number in (100, 101):
            coarse, fine = self.parameter
            self.parameter = (value, fine) if number == 101 else (coarse, value)
        elif number == 6 and self.parameter == (0, 0):
            self.controls.append(Control(now, "range", min(value, 24)))
        elif number == 121:
            self.controls += [Control(now, "expression", 127), Control(now, "bend", 8192)]
        elif number in (120, 123):
            for pitch in list(self.sounding):
                self.end(now, pitch)

    def lines(self, number: int, name: str) -> list[Line]:
        """A line per program; drums are one, whatever kit they ask for."""
        for pitch, (start, _, _) in list(self.sounding.items()):
            self.end(start + UNRELEASED, pitch)
        if number == DRUM_CHANNEL:
            self.notes = {0: [note for notes in self.notes.values() for note in notes]} if self.notes else {}
        return [
            Line(number, program, name, tuple(sorted(notes, key=lambda n: (n.start, n.pitch))), tuple(self.controls))
            for program, notes in sorted(self.notes.items())
        ]
