"""How the N outputs of a MixIT model become the four stems.

*Sliced*: one output per stem, chosen by an assignment solver, the other masks dropped (as published, but without the
published rule's collisions). *Group*: all outputs kept and summed into stems by a 4 x N matrix, its start the best
subset of outputs per stem. *Blocks*: encoder and blocks kept, new decoders.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lib import STEMS
from lib.corpora import Track
from lib.losses import all_assignments
from lib.mixing import song_segments
from lib.model import Separator

SILENT_DB = -60.0
"""A stem that lies this far under the mixture counts as silent and is left out."""


@dataclass(frozen=True)
class Statistics:
    """Inner products of stems and outputs, summed over channels, of one segment: all that selection needs.

    gram [N, N] (outputs with outputs), cross [4, N] (stems with outputs), energy [4] of the stems, with_mixture [4]
    (stems with their sum), mixture (energy of that sum), all float64. They add up over the segments of a song.
    """

    gram: np.ndarray
    cross: np.ndarray
    energy: np.ndarray
    with_mixture: np.ndarray
    mixture: float

    @classmethod
    def of(cls, estimates: Tensor, stems: Tensor) -> Statistics:
        """From estimates [N, C, T] and stems [4, C, T]."""
        outputs, flat = estimates.flatten(1).double(), stems.flatten(1).double()
        mixture = flat.sum(0)
        products = (outputs @ outputs.T, flat @ outputs.T, flat.square().sum(1), flat @ mixture, mixture @ mixture)
        return cls(*(product.cpu().numpy() for product in products))

    def __add__(self, other: Statistics) -> Statistics:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Statistics(*(mine + theirs for mine, theirs in pairs))

    @property
    def active(self) -> np.ndarray:
        """Which stems [4] sound."""
        return self.energy > self.mixture * 10 ** (SILENT_DB / 10)

    def snr(self, subsets: np.ndarray) -> np.ndarray:
        """SNR in dB [4, subsets] of every stem against the sum of every subset [subsets, N]; nan for silent stems."""
        quadratic = np.einsum("an,nm,am->a", subsets, self.gram, subsets)
        error = self.energy[:, None] - 2 * self.cross @ subsets.T + quadratic
        floor = 1e-12 * np.maximum(self.energy, 1e-12)[:, None]
        snr = 10 * np.log10(np.maximum(self.energy[:, None], 1e-300) / np.maximum(error, floor))
        return np.where(self.active[:, None], snr, np.nan)


def collect(separator: Separator, segments: Iterable[Tensor]) -> list[Statistics]:
    """`Statistics` of every segment [4, C, T]; the separator sees the sum of the stems."""
    device = separator.window.device
    with torch.inference_mode():
        return [
            Statistics.of(separator(stems.sum(0, keepdim=True).to(device))[0], stems.to(device)) for stems in segments
        ]


def song_statistics(separator: Separator, song: Track, seconds: float) -> Statistics:
    """`Statistics` of a whole song, added up over segments of ``seconds``.

    Selection goes by songs: in the mean over segments, a passage where a stem is all but silent, far under 0 dB for
    any output, would weigh as much as one where it leads.
    """
    return reduce(add, collect(separator, (stems for _, stems in song_segments([song], seconds, separator.rate))))


def mean_snr(statistics: list[Statistics], subsets: np.ndarray) -> np.ndarray:
    """Mean SNR in dB [4, subsets] over the songs in which a stem sounds; nan where it never does."""
    values = np.stack([s.snr(subsets) for s in statistics])
    sounding = np.isfinite(values)
    total = np.where(sounding, values, 0).sum(0)
    return np.where(sounding.any(0), total / np.maximum(sounding.sum(0), 1), np.nan)


def output_snr(statistics: list[Statistics]) -> np.ndarray:
    """Mean SNR in dB of every single output against every stem: [4, N]."""
    return mean_snr(statistics, np.eye(len(statistics[0].gram)))


def choose_outputs(statistics: list[Statistics]) -> list[int]:
    """One output per stem, no output twice, of greatest total mean SNR (Hungarian algorithm); order of `STEMS`."""
    scores = np.nan_to_num(output_snr(statistics), nan=0.0)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return [int(column) for _, column in sorted(zip(rows, columns, strict=True))]


def best_groups(statistics: list[Statistics]) -> np.ndarray:
    """For every stem the subset of outputs of greatest mean SNR among all 2^N: binary [4, N]."""
    subsets = all_assignments(len(statistics[0].gram)).numpy().astype(float)
    scores = np.nan_to_num(mean_snr(statistics, subsets), nan=-np.inf)
    return subsets[scores.argmax(1)]


def slice_outputs(separator: Separator, outputs: list[int]) -> Separator:
    """A copy that keeps only ``outputs``, in that order; what is kept is bit-equal."""
    sliced = copy.deepcopy(separator)
    for group in sliced.masker.groups:
        group.masks = torch.nn.ModuleList([group.masks[output] for output in outputs])
    return sliced


def group_outputs(separator: Separator, groups: np.ndarray) -> Separator:
    """A copy that sums its outputs into stems with ``groups`` [4, N], trainable from then on."""
    grouped = copy.deepcopy(separator)
    grouped.set_stem_matrix(torch.as_tensor(groups))
    return grouped


def new_decoders(separator: Separator, seed: int) -> Separator:
    """A copy with the encoder and the blocks of ``separator`` and fresh decoders for four stems."""
    config = {**separator.config(), "sources": len(STEMS), "stems": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Separator.from_config(config)
    kept = {k: v for k, v in separator.state_dict().items() if ".blocks." in k or ".encoder" in k}
    fresh.load_state_dict(kept, strict=False)
    return fresh


def transfer(separator: Separator, how: str, statistics: list[Statistics], seed: int) -> Separator:
    """The separator that fine-tuning starts from; ``how`` is ``sliced``, ``group`` or ``blocks``."""
    if how == "sliced":
        return slice_outputs(separator, choose_outputs(statistics))
    if how == "group":
        return group_outputs(separator, best_groups(statistics))
    return new_decoders(separator, seed)
