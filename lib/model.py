"""Band-split TF-Locoformer (Saijo et al., arXiv 2408.03440; band split as in TUSS, arXiv 2410.23987).

Tensors inside the model are [batch, frame, band, feature], features last, so that every product and convolution
reads memory in order. D is the feature size, H the hidden size of the convolutional feed-forward network, M the number
of audio channels, N the number of sources.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lib import UserError, checkpoints
from lib.runs import atomic

# Width in bins of 44,100 / 2,048 Hz, and how many bands have it (BS-RoFormer, arXiv 2309.02612); the rest of the
# spectrum is split in two.
PUBLISHED_BANDS = ((2, 24), (4, 12), (12, 8), (24, 8), (48, 8))
PUBLISHED_RATE, PUBLISHED_FFT = 44100, 2048
KERNEL = 8
MAX_WEIGHTS = 1 << 22  # attention weights held at once where no gradient needs them: they fit the cache
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
    "demo": Size(2, 48, 64, 4, 4, 2e-3),
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


class RMSGroupNorm(nn.Module):
    """x / (rms + eps) * gamma over ``groups`` contiguous groups of the last axis (TF-Locoformer, section 2)."""

    def __init__(self, features: int, groups: int, eps: float = 1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.gamma = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.float().unflatten(-1, (self.groups, -1))
        rms = torch.linalg.vector_norm(grouped, dim=-1, keepdim=True) / math.sqrt(grouped.shape[-1])
        return (grouped * (1 / (rms + self.eps))).flatten(-2) * self.gamma


class Dropout(nn.Dropout):
    """Dropout from 16 random bits an element on CPUs, where the library's own draws 53 and is four times slower."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or not self.training or self.p == 0:
            return super().forward(x)
        words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = torch.empty(x.shape, dtype=x.dtype)
        torch.ge(bits, round(self.p * 2**16) - 2**15, out=keep)
        return x * keep.div_(1 - self.p)


class ConvSwiGLU(nn.Module):
    """Conv - SwiGLU - transposed conv along the sequences of [batch, row, sequence, feature]."""

    def __init__(self, features: int, hidden: int, dropout: float):
        super().__init__()
        self.conv = nn.Conv2d(features, 2 * hidden, (1, KERNEL), padding=(0, KERNEL - 1))
        self.deconv = nn.ConvTranspose2d(hidden, features, (1, KERNEL))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x.permute(0, 3, 1, 2)).chunk(2, dim=1)
        y = self.dropout((value * F.silu(gate)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
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

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(0, 1)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = self.attend_fused(q, k, v) if x.is_cuda else self.attend(q, k, v)
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
        """The library's kernel: on GPUs it keeps no weights [sequence, sequence] in memory."""
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
            x = x + layer(norm(x))
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
        masks = [F.glu(mask(hidden)).unflatten(1, x.shape[1:3]).transpose(0, 1) for mask in self.masks]
        return torch.stack(masks, dim=1).float()

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
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

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

    def forward(self, mixture: Tensor, choose: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Estimates, or with ``choose`` only sums of them: [batch, sum, channel, sample].

        ``choose`` is shown the estimates and returns weights [batch, sum, N]. The sums are formed of the masks, before
        the inverse STFT, which is linear: gradients pass through a few sums instead of through N waveforms.
        """
        masks, spectrum = self.masks(mixture)
        if choose is not None:
            with torch.no_grad():
                weights = choose(self.apply_masks(masks, spectrum, mixture.shape[-1]))
            masks = _weighted(masks, weights)
        return self.apply_masks(masks, spectrum, mixture.shape[-1])

    def masks(self, mixture: Tensor) -> tuple[list[Tensor], Tensor]:
        """Masks as `BandSplitTFLocoformer` gives them, and the complex spectrum of the mixture that they multiply."""
        spectrum = self.stft(mixture)
        power = torch.view_as_real(spectrum).square().sum(-1)
        level = power.clamp(min=1e-15).mean((-1, -2), keepdim=True).sqrt()
        spectrum = spectrum[:, :, : mixture.shape[-1] // self.hop]
        masks = self.masker(spectrum / level)
        if self.stem_matrix is not None:
            masks = _weighted(masks, self.stem_matrix.expand(len(mixture), -1, -1))
        return masks, spectrum

    def apply_masks(self, masks: list[Tensor], spectrum: Tensor, samples: int) -> Tensor:
        """Filter the spectrum with masks of any number of sources: [batch, source, channel, sample]."""
        return self.istft(self.masker.filter(masks, spectrum), samples)

    def stft(self, wave: Tensor) -> Tensor:
        """[batch, channel, sample] -> complex [batch, channel, frame, bin]; Hann, centred, reflect padding."""
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = torch.stft(
                wave.float().flatten(0, 1), self.n_fft, self.hop, window=self.window, center=True, return_complex=True
            )
        return spectrum.transpose(-1, -2).unflatten(0, wave.shape[:2])

    def istft(self, spectrum: Tensor, samples: int) -> Tensor:
        """Complex [..., frame, bin] -> [..., sample]."""
        wave = torch.istft(
            spectrum.flatten(0, -3).transpose(-1, -2), self.n_fft, self.hop, window=self.window, length=samples
        )
        return wave.unflatten(0, spectrum.shape[:-2])

    def config(self) -> dict:
        """What `save` writes beside the weights and `from_pretrained` needs to build the same module."""
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

    def save(self, path: Path | str) -> None:
        """Write weights and configuration as one safetensors file, atomically."""
        weights = {name: value.detach().contiguous().cpu() for name, value in self.state_dict().items()}
        with atomic(path) as temporary:
            save_file(weights, temporary, metadata={"separator": json.dumps(self.config())})

    @classmethod
    def from_pretrained(cls, path: Path | str) -> Separator:
        """Load a run folder, a safetensors file of this project or a published ``.pth``, in evaluation mode.

        Raises: UserError if the file is missing, damaged, or not a separator.
        """
        path = Path(path)
        file = path / "model.safetensors" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{path}: no checkpoint here; give a run folder, a .safetensors or a published .pth file")
        if file.suffix != ".safetensors":
            return load_published(file)
        try:
            with safe_open(file, "pt") as opened:
                config = json.loads((opened.metadata() or {})["separator"])
                shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
            checkpoints.check_configuration(config, len(shapes))
            checkpoints.check_shapes(lambda: cls.from_config(config), shapes)
            weights = load_file(file)
            checkpoints.check_finite(weights)
            separator = cls.from_config(config)
            separator.load_state_dict(weights)
        except (SafetensorError, *checkpoints.DAMAGED) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{file}: not a checkpoint of this project ({reason}); train or copy it again") from error
        return separator.eval()


def _weighted(masks: list[Tensor], weights: Tensor) -> list[Tensor]:
    """Sums of masks [batch, N, ...] with weights [batch, sum, N], in float32 under autocast too."""
    with torch.autocast(weights.device.type, enabled=False):
        return [(weights.float() @ mask.flatten(2)).unflatten(2, mask.shape[2:]) for mask in masks]


def load_published(path: Path | str, heads: int | None = None, groups: int | None = None) -> Separator:
    """Load a checkpoint in the published names (``model.pth`` of ``kohei0209/mixit_mss``), or the same in an ``.npz``.

    The size is read from the shapes. Shapes do not tell heads and norm groups: they are those of the published size
    with as many features, and 2 and 2 for a feature size that no published model has, unless given.

    Raises: UserError if the file is missing, damaged, or misses a weight.
    """
    path = Path(path)
    weights = _read_published(path)
    try:
        blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        hidden, features, _ = weights["blocks.0.freq_path.ffn.0.deconv1d.weight"].shape[:3]
        last = weights["band_split_module.bandwise_decoding_module.0.4.weight"].shape[0]
        published = next((s for s in SIZES.values() if s.features == features and s.hidden == hidden), None)
        heads = heads or (published.heads if published else 2)
        groups = groups or (published.groups if published else 2)
        size = Size(blocks, features, hidden, heads, groups, published.learning_rate if published else 1e-3)
        front = {"rate": PUBLISHED_RATE, "n_fft": PUBLISHED_FFT, "hop": 512, "band_scale": 1.0, "dropout": 0.1}
        sources = last // (2 * MASK_PARTS * band_widths()[0])
        config = {"size": vars(size), "sources": sources, "stems": None, **front}
        checkpoints.check_configuration(config, len(weights))
        with torch.device("meta"):
            state = translate_published(weights, Separator.from_config(config).masker)
        checkpoints.check_shapes(
            lambda: Separator.from_config(config).masker, {name: value.shape for name, value in state.items()}
        )
        checkpoints.check_finite(state)
        separator = Separator.from_config(config)
        separator.masker.load_state_dict(state)
    except checkpoints.DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a published checkpoint ({reason}); download it again") from error
    return separator.eval()


def _read_published(path: Path) -> dict[str, Tensor]:
    """Weights by published name without the prefix ``model.`` or ``model.model.``, in float32."""
    try:
        checkpoints.check_archive(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                weights = {name: torch.from_numpy(archive[name]) for name in archive.files}
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about unusual pickles: what is in them decides
                weights = torch.load(path, map_location="cpu", weights_only=True)
            weights = weights.get("state_dict", weights)
        weights = {name: value for name, value in weights.items() if str(name).startswith("model.")}
        weights = checkpoints.check_tensors(weights, path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint; check the path") from error
    except Exception as error:  # damaged archives raise anything from OSError to UnpicklingError
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason}); download it again") from error
    return {name.removeprefix("model.").removeprefix("model."): value.float() for name, value in weights.items()}


def translate_published(weights: dict[str, Tensor], masker: BandSplitTFLocoformer) -> dict[str, Tensor]:
    """Published names and shapes -> this module's."""
    state = {}
    for block in range(len(masker.blocks)):
        for theirs, ours in (("freq_path", "frequency"), ("frame_path", "time")):
            source, target = f"blocks.{block}.{theirs}", f"blocks.{block}.{ours}"
            # Index 1 of the published feed-forward pair runs before attention, index 0 after it.
            for index, name, norm in ((1, "before", 0), (0, "after", 2)):
                for conv in ("conv", "deconv"):
                    kernel = weights[f"{source}.ffn.{index}.{conv}1d.weight"]
                    state[f"{target}.{name}.{conv}.weight"] = kernel.unsqueeze(-2)
                    state[f"{target}.{name}.{conv}.bias"] = weights[f"{source}.ffn.{index}.{conv}1d.bias"]
                state[f"{target}.norms.{norm}.gamma"] = weights[f"{source}.ffn_norm.{index}.gamma"]
            state[f"{target}.norms.1.gamma"] = weights[f"{source}.attn_norm.gamma"]
            state[f"{target}.attention.qkv.weight"] = weights[f"{source}.attn.qkv.weight"]
            state[f"{target}.attention.out.weight"] = weights[f"{source}.attn.aggregate_heads.0.weight"]
    for index, group in enumerate(masker.groups):
        for name, theirs in (
            ("encoder_norm", "band_split_module.{}.0"),
            ("encoder", "band_split_module.{}.1"),
            ("decoder_norm", "bandwise_decoding_module.{}.0"),
            ("decoder.0", "bandwise_decoding_module.{}.1"),
            ("decoder.1", "bandwise_decoding_module.{}.2"),
            ("masks", "bandwise_decoding_module.{}.4"),
        ):
            for part in ("weight", "bias"):
                stacked = [weights[f"band_split_module.{theirs.format(band)}.{part}"] for band in group.bands]
                value = torch.stack([s.squeeze(-1).T if s.dim() == 3 else s for s in stacked])
                if name != "masks":
                    state[f"groups.{index}.{name}.{part}"] = value
                    continue
                # Published order of the outputs: GLU half, real/imaginary, source, audio channel, bin.
                value = value.unflatten(-1, (2, 2, masker.sources, group.channels, group.width)).movedim(-4, -1)
                for source in range(masker.sources):
                    state[f"groups.{index}.masks.{source}.{part}"] = value.select(-4, source)
    return state
