"""Sound fonts: what instruments and kits a file holds, which files hold the same, and which are kept for test songs."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lib import UserError
from lib.data.composed.render import EMBEDDED_FONT
from lib.data.tracks import content_digest
from lib.profile.fields import EMBEDDED, project_path

PERCUSSION = 128  # the bank of kits
KITS = (0, 8, 16, 24, 25, 32, 40)
"""Kits of General MIDI 2 whose keys are those of a drum set."""
MELODIC, DRUMS_ALONE = 64, 16
"""From how many programs on a font plays songs; below how many presets one without a bank of kits holds kits alone."""
ALIKE = 0.2
"""Share of sample names from which two fonts are one: a mono version shares 0.9, two kits with the same cymbals 0.4,
fonts of different origin 0.02 at most."""


class Kit(NamedTuple):
    """A drum kit: a preset of a font."""

    path: str
    bank: int
    preset: int


@dataclass(frozen=True)
class Font:
    """What a file holds: programs of General MIDI (none, if it does not play songs), kits, the names of its samples."""

    path: str
    programs: tuple[int, ...]
    kits: tuple[Kit, ...]
    samples: frozenset[str]

    def nearest(self, program: int) -> int:
        """The program itself, or the one that stands in for it: of the same family, if there is one."""
        return min(self.programs, key=lambda other: (other // 8 != program // 8, abs(other - program), other))


class Side(NamedTuple):
    """What the songs of one side are played with."""

    fonts: tuple[Font, ...]
    kits: tuple[Kit, ...]


def font_path(name: str) -> Path:
    """The file of a font that a profile names."""
    return Path(EMBEDDED_FONT) if name == EMBEDDED else project_path(name)


def digest(path: Path) -> str:
    """Identifies a font's content. Raises: UserError if it cannot be read."""
    try:
        return content_digest({"font": path})
    except OSError as error:
        raise UserError(f"corpus.arranged.fonts: {path}: {error.strerror or error}") from error


def inspect(path: Path) -> Font:
    """Read a font's table of contents, not its sounds.

    Raises: UserError for a file that is none, is cut short, or holds neither kits nor most of General MIDI.
    """
    try:
        with open(path, "rb") as file:
            presets, samples = _contents(path, file)
    except OSError as error:
        raise UserError(f"corpus.arranged.fonts: {path}: {error.strerror or error}") from error
    except (struct.error, KeyError) as error:
        raise UserError(f"corpus.arranged.fonts: {path}: a damaged sound font; fetch it again") from error
    programs = tuple(sorted({program for bank, program in presets if bank == 0}))
    kits = sorted(pair for pair in presets if pair[0] == PERCUSSION)
    kits = [pair for pair in kits if pair[1] in KITS] or kits or (presets if len(presets) < DRUMS_ALONE else [])
    if len(programs) < MELODIC and not kits:
        reason = f"{len(programs)} of General MIDI's 128 programs and no drum kit (bank 128): leave it out"
        raise UserError(f"corpus.arranged.fonts: {path}: {reason}")
    kits = tuple(Kit(str(path), *pair) for pair in kits)
    return Font(str(path), programs if len(programs) >= MELODIC else (), kits, samples)


def _contents(path: Path, file: BinaryIO) -> tuple[list[tuple[int, int]], frozenset[str]]:
    """(bank, program) of every preset, and the names of the samples (SoundFont 2.04, sections 7.2 and 7.10)."""
    kind, size, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if (kind, form) != (b"RIFF", b"sfbk"):
        raise UserError(f"corpus.arranged.fonts: {path}: no SF2 or SF3 sound font")
    end = file.seek(0, 2)
    if end < size + 8:  # the synthesiser crashes on some of these
        raise UserError(f"corpus.arranged.fonts: {path}: truncated: {end} of {size + 8} bytes; fetch it again")
    tables = {}
    for name, at, length in _chunks(file, 12, size + 8):
        file.seek(at)
        if name == b"LIST" and file.read(4) == b"pdta":
            tables = {name: (at, length) for name, at, length in _chunks(file, at + 4, at + length)}
    rows = {}
    for name, layout in ((b"phdr", "<20x2H14x"), (b"shdr", "<20s26x")):  # the last record only marks the end
        at, length = tables[name]
        file.seek(at)
        rows[name] = list(struct.iter_unpack(layout, file.read(length)))[:-1]
    presets = [(bank, program) for program, bank in rows[b"phdr"]]
    return presets, frozenset(name.split(b"\0")[0].decode("latin1") for (name,) in rows[b"shdr"])


def _chunks(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of the chunks between two places of a RIFF file.

    SF2 has even lengths alone; the odd ones of SF3 are not padded, by those who write it and by the synthesiser.
    """
    while start + 8 <= stop:
        file.seek(start)
        name, length = struct.unpack("<4sI", file.read(8))
        yield name, start + 8, length
        start += 8 + length


def families(fonts: Sequence[Font]) -> list[list[Font]]:
    """Fonts grouped so that those which share samples, directly or by way of others, stand together."""

    def alike(one: Font, other: Font) -> bool:
        return len(one.samples & other.samples) >= ALIKE * max(1, min(len(one.samples), len(other.samples)))

    groups: list[list[Font]] = []
    for font in fonts:
        near = [group for group in groups if any(alike(font, other) for other in group)]
        groups = [group for group in groups if group not in near] + [[font, *(f for group in near for f in group)]]
    return groups


def sides(fonts: Sequence[Font], seed: int) -> dict[bool, Side]:
    """What songs are played with, by whether they are for the test: neither fonts nor kits are shared.

    `families` of fonts in a seeded order: of those that play songs a third (at least one) is kept for the test, then
    likewise of those that hold kits alone, of which each side gets one where it has no kit otherwise. A single font
    serves both sides, its kits are divided where it has two or more.

    Raises: UserError where a side would have no instruments or no kit.
    """
    if not any(font.programs for font in fonts):
        raise UserError("corpus.arranged.fonts: none of these plays General MIDI's programs: name one that does")
    groups = families(sorted(fonts, key=lambda font: digest(Path(font.path))))
    groups = [groups[i] for i in np.random.default_rng([seed, 2]).permutation(len(groups))]
    playing = [group for group in groups if any(font.programs for font in group)]
    drums = [group for group in groups if group not in playing]
    if len(fonts) == 1:
        (font,) = fonts
        kept = max(1, len(font.kits) // 3)
        kits = {True: font.kits[-kept:], False: font.kits[:-kept] or font.kits}
        return {key: _side([Font(font.path, font.programs, kits[key], font.samples)], key) for key in (True, False)}
    if len(playing) == 1:
        names = " and ".join(Path(font.path).name for font in playing[0] if font.programs)
        reason = "one more is needed that plays songs, with samples of its own: training and test share no instruments"
        raise UserError(f"corpus.arranged.fonts: beside {names} {reason}")
    test = playing[: max(1, len(playing) // 3)]
    train = playing[len(test) :]
    has_kit = {True: any(f.kits for g in test for f in g), False: any(f.kits for g in train for f in g)}
    cut = max(len(drums) // 3, not has_kit[True])
    found = {True: [f for g in test + drums[:cut] for f in g], False: [f for g in train + drums[cut:] for f in g]}
    return {key: _side(members, key) for key, members in found.items()}


def _side(members: list[Font], test: bool) -> Side:
    side = Side(tuple(f for f in members if f.programs), tuple(kit for f in members for kit in f.kits))
    if not side.kits:
        names, which = ", ".join(font.path for font in side.fonts), "test" if test else "training"
        reason = f"no drum kit (bank 128), and none is left for {which} songs: add a font with drums"
        raise UserError(f"corpus.arranged.fonts: {names}: {reason}")
    return side
