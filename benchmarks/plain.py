"""The plain formulation: the model as its papers draw it, the peer that `lib.model` is measured against.

One Conv1d per band, Conv1d on sequences cut out with transposes, the library's attention, every mask and every
waveform formed. Parameters have the published names, so that `lib.model` loads a `PlainSeparator`'s weights the way it
loads a published checkpoint, and a test holds the two equal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses import all_assignments, mixit_loss, negative_snr
from lib.model.locoformer import KERNEL, Size
from lib.model.published import translate_published
from lib.model.separator import Separator


class RMSGroupNorm(nn.Module):
    """x / (rms + eps) * gamma over contiguous groups of the features of [batch, D, frame, band]."""

    def __init__(self, features: int, groups: int):
        super().__init__()
        self.groups = groups
        self.gamma = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))
        rms = grouped.square().mean(2, keepdim=True).sqrt()
        return (grouped / (rms + 1e-5)).flatten(1, 2) * self.gamma[:, None, None]


class FeedForward(nn.Module):
    """Conv1d - SwiGLU - ConvTranspose1d on [sequence, D, length]."""

    def __init__(self, features: int, hidden: int, dropout: float):
        super().__init__()
        self.conv1d = nn.Conv1d(features, 2 * hidden, KERNEL)
        self.deconv1d = nn.ConvTranspose1d(hidden, features, KERNEL)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv1d(F.pad(x, (KERNEL - 1, KERNEL - 1))).chunk(2, dim=1)
        y = self.deconv1d(self.dropout(value * F.silu(gate)))
        return self.dropout(y[..., KERNEL - 1 : KERNEL - 1 + x.shape[-1]])


class Attention(nn.Module):
    """Multi-head self-attention on [sequence, length, D] with `scaled_dot_product_attention`."""

    def __init__(self, features: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(features, 3 * features, bias=False)
        self.aggregate_heads = nn.Sequential(nn.Linear(features, features, bias=False), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.aggregate_heads(y.transpose(1, 2).flatten(-2))


class Path(nn.Module):
    """One path of a block on [batch, D, frame, band]: sequences along ``axis``, 2 or 3."""

    def __init__(self, size: Size, axis: int, dropout: float):
        super().__init__()
        self.order = (0, 2, 1, 3) if axis == 3 else (0, 3, 1, 2)  # batch, other axis, D, sequence
        # Index 1 runs before attention, index 0 after it, as in the published checkpoints.
        self.ffn_norm = nn.ModuleList([RMSGroupNorm(size.features, size.groups) for _ in range(2)])
        self.ffn = nn.ModuleList([FeedForward(size.features, size.hidden, dropout) for _ in range(2)])
        self.attn_norm = RMSGroupNorm(size.features, size.groups)
        self.attn = Attention(size.features, size.heads, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.along(self.ffn[1], self.ffn_norm[1](x))
        x = x + self.along(lambda y: self.attn(y.transpose(1, 2)).transpose(1, 2), self.attn_norm(x))
        return x + self.along(self.ffn[0], self.ffn_norm[0](x))

    def along(self, layer, x: Tensor) -> Tensor:
        sequences = x.permute(self.order)
        y = layer(sequences.flatten(0, 1)).unflatten(0, sequences.shape[:2])
        return y.permute([self.order.index(axis) for axis in range(4)])


class Block(nn.Module):
    def __init__(self, size: Size, dropout: float):
        super().__init__()
        self.freq_path, self.frame_path = Path(size, 3, dropout), Path(size, 2, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.frame_path(self.freq_path(x))


class Bands(nn.Module):
    """One encoder and one decoder per band."""

    def __init__(self, widths: list[int], size: Size, sources: int, channels: int):
        super().__init__()
        features = size.features
        inputs = [2 * channels * width for width in widths]
        self.band_split_module = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, n, 1e-5), nn.Conv1d(n, features, 1)) for n in inputs
        )
        self.bandwise_decoding_module = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, features, 1e-5),
                nn.Conv1d(features, 4 * features, 1),
                nn.Conv1d(4 * features, 4 * features, 1),
                nn.Tanh(),
                nn.Conv1d(4 * features, 2 * sources * n, 1),
                nn.GLU(dim=1),
            )
            for n in inputs
        )


class PlainSeparator(nn.Module):
    """The same function as ``reference``, with its weights: mixture [B, M, T] -> estimates [B, N, M, T]."""

    def __init__(self, reference: Separator):
        super().__init__()
        self.reference, self.channels, size = [reference], 2, reference.size  # in a list: not a submodule
        self.widths = [group.width for group in reference.masker.groups for _ in group.bands]
        self.blocks = nn.ModuleList([Block(size, reference.dropout) for _ in range(size.blocks)])
        self.band_split_module = Bands(self.widths, size, reference.sources, self.channels)
        reference.masker.load_state_dict(translate_published(self.state_dict(), reference.masker))

    def forward(self, mixture: Tensor) -> Tensor:
        separator, samples = self.reference[0], mixture.shape[-1]
        spectrum = separator.stft(mixture)
        rms = spectrum.abs().square().clamp(min=1e-15).mean((-1, -2)).sqrt()[..., None]
        spectrum = separator.stft(mixture / rms)[:, :, : samples // separator.hop]
        x = self.encode(spectrum)
        for block in self.blocks:
            x = block(x)
        estimates = separator.istft(self.masks(x) * spectrum.unsqueeze(1), samples)
        return estimates * rms.unsqueeze(1)

    def encode(self, spectrum: Tensor) -> Tensor:
        """Complex [batch, channel, frame, bin] -> [batch, D, frame, band]."""
        parts = torch.view_as_real(spectrum).permute(0, 3, 4, 1, 2)  # batch, bin, part, channel, frame
        bands = zip(parts.split(self.widths, dim=1), self.band_split_module.band_split_module, strict=True)
        return torch.stack([layer(band.flatten(1, 3)) for band, layer in bands], dim=-1)

    def masks(self, x: Tensor) -> Tensor:
        """[batch, D, frame, band] -> complex masks [batch, source, channel, frame, bin]."""
        bands = zip(x.unbind(-1), self.band_split_module.bandwise_decoding_module, strict=True)
        shapes = ((2, -1, self.channels, width) for width in self.widths)
        masks = [layer(band).float().unflatten(1, shape) for (band, layer), shape in zip(bands, shapes, strict=True)]
        return torch.view_as_complex(torch.cat(masks, dim=4).permute(0, 2, 3, 5, 4, 1).contiguous())


def plain_mixit(separator: nn.Module, mixtures: Tensor) -> Tensor:
    """The objective of pre-training as published: mixtures [B, 2, C, T] -> MixIT's loss [B], by least squares."""
    return mixit_loss(separator(mixtures.sum(1)), mixtures, "least_squares")[0]


def mixit_by_pairs(estimates: Tensor, mixtures: Tensor, tau: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Exact MixIT by forming both sums of every one of the 2^N assignments; like `lib.losses.mixit_loss`.

    Only the chosen pair is formed with gradients, which spares this peer the memory of all others.
    """
    rows = all_assignments(estimates.shape[1]).to(estimates)
    with torch.no_grad():
        losses = torch.stack([pair_loss(estimates, mixtures, row.expand(len(estimates), -1), tau) for row in rows])
    best = rows[losses.argmin(0)]
    return pair_loss(estimates, mixtures, best, tau), torch.stack([best, 1 - best], dim=1)


def pair_loss(estimates: Tensor, mixtures: Tensor, first: Tensor, tau: float) -> Tensor:
    """MixIT loss [B] of one assignment: ``first`` [B, N] marks the outputs of mixture 0."""
    sums = torch.einsum("bin,bnct->bict", torch.stack([first, 1 - first], dim=1), estimates)
    return negative_snr((mixtures - sums).square().sum(-1), mixtures.square().sum(-1), tau).mean((1, 2))
