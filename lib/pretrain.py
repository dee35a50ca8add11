"""Stage 1: pre-training on unlabelled music, by MixIT (arXiv 2006.12701, 2505.07631) or by one of its rivals.

Every objective is a loss [B] in dB of the separator on pairs of mixtures [B, 2, C, T], so that all see the same music,
at the same levels, through the same network, for as many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from lib.data.tracks import expect
from lib.losses import mixpit_loss, mixture_loss
from lib.machine.distributed import rank, world_size
from lib.mixing import MixturesOfMixtures, in_batches, validation_mixtures
from lib.model.separator import Separator
from lib.profile.fields import Pretrain
from lib.training import Task, mean_loss, mixit

HIDDEN = 0.25
"""The share of bands, and of frames, that `reconstruction` hides."""
FRAMES = 8
"""Frames that are hidden together, as bands are."""


def mixpit(separator: Separator, mixtures: Tensor) -> Tensor:
    """Two outputs are to be the two mixtures, in either order (Karamatlı and Kırbız 2022, arXiv 2202.03875)."""
    return mixpit_loss(separator(mixtures.sum(1)), mixtures)


def denoising(separator: Separator, mixtures: Tensor) -> Tensor:
    """The first mixture is to be recovered from its sum with the second; ``level_db`` says how soft that is."""
    return mixture_loss(separator(mixtures.sum(1)), mixtures[:, :1])


def reconstruction(separator: Separator, mixtures: Tensor) -> Tensor:
    """The first mixture is to be recovered after bands and stretches of frames gave way to noise of their own level."""
    first = mixtures[:, 0]
    spectrum, noise = separator.stft(first), separator.stft(torch.randn_like(first))
    level, of_noise = (of.abs().square().mean(2, keepdim=True).sqrt() for of in (spectrum, noise))
    hidden = hidden_bins(separator, *spectrum.shape[::3], spectrum.shape[2]).to(spectrum.device)
    corrupted = torch.where(hidden, noise * level / of_noise, spectrum)
    return mixture_loss(separator(separator.istft(corrupted, mixtures.shape[-1])), mixtures[:, :1])


def hidden_bins(separator: Separator, batch: int, bins: int, frames: int) -> Tensor:
    """Which bins of a spectrum are hidden: [batch, 1, frame, bin], whole bands and stretches of `FRAMES` frames."""
    widths = torch.tensor([group.width for group in separator.masker.groups for _ in group.bands])
    bands = (torch.rand(batch, 1, len(widths)) < HIDDEN).repeat_interleave(widths, dim=2, output_size=bins)
    stretches = (torch.rand(batch, frames // FRAMES + 1, 1) < HIDDEN).repeat_interleave(FRAMES, dim=1)[:, :frames]
    return (bands | stretches)[:, None]


OBJECTIVES = {"mixit": mixit, "mixpit": mixpit, "denoising": denoising, "reconstruction": reconstruction}
NAMES = {"mixit": "MixIT", "mixpit": "MixPIT"}
OUTPUTS = {"mixpit": 2, "denoising": 1, "reconstruction": 1}
"""How many outputs an objective needs; MixIT has the profile's."""


def objective(stage: Pretrain) -> partial:
    """The loss [B] of a stage on a batch of pairs of mixtures."""
    options = {"assignment": stage.assignment} if stage.objective == "mixit" else {}
    return partial(OBJECTIVES[stage.objective], **options)


def task(separator: Separator, training: MixturesOfMixtures, held_out: MixturesOfMixtures, stage: Pretrain) -> Task:
    """To train ``separator``, as it comes, on mixtures of mixtures, validated on the first of those of ``held_out``.

    Raises: ValueError if those are of other splits; where too few songs are there to hold any out, both are the same.
    """
    expect(training.crops.tracks, "train")
    if held_out.crops.tracks is not training.crops.tracks:
        expect(held_out.crops.tracks, "validation")
    validation = validation_mixtures(stage.validation_moms, held_out, rank(), world_size())
    validate = partial(_validation_loss, objective(stage), batches=lambda: in_batches(validation, stage.part))
    return Task(separator, training, objective(stage), validate)


def _validation_loss(loss: partial, separator: Separator, batches: Callable[[], Iterable[Tensor]]) -> float:
    """`mean_loss`; what an objective draws, it draws alike every time."""
    with torch.random.fork_rng(devices=[separator.window.device] if separator.window.is_cuda else []):
        torch.manual_seed(0)
        return mean_loss(loss, separator, batches)
