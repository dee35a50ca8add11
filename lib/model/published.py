"""The published checkpoints (hub repository ``kohei0209/mixit_mss``): their names and shapes in this project's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib import UserError
from lib.model import checks
from lib.model.locoformer import (
    MASK_PARTS,
    PUBLISHED_FFT,
    PUBLISHED_RATE,
    SIZES,
    BandSplitTFLocoformer,
    Size,
    band_widths,
)
from lib.model.separator import Separator

PUBLISHED_WEIGHT, OWN_WEIGHT = "blocks.0.freq_path.ffn.0.deconv1d.weight", "masker.blocks.0.frequency.norms.0.gamma"
"""A weight that tells a checkpoint in the published names, and one of this project's."""


def load_published(path: Path | str, heads: int | None = None, groups: int | None = None) -> Separator:
    """Load a checkpoint in the published names (``model.pth`` of ``kohei0209/mixit_mss``), or the same in an ``.npz``.

    The size is read from the shapes. Shapes do not tell heads and norm groups: they are those of the published size
    with as many features, and 2 and 2 for a feature size that no published model has, unless given.

    Raises: UserError if the file is missing, damaged, or misses a weight.
    """
    path = Path(path)
    weights = _read_published(path)
    try:
        if not weights:
            raise ValueError(f"no {PUBLISHED_WEIGHT} in it, nor under any prefix")
        blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        hidden, features, _ = weights[PUBLISHED_WEIGHT].shape[:3]
        last = weights["band_split_module.bandwise_decoding_module.0.4.weight"].shape[0]
        published = next((s for s in SIZES.values() if s.features == features and s.hidden == hidden), None)
        heads = heads or (published.heads if published else 2)
        groups = groups or (published.groups if published else 2)
        size = Size(blocks, features, hidden, heads, groups, published.learning_rate if published else 1e-3)
        front = {"rate": PUBLISHED_RATE, "n_fft": PUBLISHED_FFT, "hop": 512, "band_scale": 1.0, "dropout": 0.1}
        sources = last // (2 * MASK_PARTS * band_widths()[0])
        config = {"size": vars(size), "sources": sources, "stems": None, **front}
        checks.check_configuration(config, len(weights))
        with torch.device("meta"):
            state = translate_published(weights, Separator.from_config(config).masker)
        checks.check_shapes(
            lambda: Separator.from_config(config).masker, {name: value.shape for name, value in state.items()}
        )
        checks.check_finite(state)
        separator = Separator.from_config(config)
        separator.masker.load_state_dict(state)
    except checks.DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a published checkpoint ({reason}); train, save or download it again") from error
    return separator.eval()


def _read_published(path: Path) -> dict[str, Tensor]:
    """Weights in float32 by published name, without what wrappers put before it; none if there are no such names."""
    try:
        checks.check_archive(path)
        content = _content(path)
        if not isinstance(content, Mapping):
            raise ValueError(f"a {type(content).__name__} instead of weights by name")
        # Lightning and others keep the weights beside what else a training needs
        parts = [part for part in (content.get("state_dict"), content, *content.values()) if isinstance(part, Mapping)]
        if not isinstance(content.get("state_dict", {}), Mapping):
            raise ValueError("a state_dict without names")
        if any(checks.unwrapped(part, OWN_WEIGHT) for part in parts):
            raise ValueError("weights of this project without their configuration: give the run's folder")
        named = [(part, names) for part in parts if (names := checks.unwrapped(part, PUBLISHED_WEIGHT))]
        if not named:
            checks.check_tensors({k: v for k, v in parts[0].items() if str(k).startswith("model.")}, path)
            return {}
        part, names = named[0]
        weights = checks.check_tensors({name: part[full] for name, full in names.items()}, path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint; check the path") from error
    except Exception as error:  # damaged archives raise anything from OSError to UnpicklingError
        if others := _objects(path, error):
            raise UserError(
                f"{path}: cannot be read as a checkpoint: objects beside tensors are in it ({others}), which are not "
                "opened, since that can run anything. If you trust its origin, save the weights alone: "
                "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW), or of a whole model "
                "torch.save(model.state_dict(), NEW)"
            ) from error
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason}); save or download it again") from error
    return {name: value.float() for name, value in weights.items()}


def _content(path: Path) -> object:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual pickles: what is in them decides
        return torch.load(path, map_location="cpu", weights_only=True)


def _objects(path: Path, error: Exception) -> str:
    """The types of what else a file holds, if that is why it was not opened."""
    if type(error).__name__ != "UnpicklingError" or not (said := re.search(r"GLOBAL ([\w.]+)", str(error))):
        return ""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)  # by reading, not by unpickling
    except Exception:  # of old formats
        found = []
    return ", ".join(sorted(found)[:5]) or said[1]


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
