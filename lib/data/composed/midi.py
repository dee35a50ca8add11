"""Standard MIDI files, read into lines: the notes of one program on one channel, and how they are played."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

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
NOTE_ON = 0x9
TEMPO, NAME, END = 0x51, 0x03, 0x2F


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


class _Event(NamedTuple):
    """A message of a channel, its ``kind`` the upper half of the status byte."""

    tick: int
    kind: int
    channel: int
    first: int
    second: int


def read(path: Path) -> Score:
    """The score in a file of type 0 or 1. Raises: `UndecodableError`, which says what is wrong with the file."""
    ticks_per_beat, tracks = _parsed(path)
    events, tempi, names = [], [(0, 500_000)], defaultdict(str)
    for messages, meta in tracks:
        events += messages
        tempi += [(tick, int.from_bytes(value) or 1) for tick, kind, value in meta if kind == TEMPO]
        title = " ".join(value.decode("latin1") for _, kind, value in meta if kind == NAME)
        for channel in {event.channel for event in messages}:
            names[channel] += f" {title}"
    if not any(event.kind == NOTE_ON for event in events):
        raise UndecodableError(path, "no notes in it")
    events.sort(key=lambda event: (event.tick, event.kind == NOTE_ON))  # a note ends before it sounds again
    tempi.sort(key=lambda tempo: tempo[0])
    seconds = _seconds([event.tick for event in events], tempi, ticks_per_beat)
    if seconds[-1] > LONGEST:
        raise UndecodableError(path, f"lasts {seconds[-1]:.0f} s, more than {LONGEST} s")
    channels = defaultdict(_Channel)
    for now, event in zip(seconds.tolist(), events, strict=True):
        channels[event.channel].play(now, event)
    lines = [line for number, channel in sorted(channels.items()) for line in channel.lines(number, names[number])]
    last = max(note.end for line in lines for note in line.notes)
    return Score(last, round(60e6 / [tempo for tick, tempo in tempi if tick == 0][-1], 2), tuple(lines))


def _parsed(path: Path) -> tuple[int, list[tuple[list[_Event], list[tuple[int, int, bytes]]]]]:
    """Ticks a beat, and for each track its events and its meta messages (tick, kind, content)."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise UndecodableError(path, error.strerror or str(error)) from error
    if size > MOST_BYTES:
        raise UndecodableError(path, f"{size / 1e6:.1f} MB: more than the {MOST_BYTES / 1e6:g} MB of any song")
    if data[:4] != b"MThd" or len(data) < 14:
        raise UndecodableError(path, "no MIDI file")
    length, kind, count, ticks_per_beat = struct.unpack(">IHHh", data[4:14])
    if kind > 1:
        raise UndecodableError(path, f"MIDI of type {kind}, which holds patterns and no song: save it as type 1")
    if ticks_per_beat <= 0:
        raise UndecodableError(path, "counts time in SMPTE frames: save it with ticks a beat")
    at, tracks = 8 + length, []
    while len(tracks) < count:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8])
        if at + 8 + size > len(data) or len(data) < at + 8:
            raise UndecodableError(path, f"truncated: {len(tracks)} of {count} tracks are whole")
        if name == b"MTrk":
            try:
                tracks.append(_track(data[at + 8 : at + 8 + size]))
            except (IndexError, ValueError) as error:
                raise UndecodableError(path, f"damaged in track {len(tracks) + 1} of {count}") from error
        at += 8 + size
    return ticks_per_beat, tracks


def _track(data: bytes) -> tuple[list[_Event], list[tuple[int, int, bytes]]]:
    """A track's events and meta messages. Raises: IndexError, ValueError on data that is none."""
    events, meta, at, tick, status = [], [], 0, 0, 0
    while at < len(data):
        delta, at = _number(data, at)
        tick += delta
        if data[at] >= 0x80:  # else the status of the message before holds
            status, at = data[at], at + 1
        if status == 0xFF:
            kind = data[at]
            length, at = _number(data, at + 1)
            meta.append((tick, kind, data[at : at + length]))
            if kind == END:
                break
            at += length
        elif status in (0xF0, 0xF7):
            length, at = _number(data, at)
            at += length
        elif 0x80 <= status < 0xF0:
            size = 1 if 0xC <= status >> 4 <= 0xD else 2
            first, second = data[at], data[at + size - 1]
            if max(first, second) > 127:
                raise ValueError(status)
            events.append(_Event(tick, status >> 4, status & 15, first, second))
            at += size
        else:
            raise ValueError(status)
    return events, meta


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place after it."""
    value = 0
    while data[at] >= 0x80:
        value, at = value << 7 | data[at] & 127, at + 1
    return value << 7 | data[at], at + 1


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

    def play(self, now: float, event: _Event) -> None:
        """Take an event in. The pedal lengthens notes here: the synthesiser knows none."""
        match event.kind:
            case 0x9 if event.second:  # note on
                self.end(now, event.first)
                self.sounding[event.first] = now, event.second, self.program
            case 0x8 | 0x9:  # note off
                if self.pedal:
                    self.sustained.add(event.first)
                else:
                    self.end(now, event.first)
            case 0xC:
                self.program = event.first
            case 0xE:
                self.controls.append(Control(now, "bend", event.second << 7 | event.first))
            case 0xB:
                self.control(now, event.first, event.second)

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
