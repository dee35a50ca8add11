"""Stage 2: supervised training on stems, from scratch or from what pre-training left (arXiv 2505.07631)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lib import STEMS
from lib.data.tracks import Track, expect
from lib.losses import stem_snr_loss
from lib.machine.distributed import all_gather, rank, world_size
from lib.mixing import StemMixtures, in_batches, song_segments
from lib.model.separator import Separator
from lib.profile.fields import Finetune
from lib.training import Task, mean_loss, supervised
from lib.transfer import is_block, is_body

KEPT = 256 << 20
"""Bytes of validation segments that are decoded once: reading them takes as long as separating them."""


def task(separator: Separator, training: StemMixtures, validate: Callable[[Separator], float], stage: Finetune) -> Task:
    """To train ``separator``, as it comes, on dynamic mixtures; encoder and blocks learn at ``stage.body_rate``.

    With ``stage.frozen_blocks`` the blocks do not learn (the second table of arXiv 2505.07631).
    """
    for name, weights in separator.named_parameters():
        weights.requires_grad_(not (stage.frozen_blocks and is_block(name)))
    return Task(separator, training, supervised, validate, is_body, stage.body_rate)


def segment_loss(songs: Sequence[Track], samples: int, rate: int, batch: int) -> Callable[[Separator], float]:
    """Validation loss over all whole segments of validation songs, ``batch`` of them at a time.

    Processes share the songs among them, and keep in memory what takes no more than `KEPT`.
    """
    expect(songs, "validation")
    share = songs[rank() :: world_size()]

    def segments() -> Iterator[Tensor]:
        return (stems for _, stems in song_segments(share, samples / rate, rate))

    size = sum(song.seconds for song in share) * rate * len(STEMS) * 2 * 4  # channels, bytes
    read = segments if size > KEPT else functools.cache(lambda: list(segments()))
    return partial(mean_loss, supervised, batches=lambda: in_batches(read(), batch))


def song_loss(
    songs: Sequence[Track], rate: int, separate: Callable[[Separator, Tensor], Tensor]
) -> Callable[[Separator], float]:
    """Validation loss over whole songs, which processes share among them; ``separate`` takes a mixture [C, T]."""
    expect(songs, "validation")

    def validate(separator: Separator) -> float:
        losses = []
        for song in songs[rank() :: world_size()]:
            stems = torch.from_numpy(song.stems(rate=rate))
            losses.append(stem_snr_loss(separate(separator, stems.sum(0))[None], stems[None]).item())
        return float(np.mean(list(itertools.chain(*all_gather(losses)))))

    return validate
