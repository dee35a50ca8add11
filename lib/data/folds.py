"""Folds: every labelled song is tested exactly once, by models that never saw it (K-fold cross-validation)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lib import UserError
from lib.data.tracks import Track

HELD_OUT = 0.25
"""The part of a label budget that validates, where no other songs do."""


def source_of(song: Track) -> str:
    """The source of a labelled song: the first folder of its path; "" of a song that lies in none."""
    return song.name.partition("/")[0] if "/" in song.name else ""


def groups(songs: Sequence[Track], count: int, seed: int) -> list[list[Track]]:
    """``count`` groups of songs whose sizes, and whose numbers of songs of each source, differ by one at most.

    Decided by names and ``seed``, not by the order of ``songs``. Within a group, the sources alternate, so that its
    first songs are balanced as well. Raises: UserError if a group would be empty.
    """
    if len(songs) < count or len(songs) - -(-len(songs) // count) < 2:
        raise UserError(
            f"corpus.folds: {count} folds of {len(songs)} labelled songs: every fold needs one to test, one to "
            "validate and one to train on; set fewer folds or add songs"
        )
    generator, dealt = np.random.default_rng([seed, 2]), []
    for _, some in itertools.groupby(sorted(songs, key=lambda s: (source_of(s), s.name, s.digest)), source_of):
        some = list(some)
        dealt += [some[i] for i in generator.permutation(len(some))]
    return [alternating(dealt[number::count]) for number in range(count)]


def alternating(songs: Sequence[Track]) -> list[Track]:
    """Songs in an order whose every beginning has about as large a share of each source as the whole."""
    sources = [[song for song in songs if source_of(song) == name] for name in dict.fromkeys(map(source_of, songs))]
    placed = [((i + 0.5) / len(some), k, song) for k, some in enumerate(sources) for i, song in enumerate(some)]
    return [song for *_, song in sorted(placed, key=lambda place: place[:2])]


def of_fold(songs: Sequence[Track], fold: int, count: int, validation: int, seed: int) -> list[Track]:
    """All songs, in their order, with the splits of one of ``count`` folds.

    Its own group is tested. The first ``validation`` songs of the groups that follow are for validation, so that one at
    least is left to train on; while they are no more than a group, each song validates in one fold only.
    """
    parts = groups(songs, count, seed)
    others = [song for part in [*parts, *parts][fold + 1 : fold + count] for song in part]
    splits = {song: "test" for song in map(_key, parts[fold])}
    splits |= {song: "validation" for song in map(_key, others[: min(validation, len(others) - 1)])}
    return [replace(song, split=splits.get(_key(song), "train")) for song in songs]


def of_budget(songs: Sequence[Track]) -> tuple[list[Track], list[Track]]:
    """Songs of a label budget, in the order they were drawn, to train on and to validate on: a quarter of them.

    Every fourth song validates, of two or three the last one, so that in budgets of whole quarters the larger contains
    the smaller in both roles. A single song is cut: its last quarter validates. MUSDB18-HQ's own share is 14 in 100.
    """
    if len(songs) == 1:
        return [songs[0].part(0, 1 - HELD_OUT)], [replace(songs[0].part(1 - HELD_OUT, 1), split="validation")]
    every = round(1 / HELD_OUT)
    held_out = songs[min(every, len(songs)) - 1 :: every]
    names = set(map(_key, held_out))
    training = [song for song in songs if _key(song) not in names]
    return training, [replace(song, split="validation") for song in held_out]


def _key(song: Track) -> tuple[str, str]:
    return song.name, song.digest
