"""Weights from elsewhere are looked at before memory is taken for them: a file must hold what it says that it holds.

What a separator's configuration or a tensor's shape asks for is bounded by the size of the file that says so.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

MOST_LAYERS, MOST_SOURCES = 64, 64
GROWTH = {".npz": 20}
"""How many times its size a file of weights may hold by its suffix; others are not compressed."""
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
DAMAGED = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError),
    *(RuntimeError, ArithmeticError, OSError, MemoryError),
)
"""What building a separator from a damaged file raises."""


def check_archive(file: Path) -> None:
    """Raises: ValueError if ``file`` is a ZIP file, as checkpoints are, whose members would unpack to far more."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        declared = sum(info.file_size for info in archive.infolist())
    if declared > GROWTH.get(file.suffix, 1) * file.stat().st_size:
        raise ValueError(f"{file.stat().st_size} bytes that declare {declared}")


def unwrapped(names: Iterable[object], anchor: str) -> dict[str, str]:
    """The weights of a model by name, with their names in a file: those of wrappers are left out.

    torch.compile, DDP, FSDP and SWA put words of `WRAPPERS` before or into a name, tasks of Lightning and others some
    attribute's. ``anchor`` is a weight that the model has; without it in the file there are none.

    Raises: ValueError if there are several models.
    """
    short = {".".join(w for w in name.split(".") if w not in WRAPPERS): name for name in names if isinstance(name, str)}
    found = {name.removesuffix(anchor) for name in short if name.endswith(anchor)}
    if len(found) > 1:
        raise ValueError(f"{len(found)} models in it ({', '.join(sorted(found))}): save the weights of one alone")
    return {name.removeprefix(p): full for p in found for name, full in short.items() if name.startswith(p)}


def check_tensors(weights: object, file: Path) -> dict[str, Tensor]:
    """``weights`` if they are dense floating-point tensors by name that fit into ``file``. Raises: ValueError."""
    if not isinstance(weights, Mapping):
        raise ValueError(f"a {type(weights).__name__} instead of weights by name")
    total = 0
    for name, value in weights.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ValueError(f"{name!r:.100} is no tensor")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            raise ValueError(f"{name!r:.100} is no plain tensor")
        total += value.numel() * value.element_size()
    if total > GROWTH.get(file.suffix, 1) * file.stat().st_size:  # views may repeat what little is stored
        raise ValueError(f"{file.stat().st_size} bytes that stand for {total}")
    return dict(weights)


def check_configuration(config: Mapping, tensors: int) -> None:
    """Raises: ValueError for a configuration of `lib.model.Separator` that no file of so many ``tensors`` has."""
    size = config["size"]
    whole = {key: size[key] for key in ("blocks", "features", "hidden", "heads", "groups")}
    whole |= {key: config[key] for key in ("sources", "rate", "n_fft", "hop")}
    whole |= {} if config["stems"] is None else {"stems": config["stems"]}
    for key, value in whole.items():
        if type(value) is not int or not 1 <= value <= 1_000_000:
            raise ValueError(f"{key} is {value!r:.60}")
    if not (whole["rate"] >= 1000 and 16 <= whole["n_fft"] <= 1 << 17 and 3 * whole["hop"] <= whole["n_fft"]):
        raise ValueError(f"rate {whole['rate']}, n_fft {whole['n_fft']}, hop {whole['hop']} do not go together")
    if whole["blocks"] > min(tensors, MOST_LAYERS) or max(whole["sources"], whole.get("stems", 1)) > MOST_SOURCES:
        raise ValueError(f"{whole['blocks']} blocks, {whole['sources']} sources")
    if whole["features"] % whole["heads"] or whole["features"] % whole["groups"]:
        raise ValueError(
            f"{whole['features']} features are no multiple of {whole['heads']} heads, or of the norm groups"
        )
    for key, value in (("band_scale", config["band_scale"]), ("learning_rate", size["learning_rate"])):
        if type(value) not in (int, float) or not 0 < value < 1000:
            raise ValueError(f"{key} is {value!r:.60}")
    if not 0 <= config["dropout"] < 1:
        raise ValueError(f"dropout is {config['dropout']!r:.60}")


def check_shapes(make: Callable[[], nn.Module], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises: ValueError if the module that ``make`` makes has other weights than those of ``shapes``.

    It is made without memory for its weights.
    """
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    if missing := sorted(wanted.keys() - shapes.keys()):
        raise ValueError(f"{missing[0]} is missing, and {len(missing) - 1} more")
    if strange := sorted(shapes.keys() - wanted.keys()):
        raise ValueError(f"{strange[0]:.200} is no weight of this model, and {len(strange) - 1} more")
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise ValueError(f"{name} has shape {tuple(shapes[name])}, the model's has {shape}")


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises: ValueError if a weight is NaN or infinite."""
    for name, value in weights.items():
        if not math.isfinite(value.float().sum()) and not torch.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinite weights")
