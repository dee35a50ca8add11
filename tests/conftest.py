"""Shared fixtures: reference vectors, and a study small enough to train inside a test."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.model import Separator

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden():
    """Load ``golden/NAME.npz`` as tensors by name."""

    def load(name: str) -> dict[str, torch.Tensor]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
            return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}

    return load


@pytest.fixture
def tiny():
    """A small separator with five outputs at 8 kHz, in evaluation mode."""
    return Separator.from_size("tiny", 5, seed=3, rate=8000, n_fft=256, hop=64, band_scale=4.0, dropout=0.0).eval()
