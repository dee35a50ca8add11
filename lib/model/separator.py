"""From waveform to waveforms: STFT, level, masks, inverse STFT."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import UserError
from lib.machine.devices import without_autocast
from lib.model.locoformer import PUBLISHED_FFT, PUBLISHED_RATE, SIZES, BandSplitTFLocoformer, Size, band_widths

VERSION = 1
"""Raise it when the same weights and mixture give other estimates, or the same seed other weights: runs are renamed."""


class OverlapAdd(torch.autograd.Function):
    """Frames [..., frame, sample] times a window [sample], each added ``hop`` samples after the one before it.

    The result is [..., sample]. A few sums of shifted parts are faster than the library's general fold.
    """

    @staticmethod
    def forward(ctx, frames: Tensor, window: Tensor, hop: int) -> Tensor:
        ctx.save_for_backward(window)
        ctx.hop, (count, length) = hop, frames.shape[-2:]
        parts = math.ceil(length / hop)
        total = frames.new_zeros(*frames.shape[:-2], count + parts - 1, hop)
        for part, (values, weights) in enumerate(zip(frames.split(hop, -1), window.split(hop), strict=True)):
            total[..., part : part + count, : len(weights)].addcmul_(values, weights)
        return total.flatten(-2)[..., : (count - 1) * hop + length]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (window,) = ctx.saved_tensors
        return gradient.unfold(-1, len(window), ctx.hop) * window, None, None


class Separator(nn.Module):
    """Waveforms to waveforms: STFT, level normalisation, masks, inverse STFT.

    ``forward``: float32 mixture [batch, channel, sample] -> estimates [batch, source, channel, sample]. Give it a whole
    number of hops: with another length the last samples are divided by a vanishing window sum (see `lib.separate`).
    """

    def __init__(
        self,
        size: Size,
        sources: int,
        rate: int = PUBLISHED_RATE,
        n_fft: int = PUBLISHED_FFT,
        hop: int = 512,
        band_scale: float = 1.0,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.size, self.rate, self.n_fft, self.hop = size, rate, n_fft, hop
        self.band_scale, self.dropout = band_scale, dropout
        self.masker = BandSplitTFLocoformer(band_widths(rate, n_fft, band_scale), size, sources, dropout=dropout)
        self.register_parameter("stem_matrix", None)
        # a window that is made without memory ("meta") would have torch import its compiler, for seconds
        window = torch.hann_window(n_fft, device="cpu").to(torch.get_default_device())
        self.register_buffer("window", window, persistent=False)

    @classmethod
    def from_size(cls, size: str, sources: int = 12, seed: int = 0, **front_end) -> Separator:
        """A new separator of a named size (see `SIZES`), its weights drawn from ``seed``.

        Raises: UserError for an unknown size.
        """
        if size not in SIZES:
            raise UserError(f"model size '{size}' is unknown: use one of {', '.join(SIZES)}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(SIZES[size], sources, **front_end)

    @property
    def sources(self) -> int:
        """Number of estimates that come out: N, or the stems that a stem matrix sums them into."""
        return self.masker.sources if self.stem_matrix is None else self.stem_matrix.shape[0]

    def forward(self, mixture: Tensor, remixable: bool = False) -> Tensor | tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Estimates [batch, source, channel, sample].

        With ``remixable`` the estimates come without gradients, and with them a function from weights [batch, sum, N]
        to sums of estimates [batch, sum, channel, sample]. The sums are formed of the masks, before the inverse STFT,
        which is linear: gradients pass through a few sums instead of N waveforms.
        """
        masks, spectrum = self.masks(mixture)
        if not remixable:
            return self.apply_masks(masks, spectrum, mixture.shape[-1])
        with torch.no_grad():
            estimates = self.apply_masks(masks, spectrum, mixture.shape[-1])
        return estimates, lambda weights: self.apply_masks(weighted(masks, weights), spectrum, mixture.shape[-1])

    def masks(self, mixture: Tensor) -> tuple[list[Tensor], Tensor]:
        """Masks as `BandSplitTFLocoformer` gives them, and the complex spectrum of the mixture that they multiply."""
        spectrum = self.stft(mixture)
        power = torch.view_as_real(spectrum).square().sum(-1)
        level = power.clamp(min=1e-15).mean((-1, -2), keepdim=True).sqrt()
        spectrum = spectrum[:, :, : mixture.shape[-1] // self.hop]
        masks = self.masker(spectrum / level)
        if self.stem_matrix is not None:
            masks = weighted(masks, self.stem_matrix.expand(len(mixture), -1, -1))
        return masks, spectrum

    def apply_masks(self, masks: list[Tensor], spectrum: Tensor, samples: int) -> Tensor:
        """Filter the spectrum with masks of any number of sources: [batch, source, channel, sample]."""
        return self.istft(self.masker.filter(masks, spectrum), samples)

    def stft(self, wave: Tensor) -> Tensor:
        """[batch, channel, sample] -> complex [batch, channel, frame, bin]; Hann, centred, reflect padding."""
        with without_autocast(wave.device):
            spectrum = torch.stft(
                wave.float().flatten(0, 1), self.n_fft, self.hop, window=self.window, center=True, return_complex=True
            )
        return spectrum.transpose(-1, -2).unflatten(0, wave.shape[:2])

    def istft(self, spectrum: Tensor, samples: int) -> Tensor:
        """Complex [..., frame, bin] -> [..., sample], zero where no frame reaches."""
        frames, start = torch.fft.irfft(spectrum, self.n_fft), self.n_fft // 2
        weight = OverlapAdd.apply(torch.ones_like(frames[(0,) * (frames.dim() - 2)]), self.window.square(), self.hop)
        wave = OverlapAdd.apply(frames, self.window, self.hop)[..., start : start + samples]
        wave = wave / weight[start : start + samples]
        return F.pad(wave, (0, samples - wave.shape[-1]))

    def config(self) -> dict:
        """What a checkpoint holds beside the weights, and `from_config` needs to build the same module."""
        return {
            "size": vars(self.size),
            "sources": self.masker.sources,
            "stems": None if self.stem_matrix is None else self.sources,
            **{key: getattr(self, key) for key in ("rate", "n_fft", "hop", "band_scale", "dropout")},
        }

    @classmethod
    def from_config(cls, config: dict) -> Separator:
        """The module that `config` describes, its weights not yet set."""
        config = dict(config)
        stems, size = config.pop("stems"), Size(**config.pop("size"))
        separator = cls(size, **config)
        if stems is not None:
            separator.set_stem_matrix(torch.zeros(stems, separator.masker.sources))
        return separator

    def set_stem_matrix(self, matrix: Tensor) -> None:
        """Sum the N outputs into stems with ``matrix`` [stem, N], trained with the rest from then on."""
        self.stem_matrix = nn.Parameter(matrix.float().clone())


def weighted(masks: list[Tensor], weights: Tensor) -> list[Tensor]:
    """Sums of masks [batch, N, ...] with weights [batch, sum, N], in float32 under autocast too."""
    with without_autocast(weights.device):
        return [(weights.float() @ mask.flatten(2)).unflatten(2, mask.shape[2:]) for mask in masks]
