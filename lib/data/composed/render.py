"""Composed songs played stem by stem on the General MIDI sound font of pretty_midi, the lead sung by formants."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from functools import lru_cache, partial
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import tinysoundfont
from scipy.signal import fftconvolve, iirpeak, lfilter

from lib import STEMS, UserError
from lib.data.audio import resample
from lib.data.composed.compose import Control, Note, Part, Song, Voice

EMBEDDED_FONT = str(resources.files("pretty_midi") / "TimGM6mb.sf2")
FIRST_ID = 2  # FMA's first track
CONTROL = 0.01  # seconds between two values of a pitch or loudness curve
BEND_RANGE = 24  # semitones either way
PEAK = 0.89
STABLE_RATE = 32_000
"""Rate in Hz from which fonts are played, in multiples of the songs' rate: at 16 kHz the synthesiser's low-pass filter
whistles now and then. The embedded corpus is played at its own rate, for its songs stay what they are.
"""
ARITHMETIC = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR", "OPENBLAS_CORETYPE": "Haswell"}
"""Environment in which songs are rendered on x86-64: NumPy and OpenBLAS compute as if AVX2 were the most there is.

With AVX-512 their last bits differ, and with them the digests of the songs, by which runs have their names.
"""
# Formants of five vowels in Hz (a e i o u, a tenor's after the tables in the Csound manual), bandwidths, gains in dB.
VOWELS = np.array([[650, 1080, 2650], [400, 1700, 2600], [290, 1870, 2800], [400, 800, 2600], [350, 600, 2700]])
BANDWIDTHS = (80, 100, 140)
FORMANT_DB = np.array([[0, -6, -9], [0, -10, -11], [0, -12, -14], [0, -8, -14], [0, -14, -18]])


@contextlib.contextmanager
def same_arithmetic() -> Iterator[None]:
    """Processes started within compute as `ARITHMETIC` says, so that any x86-64 machine renders the same songs."""
    changed = ARITHMETIC if platform.machine().lower() in ("x86_64", "amd64") else {}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def render(song: Song, rate: int) -> np.ndarray:
    """Play a song: stems [4, 2, T] float32 in the order of `lib.STEMS`; their sum, the mixture, peaks below 0.9."""
    frames = round(song.seconds * rate)
    stems, sends = np.zeros((2, len(STEMS), 2, frames), np.float32)
    rng = np.random.default_rng([*song.seed, 1])
    for part in song.parts:
        wave = _sing(part, rate, frames, rng) if part.voice else _play(part, rate, frames)
        loudness = np.abs(wave).max() if part.stem == "drums" else 5 * _active_rms(wave, rate)
        left_right = np.sqrt([1 - part.pan, 1 + part.pan]) * part.level / max(loudness, 1e-6)
        placed = left_right[:, None].astype(np.float32) * wave
        stems[STEMS.index(part.stem)] += placed
        sends[STEMS.index(part.stem)] += part.send * placed
    stems += fftconvolve(sends, _room(song.room_seconds, rate, rng)[None], axes=-1)[..., :frames]
    for stem, name in zip(stems, STEMS, strict=True):
        stem *= 10 ** (song.levels_db[name] / 20) / max(_active_rms(stem, rate), 1e-6)
    stems *= _bus_gain(stems.sum(0), song.ratio, rate)
    return stems * (PEAK / max(np.abs(stems).max(), np.abs(stems.sum(0)).max()))


def _active_rms(wave: np.ndarray, rate: int) -> float:
    """RMS over the 0.1 s blocks within 40 dB of the loudest one."""
    size = rate // 10
    power = np.square(wave[:, : wave.shape[-1] // size * size]).reshape(2, -1, size).mean((0, 2))
    return float(np.sqrt(power[power >= 1e-4 * power.max()].mean()))


@lru_cache(2)
def _font(path: str):
    """A sound font, parsed once a process: parsing takes longer than playing a part. Raises: UserError."""
    synth = tinysoundfont.Synth()
    try:
        return synth.soundfonts[synth.sfload(Path(path or EMBEDDED_FONT).read_bytes())]
    except RuntimeError as error:
        raise UserError(f"{path}: the synthesiser cannot read this sound font") from error


def _synth(part: Part, rate: int) -> tinysoundfont.Synth:
    """A fresh synthesiser with the part's program on channel 0, so that nothing rings over from another part."""
    times = -(-STABLE_RATE // rate) if part.font else 1
    synth = tinysoundfont.Synth(samplerate=times * rate)
    font = synth.sfload(_font(part.font))  # a loaded font is cloned: shared samples, no voices
    synth.program_select(0, font, part.bank, part.program, part.bank == 128)
    synth.set_tuning(0, part.tuning)
    return synth


def _generate(synth: tinysoundfont.Synth, events: list[tuple], rate: int, frames: int) -> np.ndarray:
    """Play (seconds, order, action) in time order: [2, T] at ``rate``, whatever the synthesiser's."""
    own = synth.samplerate
    frames = frames * own // rate
    wave = np.zeros((frames, 2), np.float32)
    view, done = memoryview(wave).cast("B"), 0
    for seconds, _, action in sorted(events, key=lambda event: event[:2]):
        place = min(round(seconds * own), frames)
        if place > done:
            synth.generate_simple(place - done, view[8 * done : 8 * place])
            done = place
        action()
    if done < frames:
        synth.generate_simple(frames - done, view[8 * done :])
    return resample(np.ascontiguousarray(wave.T), own, rate)


def _play(part: Part, rate: int, frames: int) -> np.ndarray:
    synth = _synth(part, rate)
    events = [(control.seconds, 0, partial(_set, synth, control)) for control in part.controls]
    for note in part.notes:
        events.append((note.start, 1, partial(synth.noteon, 0, note.pitch, note.velocity)))
        events.append((note.end, 0, partial(synth.noteoff, 0, note.pitch)))
    return _generate(synth, events, rate, frames)


def _set(synth: tinysoundfont.Synth, control: Control) -> None:
    if control.name == "bend":
        synth.pitchbend(0, round(control.value))
    elif control.name == "range":
        synth.pitchbend_range(0, control.value)
    else:  # the synthesiser's gain is the cube of either value, where General MIDI's is the square
        number = {"volume": 7, "expression": 11}[control.name]
        synth.control_change(0, number, round(127 * (control.value / 127) ** (2 / 3)))


def words(notes: tuple[Note, ...]) -> list[tuple[Note, ...]]:
    """Notes grouped so that each group is sung in one breath, gliding from note to note."""
    starts = [i for i, note in enumerate(notes) if not note.tied]
    return [notes[first:end] for first, end in pairwise([*starts, len(notes)])]


def pitch_curve(word: tuple[Note, ...], voice: Voice) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and MIDI pitches of a word: a scoop into it, glides between notes, vibrato on long notes."""
    times = np.arange(word[0].start, word[-1].end, CONTROL)
    pitch = word[0].pitch - voice.scoop * np.exp((word[0].start - times) / 0.04)
    for before, note in pairwise(word):
        width = min(voice.glide_seconds, 0.7 * (note.end - note.start))
        rise = np.clip((times - note.start) / width + 0.5, 0, 1)
        pitch += (note.pitch - before.pitch) * rise**2 * (3 - 2 * rise)
    for note in word:
        sustained = (times - note.start) * (times < note.end)
        depth = voice.vibrato_semitones * np.clip((sustained - 0.2) / 0.3, 0, 1)
        pitch += depth * np.sin(2 * np.pi * voice.vibrato_hz * sustained)
    return times, pitch


def _sing(part: Part, rate: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The lead: one synthesiser note a word, bent along the pitch curve, shaped by vowels, consonants and breath."""
    synth, voice, events = _synth(part, rate), part.voice, []
    synth.pitchbend_range(0, BEND_RANGE)
    grid = np.arange(0, frames / rate + CONTROL, CONTROL)
    loudness, vowel = np.zeros((2, len(grid)))
    burst = np.zeros(len(grid))
    end = 0.0
    for word in words(part.notes):
        base = round(float(np.median([note.pitch for note in word])))
        times, pitch = pitch_curve(word, voice)
        bends = np.round(8192 * (1 + np.clip((pitch - base) / BEND_RANGE, -1, 0.9998))).astype(int)
        events += [(time, 1, partial(synth.pitchbend, 0, int(b))) for time, b in zip(times, bends, strict=True)]
        events.append((word[0].start, 0, synth.sounds_off))
        events.append((word[0].start, 2, partial(synth.noteon, 0, base, 100)))
        for note in word:
            vowel[grid >= note.start - 0.02] = rng.choice(voice.vowels)
            inside = (grid >= note.start) & (grid <= note.end)
            loudness[inside] = (note.velocity / 100) ** 2
            loudness[inside & (grid < note.start + 0.03)] *= 0.4  # a new syllable
        loudness[(grid > word[-1].end - 0.04) & (grid <= word[-1].end)] *= 0.3
        if rng.random() < 0.6:  # a consonant; before it, where there is time, a breath
            burst[(grid > word[0].start - rng.uniform(0.04, 0.1)) & (grid < word[0].start)] = rng.uniform(0.1, 0.5)
        if word[0].start - end > 0.5:
            burst[(grid > word[0].start - 0.4) & (grid < word[0].start - 0.15)] = 0.06
        end = word[-1].end
    events.append((end + 0.02, 0, synth.sounds_off))
    at = np.arange(frames) / rate
    smooth = partial(np.convolve, np.hanning(7)[1:-1] / np.hanning(7).sum(), mode="same")
    wave = _generate(synth, events, rate, frames).mean(0)
    noise = rng.standard_normal(frames, np.float32)
    wave = (wave / max(np.abs(wave).max(), 1e-6) + voice.breath * noise) * np.interp(at, grid, smooth(loudness))
    shaped = np.zeros_like(wave)
    for number in voice.vowels:
        weight = np.interp(at, grid, smooth((vowel == number).astype(float)))
        shaped += weight * _formants(wave, number, voice.tract, rate)
    wave = voice.formants * shaped / max(shaped.std(), 1e-6) + (1 - voice.formants) * wave / max(wave.std(), 1e-6)
    hiss = np.diff(noise, prepend=0) * np.interp(at, grid, smooth(burst))
    return np.tile((wave + hiss).astype(np.float32), (2, 1))


def _formants(wave: np.ndarray, vowel: int, tract: float, rate: int) -> np.ndarray:
    """Three resonators in parallel, as one filter: it takes no longer than one of them."""
    b, a = np.zeros(1), np.ones(1)
    for frequency, bandwidth, gain_db in zip(VOWELS[vowel] * tract, BANDWIDTHS, FORMANT_DB[vowel], strict=True):
        if frequency < 0.45 * rate:
            peak, poles = iirpeak(frequency, frequency / bandwidth, fs=rate)
            b = np.convolve(b, poles) + 10 ** (gain_db / 20) * np.convolve(a, peak)
            a = np.convolve(a, poles)
    return lfilter(b, a, wave)


def _room(seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """An impulse response [2, T] of unit energy: 10 ms of nothing, then noise that falls by 60 dB in ``seconds``."""
    times = np.arange(round(seconds * rate)) / rate
    noise = rng.standard_normal((2, len(times))) * 10 ** (-3 * times / seconds) * (times >= 0.01)
    noise = lfilter([0.5], [1, -0.5], noise)  # high frequencies die first in a room
    return (noise / np.sqrt(np.square(noise).sum(-1, keepdims=True))).astype(np.float32)


def _bus_gain(mixture: np.ndarray, ratio: float, rate: int) -> np.ndarray:
    """A compressor's gain [T] for all stems alike: over the mean level, the mixture grows ``ratio`` times slower."""
    size = round(CONTROL * rate)
    power = np.square(mixture).mean(0)
    power = np.pad(power, (0, -len(power) % size)).reshape(-1, size).mean(-1)
    over = 10 * np.log10(np.maximum(power / max(power.mean(), 1e-12), 1))
    reduction = np.zeros(len(over))
    for i, level in enumerate(over):  # fast when it gets louder, slow when it gets softer
        before = reduction[i - 1] if i else 0.0
        reduction[i] = before + (level - before) * (0.6 if level > before else 0.06)
    gain = 10 ** (-(1 - 1 / ratio) * reduction / 20)
    return np.interp(np.arange(mixture.shape[-1]), (np.arange(len(gain)) + 0.5) * size, gain).astype(np.float32)
