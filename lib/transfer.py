"""How the N outputs of a MixIT model become the four stems.

*Sliced*: one output per stem, chosen by an assignment solver, the other masks dropped. *Frequent*: the same by the
published rule (arXiv 2505.07631): the output that a stem took in most segments; two stems may take the same one.
*Random*: four outputs at random. *Group*: all outputs kept and summed into stems by a 4 x N matrix, its start the best
subset of outputs per stem. *Body*: encoder and blocks kept, new decoders. *Blocks*, *encoder*: they alone kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lib import STEMS
from lib.data.tracks import Track
from lib.losses import all_assignments
from lib.mixing import song_segments
from lib.model.separator import Separator

VERSION = 1
"""Raise it when the same outputs become other stems: runs are renamed."""
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


def segment_statistics(separator: Separator, song: Track, seconds: float) -> list[Statistics]:
    """`Statistics` of every whole segment of ``seconds`` of a song; the separator sees the sum of the stems."""
    device, found = separator.window.device, []
    with torch.inference_mode():
        for _, stems in song_segments([song], seconds, separator.rate):
            stems = stems.to(device)
            found.append(Statistics.of(separator(stems.sum(0, keepdim=True))[0], stems))
    return found


def song_statistics(separator: Separator, song: Track, seconds: float) -> Statistics:
    """`Statistics` of a whole song, added up over segments of ``seconds``.

    Selection goes by songs: in the mean over segments, a passage where a stem is all but silent, far under 0 dB for
    any output, would weigh as much as one where it leads.
    """
    return reduce(add, segment_statistics(separator, song, seconds))


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


def most_frequent_outputs(segments: list[Statistics]) -> list[int]:
    """The published rule: the output that each stem takes in most segments, each aligned by the best permutation."""
    taken = np.zeros((len(STEMS), len(segments[0].gram)), int)
    for segment in segments:
        active = np.flatnonzero(segment.active)
        rows, columns = linear_sum_assignment(output_snr([segment])[active], maximize=True)
        taken[active[rows], columns] += 1
    return [int(output) for output in taken.argmax(1)]


def best_groups(statistics: list[Statistics]) -> np.ndarray:
    """For every stem the subset of outputs of greatest mean SNR among all 2^N: binary [4, N]."""
    subsets = all_assignments(len(statistics[0].gram)).numpy().astype(float)
    scores = np.nan_to_num(mean_snr(statistics, subsets), nan=-np.inf)
    return subsets[scores.argmax(1)]


def slice_outputs(separator: Separator, outputs: list[int]) -> Separator:
    """A copy that keeps only ``outputs``, in that order; what is kept is bit-equal."""
    sliced = copy.deepcopy(separator)
    for group in sliced.masker.groups:
        group.masks = torch.nn.ModuleList([copy.deepcopy(group.masks[output]) for output in outputs])
    return sliced


def group_outputs(separator: Separator, groups: np.ndarray) -> Separator:
    """A copy that sums its outputs into stems with ``groups`` [4, N], trainable from then on."""
    grouped = copy.deepcopy(separator)
    grouped.set_stem_matrix(torch.as_tensor(groups))
    return grouped


def is_block(name: str) -> bool:
    """Whether a weight belongs to the blocks."""
    return ".blocks." in name


def is_body(name: str) -> bool:
    """Whether a weight belongs to the encoder or to the blocks: all but the decoders and the stem matrix."""
    return is_block(name) or ".encoder" in name


PARTS = {"body": is_body, "blocks": is_block, "encoder": lambda name: ".encoder" in name}
"""Which weights the transfers keep that make new decoders."""


def partly_new(separator: Separator, seed: int, keep: Callable[[str], bool]) -> Separator:
    """A separator of four stems with fresh weights but for those of ``separator`` whose names ``keep`` picks."""
    config = {**separator.config(), "sources": len(STEMS), "stems": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Separator.from_config(config)
    kept = {name: value for name, value in separator.state_dict().items() if keep(name)}
    fresh.load_state_dict(kept, strict=False)
    return fresh


def shuffled(separator: Separator, seed: int) -> Separator:
    """A copy whose weights are permuted within each tensor: their statistics without what they learned.

    The stem matrix stays, so that every stem keeps outputs.
    """
    generator = torch.Generator().manual_seed(seed)
    permuted = copy.deepcopy(separator)
    with torch.no_grad():
        for weights in permuted.masker.parameters():
            order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
            weights.copy_(weights.flatten()[order].view_as(weights))
    return permuted


def transfer(separator: Separator, how: str, segments: Callable[[], list[list[Statistics]]], seed: int) -> Separator:
    """The separator that fine-tuning starts from; ``how`` as at the top.

    ``segments`` is asked for the statistics of every segment of each labelled song if outputs are to be chosen.
    """
    if how in PARTS:
        return partly_new(separator, seed, PARTS[how])
    if how == "random":
        return slice_outputs(separator, np.random.default_rng(seed).permutation(separator.sources)[: len(STEMS)])
    chosen = segments()
    if how == "frequent":
        return slice_outputs(separator, most_frequent_outputs([segment for song in chosen for segment in song]))
    songs = [reduce(add, song) for song in chosen]
    if how == "group":
        return group_outputs(separator, best_groups(songs))
    return slice_outputs(separator, choose_outputs(songs))
