"""The design of a blind test: conditions and anchors, pages and their parts, and the folder that holds it all.

ITU-R BS.1534-3 (MUSHRA): an open reference, and among the conditions a hidden reference, a low anchor of 3.5 kHz and a
mid anchor of 7 kHz bandwidth. They do not represent separation errors; a further anchor, of known SDR, is the target
with leakage of the other sources (Emiya et al. 2011, doi 10.1109/TASL.2011.2109381).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import firwin, oaconvolve
from scipy.stats import binom

from lib import STEMS, UserError
from lib.data import audio
from lib.listening.blind.session import longest, minutes
from lib.listening.blind.setup import FILE, Setup
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.listening.loudness import HEADROOM, equal_loudness, loudness
from lib.profile.fields import Blind, Design
from lib.store.files import atomic, write_json
from lib.store.fingerprints import fingerprint

HIDDEN, LEAKAGE = "hidden reference", "leakage anchor"
LOW_ANCHOR, MID_ANCHOR = "3.5 kHz anchor", "7 kHz anchor"
ANCHORS = {LOW_ANCHOR: 3500, MID_ANCHOR: 7000}
"""The anchors of BS.1534-3, and where they end in Hz."""
FIXED = (HIDDEN, LOW_ANCHOR, MID_ANCHOR, LEAKAGE)
"""Conditions of a MUSHRA trial that are not methods."""
MOST_SOUNDS = 12
"""BS.1534-3: of one page, the hidden reference and the anchors among them."""
LONGEST = 12.0
"""BS.1534-3: seconds of a passage."""
MAX_TRIALS = 2000
HEARINGS, DECISION = 1.5, 5.0
"""For estimates of time: how often every sound is heard, and seconds for every answer beyond that."""
LENGTHS_DIFFER = 0.1
"""Seconds by which a method's file may differ in length from its reference."""


@dataclass(frozen=True)
class Item:
    """A passage, such as one stem of a song: ``reference`` [2, T], and ``conditions`` [2, T] by name."""

    song: str
    stem: str
    rate: int
    reference: np.ndarray
    conditions: dict[str, np.ndarray]

    @property
    def seconds(self) -> float:
        """Length of the passage."""
        return self.reference.shape[1] / self.rate


def low_pass(wave: np.ndarray, rate: int, hertz: int) -> np.ndarray:
    """An anchor of BS.1534-3: [2, T] low-passed at ``hertz`` (-25 dB 500 Hz above it, -50 dB at 1 kHz above)."""
    taps = firwin(2 * round(rate / 300) + 1, hertz + 250, fs=rate, window=("kaiser", 6.0))
    return oaconvolve(wave, taps[None], mode="same", axes=1).astype(np.float32)


def leakage_anchor(target: np.ndarray, mixture: np.ndarray, leak_db: float) -> np.ndarray:
    """``target`` with the rest of the ``mixture`` at ``leak_db`` relative to it: its SDR is ``-leak_db`` dB."""
    rest = mixture - target
    energies = [np.square(wave, dtype=np.float64).sum() for wave in (target, rest)]
    if not energies[1]:
        return target.copy()
    return target + np.float32(np.sqrt(energies[0] / energies[1]) * 10 ** (leak_db / 20)) * rest


def busiest(wave: np.ndarray, rate: int, seconds: float) -> slice:
    """The passage of ``seconds`` with the most energy of a stem [2, T], on a grid of a quarter of a second."""
    samples = min(round(seconds * rate), wave.shape[1])
    energy = np.concatenate([[0.0], np.square(wave, dtype=np.float64).sum(0).cumsum()])
    starts = np.arange(0, wave.shape[1] - samples + 1, max(1, rate // 4))
    first = int(starts[(energy[starts + samples] - energy[starts]).argmax()])
    return slice(first, first + samples)


def items(blind: Blind, setup: Setup, excerpts: Sequence[Excerpt], pair: Sequence[str] = ()) -> list[Item]:
    """Every audible stem of every excerpt of a study; tests in pairs compare ``pair``, or the methods of the setup.

    Raises: UserError if a method is unknown, or if no stem is audible.
    """
    found = []
    for excerpt in excerpts:
        known = [name for name in excerpt.versions if name != REFERENCE]
        for name in setup.methods:
            if name not in known:
                names = ", ".join(f"'{version}'" for version in known)
                raise UserError(f"listening.blind.methods: '{name}' is unknown; {excerpt.song} has {names}")
        methods = setup.methods or (known if setup.test == "mushra" else pair or known)
        for stem in blind.stems:
            at = STEMS.index(stem)
            part = busiest(excerpt.versions[REFERENCE][at], excerpt.rate, blind.seconds)
            target, mixture = excerpt.versions[REFERENCE][at][:, part], excerpt.mixture[:, part]
            waves = {name: excerpt.versions[name][at][:, part] for name in methods}
            if np.isfinite(loudness(target, excerpt.rate)):
                found.append(item(setup, excerpt.song, stem, excerpt.rate, target, mixture, waves))
    if not found:
        raise UserError("listening.blind.stems: none is audible in these songs: choose others, or more songs")
    return found


def item(
    setup: Setup, song: str, stem: str, rate: int, target: np.ndarray, mixture: np.ndarray | None, methods: Mapping
) -> Item:
    """A passage with its anchors, all at one loudness; ``mixture`` makes the leakage anchor."""
    waves = {HIDDEN: target}
    if setup.test == "mushra":
        waves |= {name: low_pass(target, rate, hertz) for name, hertz in ANCHORS.items() if rate > 2 * hertz + 1000}
        if mixture is not None:
            waves[LEAKAGE] = leakage_anchor(target, mixture, setup.leak_db)
        waves |= methods
    else:
        waves |= {name: methods[name] for name in list(methods)[:2]}
    if setup.loudness is None:
        peak = max(float(np.abs(wave).max()) for wave in waves.values())
        gains = np.full(len(waves), HEADROOM / peak if peak > 1 else 1.0)  # an anchor may be louder than full scale
    else:
        gains = 10 ** (equal_loudness(list(waves.values()), rate, setup.loudness) / 20)
    waves = {name: (wave * gain).astype(np.float32) for (name, wave), gain in zip(waves.items(), gains, strict=True)}
    reference = waves[HIDDEN]
    if setup.test != "mushra":
        del waves[HIDDEN]
    return Item(song, stem, rate, reference, waves)


def own_items(setup: Setup, folder: Path) -> list[Item]:
    """The stimuli of a folder: ``ITEM/reference.wav``, ``ITEM/METHOD.wav`` and perhaps ``ITEM/mixture.wav``.

    Raises: UserError if there are none, if an item lacks a file, or if its files differ in rate or length.
    """
    if not os.path.isdir(folder):  # an absurd name is none either
        raise UserError(f"{folder}: no such folder of stimuli")
    places = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", "tests"))]
    if not places:
        raise UserError(f"{folder}: holds no ITEM/reference.wav")
    names = list(_methods(places[0])) if not setup.methods else list(setup.methods)
    if len(names) < (1 if setup.test == "mushra" else 2) or (setup.test != "mushra" and len(names) != 2):
        raise UserError(
            f"{places[0]}: {setup.test} of {len(names)} methods: name them in {FILE}, such as methods: [a, b]"
        )
    return [_own_item(setup, place, names) for place in places]


def _methods(place: Path) -> dict[str, Path]:
    """The sounds of an item's folder by name, without reference and mixture. Raises: UserError."""
    sounds = [path for path in sorted(place.iterdir()) if path.is_file() and not path.name.startswith(".")]
    by_name = {path.stem: path for path in sounds}
    if len(by_name) < len(sounds):
        raise UserError(f"{place}: two files have one name")
    return {name: path for name, path in by_name.items() if name not in (REFERENCE, "mixture")}


def _own_item(setup: Setup, place: Path, names: Sequence[str]) -> Item:
    sounds = _methods(place) | {path.stem: path for path in place.iterdir() if path.stem in (REFERENCE, "mixture")}
    if missing := [name for name in (REFERENCE, *names) if name not in sounds]:
        raise UserError(f"{place}: has no {missing[0]}.wav (or .flac), which other items have")
    if not setup.methods and (more := sorted(set(sounds) - {REFERENCE, "mixture", *names})):
        raise UserError(f"{sounds[more[0]]}: other items have no {more[0]}: add it there, or set methods in {FILE}")
    rate, target = audio.probe(sounds[REFERENCE]).rate, audio.read(sounds[REFERENCE])
    waves = {name: _fitting(sounds[name], rate, target) for name in ("mixture", *names) if name in sounds}
    return item(setup, place.name, "", rate, target, waves.pop("mixture", None), waves)


def _fitting(path: Path, rate: int, target: np.ndarray) -> np.ndarray:
    """A sound of the reference's rate, at its length."""
    if (own := audio.probe(path).rate) != rate:
        raise UserError(f"{path}: {own} Hz, but its reference has {rate} Hz: resample it")
    wave, samples = audio.read(path), target.shape[1]
    if abs(wave.shape[1] - samples) > LENGTHS_DIFFER * rate:
        raise UserError(f"{path}: {wave.shape[1] / rate:.2f} s, but its reference has {samples / rate:.2f} s")
    return np.pad(wave, ((0, 0), (0, max(samples - wave.shape[1], 0))))[:, :samples]


def described(setup: Setup, passages: Sequence[Item]) -> dict:
    """A whole test as plain values, as in ``design.json``: what is asked, of which sounds, in which parts."""
    first = passages[0]
    sounds = len(first.conditions) + (1 if setup.test != "abx" else 0)
    answers = len(first.conditions) if setup.test == "mushra" else 1
    page = max(item.seconds for item in passages) * HEARINGS * sounds + DECISION * answers
    known = {item.stem: n for n, item in reversed([*enumerate(passages)])}  # the first passage of every stem
    training = sorted(known.values()) if any(known) else [*range(min(len(passages), 2))]
    facts = {
        "setup": asdict(setup),
        "words": setup.texts,
        "items": [_described(setup, item) for item in passages],
        "parts": parts(setup, passages, page, len(training)),
        "training": training,
        "page_seconds": page,
        "rest": max(1, round(30 * setup.minutes / page)),  # pages up to a break, half a session
    }
    return {"fingerprint": fingerprint(facts), **facts}


def _described(setup: Setup, item: Item) -> dict:
    sounds = {
        name: {"sound": _digest(wave), "sdr": _sdr(item.reference, wave)} for name, wave in item.conditions.items()
    }
    facts = {"song": item.song, "stem": item.stem, "about": setup.labels.get(item.stem or item.song, "")}
    facts |= {"rate": item.rate, "seconds": item.seconds}
    return {**facts, REFERENCE: _digest(item.reference), "conditions": sounds}


def parts(setup: Setup, passages: Sequence[Item], page_seconds: float, training: int) -> list[list[tuple[str, int]]]:
    """The (question, item) pages of every part of a test; a participant has one part.

    MUSHRA: all questions about all items, split into as many parts as sessions of ``minutes`` allow, between questions
    and then between songs. Pairs: `trials_needed` trials of the first question, which cycle through the items from
    another start in every part, so that all items are asked about equally often.
    """
    if setup.test != "mushra":
        count, question = trials_needed(setup), next(iter(setup.questions))
        turns = len(passages) // math.gcd(len(passages), count)
        return [[(question, (part * count + n) % len(passages)) for n in range(count)] for part in range(turns)]
    units = [(question, song) for question in setup.questions for song in dict.fromkeys(i.song for i in passages)]
    for count in range(1, len(units) + 1):
        if 1 < count < len(setup.questions):
            continue  # a question is not torn apart where whole ones fit
        pages: list[list] = [[] for _ in range(count)]
        for number, (question, song) in enumerate(units):
            place = number * count // len(units)
            pages[place] += [(question, n) for n, item in enumerate(passages) if item.song == song]
        if minutes(max(map(len, pages)), training, page_seconds) <= setup.minutes:
            break
    return pages


def write(folder: Path, setup: Setup, passages: Sequence[Item]) -> Path:
    """The folder of a test below ``folder``, named by kind and fingerprint: ``design.json`` and its sounds as FLAC.

    Sounds have 24 bits. Another design is another folder; what is there already is not written again.
    """
    design = described(setup, passages)
    place = folder / f"{setup.test}-{design['fingerprint']}"
    for item in passages:
        for wave in (item.reference, *item.conditions.values()):
            path = place / "sound" / f"{_digest(wave)}.flac"
            if not path.exists():
                with atomic(path) as temporary:
                    soundfile.write(temporary, wave.T, item.rate, format="FLAC", subtype="PCM_24")
    if not (place / "design.json").exists():
        write_json(place / "design.json", design)
    return place


def _digest(wave: np.ndarray) -> str:
    return hashlib.sha256(np.round(wave * (1 << 23)).astype(np.int32).tobytes()).hexdigest()[:16]


def _sdr(reference: np.ndarray, wave: np.ndarray) -> float | None:
    """uSDR in dB; None of silence and of the reference itself."""
    signal, error = (float(np.square(part, dtype=np.float64).sum()) for part in (reference, reference - wave))
    return 10 * math.log10(signal / error) if signal and error else None


def trials_needed(settings: Design) -> int:
    """Number of trials of a preference (two-sided) or ABX (one-sided) test.

    The smallest at which the exact binomial test at level ``alpha`` against chance detects a true share of
    ``detectable`` with probability ``power``. Raises: UserError if it exceeds `MAX_TRIALS`.
    """
    sides = 2 if settings.test == "preference" else 1
    for count in range(1, MAX_TRIALS + 1):
        needed = critical_count(count, settings.alpha / sides)
        if needed <= count and binom.sf(needed - 1, count, settings.detectable) >= settings.power:
            return count
    raise UserError(
        f"listening.blind.detectable: {settings.detectable:g} needs more than {MAX_TRIALS} trials; raise it"
    )


def critical_count(count: int, alpha: float) -> int:
    """The smallest number of correct answers of ``count`` that chance reaches with probability ``alpha`` or less.

    ``count`` + 1 if even ``count`` correct answers are not significant.
    """
    return int(binom.isf(alpha, count, 0.5)) + 1


def protocol(design: Mapping) -> Iterator[str]:
    """A test in sentences, for the experimenter and for the paper."""
    setup, items, parts = design["setup"], design["items"], design["parts"]
    pages, time = max(map(len, parts)), longest(design)
    if setup["test"] == "mushra":
        sounds = max(len(item["conditions"]) for item in items)
        several = "s, each" if pages > 1 else ""
        yield f"{pages} page{several} with a reference and {sounds} sounds to rate from 0 to 100; about {time} min"
        if len(parts) > 1:
            whole = sum(map(len, parts))
            yield f"all {whole} pages are split into {len(parts)} parts, one for each participant: invite a multiple"
        if sounds > MOST_SOUNDS:
            yield f"{sounds} sounds on a page: ITU-R BS.1534-3 recommends at most {MOST_SOUNDS}"
        if (seconds := max(item["seconds"] for item in items)) > LONGEST:
            yield f"passages of up to {seconds:.0f} s: ITU-R BS.1534-3 recommends about 10 s, at most {LONGEST:.0f}"
        yield from _transparent({item["rate"] for item in items})
        return
    preference = setup["test"] == "preference"
    pair = " and ".join(map(repr, items[0]["conditions"]))
    yield f"{pages} trials of {pair}, fixed in advance, about {time} min"
    yield (
        f"they detect a true share of {setup['detectable']:.0%} with a power of {setup['power']:.0%} at a level of "
        f"{setup['alpha']:g} ({'two' if preference else 'one'}-sided, exact binomial test)"
    )
    needed = critical_count(pages, setup["alpha"] / (2 if preference else 1))
    yield f"{needed} of {pages} answers on one side are significant"


def _transparent(rates: set[int]) -> Iterator[str]:
    for rate in sorted(rates):
        for name, hertz in ANCHORS.items():
            if rate <= 2 * hertz + 1000:
                yield f"at {rate} Hz the {name} would equal the reference: it is left out"
            elif rate < 3 * hertz:
                yield f"at {rate} Hz the {name} lacks only {hertz / 1000:g} to {rate / 2000:g} kHz: nearly transparent"
