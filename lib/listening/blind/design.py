"""The design of a blind test: conditions and anchors, order and number of trials.

ITU-R BS.1534-3 (MUSHRA): an open reference, and among the conditions a hidden reference and a low anchor of 3.5 kHz
bandwidth. That anchor does not represent separation errors; a second anchor, of known SDR, is the target with leakage
of the other sources (Emiya et al. 2011, doi 10.1109/TASL.2011.2109381).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import firwin, oaconvolve
from scipy.stats import binom

from lib import STEMS, UserError
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.listening.loudness import equal_loudness, loudness
from lib.profile.fields import Blind

HIDDEN, LOW_ANCHOR, LEAKAGE = "hidden reference", "3.5 kHz anchor", "leakage anchor"
FIXED = (HIDDEN, LOW_ANCHOR, LEAKAGE)
"""Conditions of a MUSHRA trial that are not methods."""
LOW_ANCHOR_HZ = 3500
QUESTIONS = {
    "target": "How good is the quality of the {stem}, compared with the reference?",
    "suppression": "How well are all other instruments suppressed, compared with the reference?",
    "artefacts": "How free is it of artificial sounds (gurgling, chirping, dullness), compared with the reference?",
}
MAX_TRIALS = 2000


@dataclass(frozen=True)
class Item:
    """A passage of one stem at equal loudness: ``reference`` [2, T], and ``conditions`` [2, T] by name."""

    song: str
    stem: str
    rate: int
    reference: np.ndarray
    conditions: dict[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """One page of a test: a question about an item, and its conditions in the order of the letters."""

    number: int
    question: str
    item: Item
    slots: tuple[str, ...]


def low_anchor(wave: np.ndarray, rate: int) -> np.ndarray:
    """The low anchor of BS.1534-3: [2, T] low-passed at 3.5 kHz (-25 dB at 4 kHz, -50 dB at 4.5 kHz)."""
    if rate <= 2 * LOW_ANCHOR_HZ + 1000:
        return wave.copy()
    taps = firwin(2 * round(rate / 300) + 1, LOW_ANCHOR_HZ + 250, fs=rate, window=("kaiser", 6.0))
    return oaconvolve(wave, taps[None], mode="same", axes=1).astype(np.float32)


def leakage_anchor(target: np.ndarray, mixture: np.ndarray, leak_db: float) -> np.ndarray:
    """``target`` with the rest of the ``mixture`` at ``leak_db`` relative to it: its SDR is ``-leak_db`` dB."""
    rest = mixture - target
    energies = [np.square(wave, dtype=np.float64).sum() for wave in (target, rest)]
    if not energies[1]:
        return target.copy()
    return target + np.float32(np.sqrt(energies[0] / energies[1]) * 10 ** (leak_db / 20)) * rest


def busiest(wave: np.ndarray, samples: int, hop: int) -> int:
    """Start of the passage of ``samples`` with the most energy of a stem [2, T], on a grid of ``hop``."""
    energy = np.concatenate([[0.0], np.square(wave, dtype=np.float64).sum(0).cumsum()])
    starts = np.arange(0, max(wave.shape[1] - samples, 0) + 1, hop)
    return int(starts[(energy[np.minimum(starts + samples, wave.shape[1])] - energy[starts]).argmax()])


def items(settings: Blind, excerpts: Sequence[Excerpt]) -> list[Item]:
    """Every audible stem of every excerpt, at one loudness.

    Raises: UserError if a method is unknown, or if no stem is audible.
    """
    passages = [item for excerpt in excerpts for stem in settings.stems if (item := _item(settings, excerpt, stem))]
    if not passages:
        raise UserError("listening.blind.stems: none is audible in these songs: choose others, or more songs")
    return passages


def _item(settings: Blind, excerpt: Excerpt, stem: str) -> Item | None:
    at, rate = STEMS.index(stem), excerpt.rate
    chosen = settings.methods or tuple(name for name in excerpt.versions if name != REFERENCE)
    for name in chosen:
        if name not in excerpt.versions:
            known = ", ".join(f"'{version}'" for version in excerpt.versions)
            raise UserError(f"listening.blind.methods: '{name}' is unknown; {excerpt.song} has {known}")
    samples = min(round(settings.seconds * rate), excerpt.mixture.shape[1])
    first = busiest(excerpt.versions[REFERENCE][at], samples, max(1, rate // 4))
    part = slice(first, first + samples)
    target, mixture = excerpt.versions[REFERENCE][at][:, part], excerpt.mixture[:, part]
    if not np.isfinite(loudness(target, rate)):
        return None
    waves = {HIDDEN: target}
    if settings.test == "mushra":
        waves |= {LOW_ANCHOR: low_anchor(target, rate), LEAKAGE: leakage_anchor(target, mixture, settings.leak_db)}
    else:
        chosen = chosen[:2]
    waves |= {name: excerpt.versions[name][at][:, part] for name in chosen}
    gains = 10 ** (equal_loudness(list(waves.values()), rate, settings.loudness) / 20)
    waves = {name: (wave * gain).astype(np.float32) for (name, wave), gain in zip(waves.items(), gains, strict=True)}
    reference = waves[HIDDEN]
    if settings.test != "mushra":
        del waves[HIDDEN]
    return Item(excerpt.song, stem, rate, reference, waves)


def generator(settings: Blind, participant: str, *more: str) -> np.random.Generator:
    """The generator of a participant's orders, seeded by profile, test, code and purpose (``more``)."""
    text = "/".join((settings.test, participant, *more))
    return np.random.default_rng([settings.seed, int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])])


def trials(settings: Blind, passages: Sequence[Item], participant: str) -> list[Trial]:
    """All trials of a participant in order, determined by the code.

    MUSHRA asks every question about every item. Preference and ABX ask the first question in `trials_needed` trials,
    cycling through the items; the slots of ABX are A, B and X.
    """
    draw = generator(settings, participant)
    if settings.test == "mushra":
        pages = [(question, item) for question in settings.questions for item in passages]
    else:
        count = trials_needed(settings)
        pages = [(settings.questions[0], passages[i % len(passages)]) for i in range(count)]
    order = draw.permutation(len(pages))
    return [Trial(n, *pages[page], slots(settings, pages[page][1], draw)) for n, page in enumerate(order)]


def slots(settings: Blind, item: Item, draw: np.random.Generator) -> tuple[str, ...]:
    """The conditions of a page in random order; for ABX two of them, and X."""
    names = list(item.conditions)
    drawn = tuple(names[i] for i in draw.permutation(len(names)))
    return (*drawn, drawn[draw.integers(2)]) if settings.test == "abx" else drawn


def trials_needed(settings: Blind) -> int:
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


def protocol(settings: Blind, passages: Sequence[Item]) -> list[str]:
    """The protocol as sentences, for participants and for the paper."""
    pages = len(trials(settings, passages, ""))
    if settings.test == "mushra":
        conditions = len(passages[0].conditions)
        return [f"{pages} pages, each with a reference and {conditions} sounds to rate from 0 to 100."]
    sides = 2 if settings.test == "preference" else 1
    power = f"a true share of {settings.detectable:.0%} with a power of {settings.power:.0%}"
    level = f"a level of {settings.alpha:g} ({'two' if sides == 2 else 'one'}-sided, exact binomial test)"
    needed = critical_count(pages, settings.alpha / sides)
    return [
        f"{pages} trials, fixed in advance: they detect {power} at {level}. "
        f"{needed} of {pages} answers on one side are significant."
    ]
