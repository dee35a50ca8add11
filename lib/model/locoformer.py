"""Band-split TF-Locoformer (Saijo et al., arXiv 2408.03440; band split as in TUSS, arXiv 2410.23987).

Tensors inside the model are [batch, frame, band, feature], features last, so that every product and convolution
reads memory in order. D is the feature size, H the hidden size of the convolutional feed-forward network, M the number
of audio channels, N the number of sources.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Width in bins of 44,100 / 2,048 Hz, and how many bands have it (BS-RoFormer, arXiv 2309.02612); the rest of the
# spectrum is split in two.
PUBLISHED_BANDS = ((2, 24), (4, 12), (12, 8), (24, 8), (48, 8))
PUBLISHED_RATE, PUBLISHED_FFT = 44100, 2048
KERNEL = 8
MAX_WEIGHTS = 1 << 22  # attention weights held at once where no gradient needs them: they fit the cache
TINY = torch.finfo(torch.float32).tiny
ROWS = 65_535  # of a kernel's grid
MASK_PARTS = 4  # (value, gate) x (real, imaginary)


@dataclass(frozen=True)
class Size:
    """Blocks B, features D, hidden features H, attention heads, norm groups, learning rate."""

    blocks: int
    features: int
    hidden: int
    heads: int
    groups: int
    learning_rate: float


SIZES = {
    "nano": Size(1, 8, 12, 2, 2, 2e-3),
    "tiny": Size(1, 16, 24, 2, 2, 2e-3),
    "mini": Size(2, 32, 48, 4, 4, 2e-3),
    "compact": Size(2, 48, 64, 4, 4, 2e-3),
    "small": Size(4, 96, 128, 4, 4, 1e-3),
    "medium": Size(6, 128, 192, 8, 8, 1e-3),
    "large": Size(9, 192, 256, 8, 8, 5e-4),
}


def band_widths(rate: int = PUBLISHED_RATE, n_fft: int = PUBLISHED_FFT, scale: float = 1.0) -> list[int]:
    """Widths of the bands in bins, lowest first, covering all ``n_fft // 2 + 1`` bins.

    The published table fixes the width in Hz by region of the spectrum; the nearest whole number of bins fills each
    region. ``scale`` multiplies the widths. At 44.1 kHz, an FFT of 2,048 and scale 1 this is the published 62 bands.
    """
    per_published_bin = PUBLISHED_RATE / PUBLISHED_FFT * n_fft / rate
    bins, start, region_end, widths = n_fft // 2 + 1, 0, 0, []
    for published, count in (*PUBLISHED_BANDS, (128, 2)):
        region_end += published * count
        width = max(1, round(published * scale * per_published_bin))
        while start + width <= bins and start + width / 2 < region_end * per_published_bin:
            widths.append(width)
            start += width
    # What is left below the Nyquist frequency: a sliver joins the last band (the published 129th bin), more is a band.
    if not widths or 2 * (bins - start) > widths[-1]:
        widths.append(bins - start)
    else:
        widths[-1] += bins - start
    return widths


class _Normalised(torch.autograd.Function):
    """x / (rms + eps) over the last axis, and x itself for a residual connection around what takes the first.

    Two passes over memory forward and three backward, the sum of both gradients included. Only x and its norms are kept
    for the gradient, and under autocast the first result has the dtype that products take.
    """

    @staticmethod
    def forward(ctx, x: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = 1 / (norm / math.sqrt(x.shape[-1]) + eps)
        ctx.save_for_backward(x, norm, scale)
        return torch.mul(x, scale, out=torch.empty_like(x, dtype=dtype)), x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor, around: Tensor) -> tuple[Tensor, None, None]:
        x, norm, scale = ctx.saved_tensors
        along = (gradient * x).sum(-1, keepdim=True, dtype=torch.float32)
        radial = -along * scale.square() / (norm * math.sqrt(x.shape[-1])).clamp(min=TINY)
        return torch.addcmul(around, gradient, scale, out=torch.empty_like(x)).addcmul_(x, radial), None, None


class RMSGroupNorm(nn.Module):
    """x / (rms + eps) over ``groups`` contiguous groups of the last axis (TF-Locoformer, section 2), and x itself.

    Its ``gamma`` is left to the product that follows: features of the input times gamma are columns of the weight
    times gamma, which are fewer numbers.
    """

    def __init__(self, features: int, groups: int, eps: float = 1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.gamma = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        device = x.device.type
        reduced = device != "meta" and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if reduced else x.dtype
        grouped = x.unflatten(-1, (self.groups, -1))
        if not torch.compiler.is_compiling():
            normed, same = _Normalised.apply(grouped, self.eps, dtype)
            return normed.flatten(-2), same.flatten(-2)
        rms = torch.linalg.vector_norm(grouped.float(), dim=-1, keepdim=True) / math.sqrt(grouped.shape[-1])
        return (grouped / (rms + self.eps)).to(dtype).flatten(-2), x  # a compiler finds the fewest passes by itself


class Dropout(nn.Dropout):
    """Dropout from 16 random bits an element on CPUs, where the library's own draws 53 and is four times slower."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cuda" or not self.training or self.p == 0:
            return super().forward(x)
        words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = torch.empty(x.shape, dtype=x.dtype)
        torch.ge(bits, round(self.p * 2**16) - 2**15, out=keep)
        return x * keep.div_(1 - self.p)


class SwiGLU(torch.autograd.Function):
    """value * SiLU(gate) of x = (value, gate), halves of axis 1: x alone is kept for the gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        value, gate = x.chunk(2, dim=1)
        return F.silu(gate).mul_(value)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        both = torch.empty_like(x)
        (value, gate), (of_value, of_gate) = x.chunk(2, dim=1), both.chunk(2, dim=1)
        torch.mul(gradient, F.silu(gate), out=of_value)
        torch.ops.aten.silu_backward.grad_input(gradient * value, gate, grad_input=of_gate)
        return both


class ConvSwiGLU(nn.Module):
    """Conv - SwiGLU - transposed conv along the sequences of [batch, row, sequence, feature]."""

    def __init__(self, features: int, hidden: int, dropout: float):
        super().__init__()
        self.conv = nn.Conv2d(features, 2 * hidden, (1, KERNEL), padding=(0, KERNEL - 1))
        self.deconv = nn.ConvTranspose2d(hidden, features, (1, KERNEL))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, gamma: Tensor) -> Tensor:
        """``gamma`` [D] scales the features of x."""
        weight = self.conv.weight * gamma[:, None, None]
        x = F.conv2d(x.permute(0, 3, 1, 2), weight, self.conv.bias, padding=self.conv.padding)
        value, gate = x.chunk(2, dim=1)
        y = value * F.silu(gate) if torch.compiler.is_compiling() else SwiGLU.apply(x)
        y = self.dropout(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        # Cut back to the input's place, a transposed convolution is a convolution with the kernel reversed.
        y = F.conv2d(y, self.deconv.weight.flip(-1).transpose(0, 1), self.deconv.bias)
        return self.dropout(y.permute(0, 2, 3, 1))


class Attention(nn.Module):
    """Multi-head self-attention along the sequences of [batch, row, sequence, feature], without biases or positions."""

    def __init__(self, features: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features, bias=False)
        self.out = nn.Linear(features, features, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, gamma: Tensor) -> Tensor:
        """``gamma`` [D] scales the features of x."""
        qkv = F.linear(x.flatten(0, 1), self.qkv.weight * gamma).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv)
        y = self.attend_fused(q, k, v) if x.device.type == "cuda" else self.attend(q, k, v)
        return self.dropout(self.out(y.transpose(1, 2).reshape(x.shape)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Plain products: with heads of 8 to 24 features they beat the fused kernel's backward pass on CPUs.

        Without gradients, rows are taken a few at a time, so that the weights of long windows need no gigabytes.
        """
        rows = max(1, MAX_WEIGHTS // (self.heads * q.shape[-2] ** 2))
        if not torch.is_grad_enabled() and len(q) > rows:
            y = torch.empty_like(v)  # results kept one by one would lie between the weights freed: the heap would grow
            for part, *of in zip(y.split(rows), q.split(rows), k.split(rows), v.split(rows), strict=True):
                part.copy_(self.attend(*of))
            return y
        weights = torch.softmax((q / math.sqrt(q.shape[-1]) @ k.mT).float(), dim=-1).to(v.dtype)
        return self.dropout(weights) @ v

    def attend_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The library's kernel: on GPUs it keeps no weights [sequence, sequence] in memory, and takes `ROWS` rows."""
        if len(q) > ROWS:
            return torch.cat(
                [self.attend_fused(*part) for part in zip(*(x.split(ROWS) for x in (q, k, v)), strict=True)]
            )
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p if self.training else 0.0)


class Path1D(nn.Module):
    """One path of a block: feed-forward, attention, feed-forward along sequences, each pre-normed and residual."""

    def __init__(self, size: Size, dropout: float):
        super().__init__()
        norm = lambda: RMSGroupNorm(size.features, size.groups)  # noqa: E731
        self.norms = nn.ModuleList([norm(), norm(), norm()])
        self.before = ConvSwiGLU(size.features, size.hidden, dropout)
        self.attention = Attention(size.features, size.heads, dropout)
        self.after = ConvSwiGLU(size.features, size.hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        for norm, layer in zip(self.norms, (self.before, self.attention, self.after), strict=True):
            normed, x = norm(x)
            x = x + layer(normed, norm.gamma)
        return x


class Block(nn.Module):
    """A path along the bands of [batch, frame, band, feature], then one along its frames."""

    def __init__(self, size: Size, dropout: float):
        super().__init__()
        self.frequency = Path1D(size, dropout)
        self.time = Path1D(size, dropout)

    def forward(self, x: Tensor) -> Tensor:
        # One copy lays the frames of a band side by side in memory, which every layer along them then gains from.
        frames_last = self.frequency(x).transpose(1, 2).contiguous()
        return self.time(frames_last).transpose(1, 2).contiguous()


class BandNorm(nn.Module):
    """GroupNorm with one group per band, over features and frames: [band, batch, frame, feature]."""

    def __init__(self, bands: int, features: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(bands, features))
        self.bias = nn.Parameter(torch.zeros(bands, features))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        scale = torch.rsqrt(variance + self.eps) * self.weight[:, None, None]
        return x * scale + (self.bias[:, None, None] - mean * scale)


class BandLinear(nn.Module):
    """One affine map per band: [band, row, in] -> [band, row, out], as one batched product."""

    def __init__(self, bands: int, inputs: int, *outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(bands, inputs, *outputs))
        self.bias = nn.Parameter(torch.empty(bands, *outputs))
        bound = 1 / math.sqrt(inputs)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.flatten(1).unsqueeze(1), rows, self.weight.flatten(2))


class BandGroup(nn.Module):
    """Encoder and decoder of neighbouring bands of one width, so that 62 small layers become a few batched ones."""

    def __init__(self, bands: range, first_bin: int, width: int, size: Size, channels: int, sources: int):
        super().__init__()
        count, features, wide = len(bands), size.features, 4 * size.features
        self.bands, self.width, self.channels = bands, width, channels
        self.bins = slice(first_bin, first_bin + count * width)
        inputs = 2 * channels * width
        self.encoder_norm = BandNorm(count, inputs)
        self.encoder = BandLinear(count, inputs, features)
        self.decoder_norm = BandNorm(count, features)
        self.decoder = nn.ModuleList([BandLinear(count, features, wide), BandLinear(count, wide, wide)])
        # One map per source, so that a source's mask does not depend, to the last bit, on which others are kept.
        # Its outputs: GLU half, audio channel, bin, real/imaginary, which are complex masks without a transpose.
        self.masks = nn.ModuleList([BandLinear(count, wide, 2, channels, width, 2) for _ in range(sources)])

    def encode(self, spectrum: Tensor) -> Tensor:
        """Complex [batch, channel, frame, bin] -> [batch, frame, bands of this width, D]."""
        x = torch.view_as_real(spectrum[..., self.bins]).unflatten(3, (len(self.bands), self.width))
        x = x.permute(3, 0, 2, 4, 5, 1).flatten(3)  # features in the published order: bin, part, channel
        return self.encoder(self.encoder_norm(x).flatten(1, 2)).unflatten(1, x.shape[1:3]).permute(1, 2, 0, 3)

    def decode(self, x: Tensor) -> Tensor:
        """[batch, frame, bands of this width, D] -> masks [batch, source, band, frame, (channel, bin, re/im)]."""
        x = self.decoder_norm(x.permute(2, 0, 1, 3).float())
        hidden = torch.tanh(self.decoder[1](self.decoder[0](x.flatten(1, 2))))
        decode = self.masks_of_all if x.device.type == "cuda" else self.masks_of_each
        return decode(hidden, x.shape[1:3])

    def masks_of_each(self, hidden: Tensor, rows: tuple[int, int]) -> Tensor:
        """``hidden`` [band, batch * frame, 4 D], ``rows`` (batch, frame) -> masks, by a product for each source."""
        masks = [F.glu(mask(hidden)).unflatten(1, rows).transpose(0, 1) for mask in self.masks]
        return torch.stack(masks, dim=1).float()

    def masks_of_all(self, hidden: Tensor, rows: tuple[int, int]) -> Tensor:
        """The same by one product: GPUs read ``hidden``, and write its gradient, once instead of once a source."""
        weight = torch.cat([mask.weight.flatten(2) for mask in self.masks], dim=2)
        bias = torch.cat([mask.bias.flatten(1) for mask in self.masks], dim=1).unsqueeze(1)
        halves = torch.baddbmm(bias, hidden, weight).unflatten(2, (len(self.masks), 2, -1))
        masks = F.glu(halves, dim=3).squeeze(3).unflatten(1, rows).permute(1, 3, 0, 2, 4)
        return masks.to(torch.float32, memory_format=torch.contiguous_format)

    def filter(self, masks: Tensor, spectrum: Tensor) -> Tensor:
        """What `decode` gave, applied to complex [batch, M, frame, bin] -> [batch, source, M, frame, bins here]."""
        complex_masks = torch.view_as_complex(masks.unflatten(-1, (self.channels, self.width, 2)))
        bands = spectrum[..., self.bins].unflatten(-1, (len(self.bands), self.width)).unsqueeze(1)
        return (complex_masks.permute(0, 1, 4, 3, 2, 5) * bands).flatten(-2)


class BandSplitTFLocoformer(nn.Module):
    """Spectrum of a mixture -> one complex mask per source, audio channel and bin.

    ``forward``: complex [batch, M, frames, bins] -> one tensor per `BandGroup`, as its `BandGroup.decode` gives it.
    With ``recompute`` set, training keeps only what lies between the blocks, and computes each again for its gradient
    (Chen et al., arXiv 1604.06174): less memory, a third more time, the same result.
    """

    def __init__(self, widths: list[int], size: Size, sources: int, channels: int = 2, dropout: float = 0.1):
        super().__init__()
        self.groups = nn.ModuleList()
        band, first_bin = 0, 0
        for width, run in itertools.groupby(widths):
            bands = range(band, band + len(list(run)))
            self.groups.append(BandGroup(bands, first_bin, width, size, channels, sources))
            band, first_bin = bands.stop, first_bin + len(bands) * width
        self.blocks = nn.ModuleList([Block(size, dropout) for _ in range(size.blocks)])
        self.recompute = False

    @property
    def sources(self) -> int:
        """N, the number of masks."""
        return len(self.groups[0].masks)

    def forward(self, spectrum: Tensor) -> list[Tensor]:
        x = torch.cat([group.encode(spectrum) for group in self.groups], dim=2)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute and torch.is_grad_enabled() else block(x)
        bands = x.split([len(group.bands) for group in self.groups], dim=2)
        return [group.decode(part) for group, part in zip(self.groups, bands, strict=True)]

    def filter(self, masks: list[Tensor], spectrum: Tensor) -> Tensor:
        """Apply what `forward` gave to a spectrum: complex [batch, M, frames, bins] -> [batch, N, M, frames, bins]."""
        parts = [group.filter(mask, spectrum) for group, mask in zip(self.groups, masks, strict=True)]
        return torch.cat(parts, dim=-1)
