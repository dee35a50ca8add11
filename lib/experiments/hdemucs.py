"""Hybrid Demucs as published (Défossez 2021, arXiv 2111.03600; torchaudio's weights): an external baseline.

It is scored where its weights lie on disk. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lib import STEMS, UserError
from lib.data.audio import resample
from lib.profile.fields import Separate
from lib.separate import separate

VERSION = 1
"""Raise it when the same weights give other estimates of a song: scores are made again."""
RATE = 44_100
SOURCES = ("drums", "bass", "other", "vocals")
FILES = {
    "HDemucs (published, MUSDB18-HQ)": "hdemucs_high_musdbhq_only.pt",
    "HDemucs (published, all of MUSDB18-HQ + 150 songs)": "hdemucs_high_trained.pt",
}
"""Files of weights by the method's name in tables. The second was trained on MUSDB18-HQ's test songs too (torchaudio's
documentation of HDEMUCS_HIGH_MUSDB_PLUS)."""


def on_disk() -> dict[str, Path]:
    """The weights that are here, by the method's name: where torchaudio puts them, or torch.hub its checkpoints."""
    hub = Path(torch.hub.get_dir())
    folders = hub / "checkpoints", hub / "torchaudio" / "models"
    return {name: folder / file for name, file in FILES.items() for folder in folders if (folder / file).is_file()}


def absent() -> list[str]:
    """A sentence for each method whose weights are not here."""
    missing = [name for name in FILES if name not in on_disk()]
    where = "not in torch.hub's folder, where torchaudio.pipelines puts it"
    return [f"no row of {name}: {FILES[name]} is {where}" for name in missing]


class Reordered(nn.Module):
    """HDemucs as `lib.separate` takes a separator: mixtures [B, C, T] -> estimates [B, 4, C, T] as in `lib.STEMS`."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.n_fft, self.hop = model, model.nfft, model.hop_length
        self.order = [model.sources.index(stem) for stem in STEMS]

    def forward(self, mixtures: Tensor) -> Tensor:
        return self.model(mixtures)[:, self.order]


def load(path: Path) -> Reordered:
    """The published model with the weights in ``path``. Raises: UserError if they are damaged."""
    from torchaudio.models import hdemucs_high  # here, for it takes a moment, and weights are rarely there

    with torch.device("meta"):  # without memory, time or random numbers for weights that are not used
        model = hdemucs_high(sources=list(SOURCES))
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except Exception as error:  # damaged archives raise anything from OSError to UnpicklingError
        raise UserError(f"{path}: not the weights of HDemucs ({type(error).__name__}); download it again") from error
    return Reordered(model).eval()


def separate_song(model: Reordered, mixture: np.ndarray, rate: int, settings: Separate) -> np.ndarray:
    """A song [C, T] at any ``rate`` -> its estimates [4, C, T], separated at 44.1 kHz in the profile's windows.

    The level is torchaudio's tutorial's: minus mean, over standard deviation of the mono mixture, and back afterwards.
    """
    wave = torch.from_numpy(resample(mixture, rate, RATE))
    mean, level = wave.mean(0).mean(), wave.mean(0).std().clamp(min=1e-8)
    window, hop = (round(seconds * RATE) for seconds in (settings.window_seconds, settings.hop_seconds))
    estimates = separate(model, (wave - mean) / level, window, hop, settings.batch) * level + mean
    return resample(estimates.numpy(), RATE, rate)[..., : mixture.shape[-1]]
