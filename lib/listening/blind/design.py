"""The design of a blind test: conditions with their anchors, the order of trials for each participant, their number.

ITU-R BS.1534-3 (MUSHRA): an open reference, and among the conditions the reference again, hidden, and a low anchor of
3.5 kHz bandwidth. That anchor says nothing about separation, so that a second one holds the target with a known amount
of the other sources (Emiya et al. 2011, doi 10.1109/TASL.2011.2109381), whose SDR follows from the profile.
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
"""What stands among the methods of a MUSHRA trial."""
LOW_ANCHOR_HZ = 3500
QUESTIONS = {
    "target": "How good is the quality of the {stem}, compared with the reference?",
    "suppression": "How well are all other instruments suppressed, compared with the reference?",
    "artefacts": "How free is it of artificial sounds (gurgling, chirping, dullness), compared with the reference?",
}
MOST_TRIALS = 2000


@dataclass(frozen=True)
class Item:
    """One passage of one stem at equal loudness: ``reference`` [2, T], and ``conditions`` [2, T] by name."""

    song: str
    stem: str
    rate: int
    reference: np.ndarray
    conditions: dict[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """One page of a test: a question about an item, and the conditions behind the page's letters, in their order."""

    number: int
    question: str
    item: Item
    slots: tuple[str, ...]


def low_anchor(wave: np.ndarray, rate: int) -> np.ndarray:
    """[2, T] without what lies above 3.5 kHz (25 dB down at 4 kHz, 50 dB at 4.5 kHz): BS.1534-3's low anchor."""
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
    """Where the passage of ``samples`` starts in which a stem [2, T] has most energy, on a grid of ``hop``."""
    energy = np.concatenate([[0.0], np.square(wave, dtype=np.float64).sum(0).cumsum()])
    starts = np.arange(0, max(wave.shape[1] - samples, 0) + 1, hop)
    return int(starts[(energy[np.minimum(starts + samples, wave.shape[1])] - energy[starts]).argmax()])


def items(settings: Blind, heard: Sequence[Excerpt]) -> list[Item]:
    """Every stem of every excerpt in which it sounds, at one loudness.

    Raises: UserError if a method is unknown, or if no stem sounds anywhere.
    """
    found = [item for excerpt in heard for stem in settings.stems if (item := _item(settings, excerpt, stem))]
    if not found:
        raise UserError("listening.blind.stems: none of them sounds in these songs: name others, or more songs")
    return found


def _item(settings: Blind, excerpt: Excerpt, stem: str) -> Item | None:
    at, rate = STEMS.index(stem), excerpt.rate
    chosen = settings.methods or tuple(name for name in excerpt.versions if name != REFERENCE)
    for name in chosen:
        if name not in excerpt.versions:
            known = ", ".join(f"'{version}'" for version in excerpt.versions)
            raise UserError(f"listening.blind.methods: '{name}' is unknown, {excerpt.song} has {known}")
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
    """What draws a participant's orders: the profile's seed, the code, and what it is for."""
    text = "/".join((settings.test, participant, *more))
    return np.random.default_rng([settings.seed, int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])])


def trials(settings: Blind, heard: Sequence[Item], participant: str) -> list[Trial]:
    """All trials of a participant in their order. The same code always gets the same.

    MUSHRA asks every question of every item. Preference and ABX ask the first question, `trials_needed` times, going
    round the items; ABX's slots are A, B and X.
    """
    draw = generator(settings, participant)
    if settings.test == "mushra":
        pages = [(question, item) for question in settings.questions for item in heard]
    else:
        count = trials_needed(settings)
        pages = [(settings.questions[0], heard[i % len(heard)]) for i in range(count)]
    order = draw.permutation(len(pages))
    return [Trial(n, *pages[page], slots(settings, pages[page][1], draw)) for n, page in enumerate(order)]


def slots(settings: Blind, item: Item, draw: np.random.Generator) -> tuple[str, ...]:
    """The conditions of a page in an order that is drawn; for ABX two of them, and X."""
    names = list(item.conditions)
    drawn = tuple(names[i] for i in draw.permutation(len(names)))
    return (*drawn, drawn[draw.integers(2)]) if settings.test == "abx" else drawn


def trials_needed(settings: Blind) -> int:
    """How many trials a preference (two-sided) or ABX (one-sided) test needs.

    The fewest at which the exact binomial test at ``alpha``, against guessing, finds a true share of ``detectable``
    with a probability of at least ``power``. Raises: UserError if more than `MOST_TRIALS` would be needed.
    """
    sides = 2 if settings.test == "preference" else 1
    for count in range(1, MOST_TRIALS + 1):
        needed = critical_count(count, settings.alpha / sides)
        if needed <= count and binom.sf(needed - 1, count, settings.detectable) >= settings.power:
            return count
    raise UserError(
        f"listening.blind.detectable: {settings.detectable:g} would take more than {MOST_TRIALS} trials; raise it"
    )


def critical_count(count: int, alpha: float) -> int:
    """The fewest right answers of ``count`` that guessing reaches with a probability of at most ``alpha``.

    More than ``count`` where not even all right answers would do.
    """
    return int(binom.isf(alpha, count, 0.5)) + 1


def protocol(settings: Blind, heard: Sequence[Item]) -> list[str]:
    """What a participant, and a reader of the paper, is told beforehand, one sentence each."""
    pages = len(trials(settings, heard, ""))
    if settings.test == "mushra":
        conditions = len(heard[0].conditions)
        return [f"{pages} pages, each with a reference and {conditions} sounds to rate from 0 to 100."]
    sides = 2 if settings.test == "preference" else 1
    power = f"a true share of {settings.detectable:.0%} with a power of {settings.power:.0%}"
    level = f"a level of {settings.alpha:g} ({'two' if sides == 2 else 'one'}-sided, exact binomial test)"
    needed = critical_count(pages, settings.alpha / sides)
    return [
        f"{pages} trials, fixed beforehand: enough to find {power} at {level}. "
        f"{needed} of {pages} answers on one side are significant."
    ]
