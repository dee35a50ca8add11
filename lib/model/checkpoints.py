"""Weights on disk: save, load, the best of a run and their average, and the state that a run resumes from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from lib import ROOT, UserError
from lib.model import checks
from lib.model.published import OWN_WEIGHT, PUBLISHED_WEIGHT, load_published
from lib.model.separator import Separator
from lib.store.files import atomic
from lib.store.runs import Run

Best = list[list]
"""[validation loss, step] of the checkpoints that are kept, lowest first."""
PRETRAINED, FINETUNED = (ROOT / "results" / "models" / f"{stage}.safetensors" for stage in ("pretrained", "finetuned"))
"""The models that come with this project (`lib.report.card`)."""
START = {"step": 0, "seconds": 0.0, "waited": 0.0, "skipped": 0, "bad_in_a_row": 0, "stalled_at": 0, "best": []}
"""The state of a run before its first step."""


def save(separator: Separator, path: Path | str, dtype: torch.dtype = torch.float32) -> None:
    """Write weights, as ``dtype``, and configuration as one safetensors file, atomically."""
    weights = {name: value.detach().contiguous().cpu().to(dtype) for name, value in separator.state_dict().items()}
    with atomic(path) as temporary:
        save_file(weights, temporary, metadata={"separator": json.dumps(separator.config())})


def load(path: Path | str) -> Separator:
    """Load a run folder, a safetensors file of this project or a checkpoint in the published names, to evaluate.

    Names that torch.compile, DDP, SWA or a Lightning task has put before those of the weights are understood.

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
            names = list(opened.keys())
            if "separator" not in (opened.metadata() or {}) and checks.unwrapped(names, PUBLISHED_WEIGHT):
                return load_published(file)
            config = json.loads((opened.metadata() or {})["separator"])
            names = checks.unwrapped(names, OWN_WEIGHT) or dict(zip(names, names, strict=True))
            shapes = {name: opened.get_slice(full).get_shape() for name, full in names.items()}
        checks.check_configuration(config, len(shapes))
        checks.check_shapes(lambda: Separator.from_config(config), shapes)
        loaded = load_file(file)
        weights = {name: loaded[full] for name, full in names.items()}
        checks.check_finite(weights)
        separator = Separator.from_config(config)
        separator.load_state_dict(weights)
    except (SafetensorError, *checks.DAMAGED) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file}: not a checkpoint of this project ({reason}); train or copy it again") from error
    return separator.eval()


def best_file(run: Run, step: int) -> Path:
    """Where a run keeps the weights of one of its best steps."""
    return run.folder / f"best-{step:07d}.safetensors"


def keep_best(run: Run, separator: Separator, best: Best, validation: float, step: int, count: int, write: bool):
    """Keep the weights of the ``count`` lowest validation losses in the run's folder, and list them in ``best``."""
    if not math.isfinite(validation):
        return
    best.append([validation, step])
    best.sort()
    if write and [validation, step] in best[:count]:
        save(separator, best_file(run, step))
    del best[count:]


def average(files: list[Path]) -> dict[str, Tensor]:
    """Mean of the weights in several safetensors files."""
    states = [load_file(file) for file in files]
    return {name: torch.stack([s[name].double() for s in states]).mean(0).float() for name in states[0]}


def write_state(run: Run, separator: Separator, optimiser: torch.optim.Optimizer, state: dict) -> None:
    """Write ``last.ckpt``, which `resume` reads, and remove weights that are no longer among the best."""
    content = {"weights": separator.state_dict(), "optimiser": optimiser.state_dict(), "state": state}
    with atomic(run.folder / "last.ckpt") as temporary:
        torch.save(content, temporary)
    best = {best_file(run, step) for _, step in state["best"]}
    for file in run.folder.glob("best-*.safetensors"):
        if file not in best:
            file.unlink()


def resume(run: Run, separator: Separator, optimiser: torch.optim.Optimizer, device: torch.device) -> dict:
    """Load ``last.ckpt`` into separator and optimiser, and return its state; without one, that of a run's start.

    Raises: UserError if the file is damaged.
    """
    file = run.folder / "last.ckpt"
    if not file.exists():
        return {**START, "best": []}
    try:
        content = torch.load(file, map_location=device, weights_only=True)
        state = content["state"]
        if any(type(state[key]) is not type(value) for key, value in START.items()):
            raise TypeError
        for _, step in state["best"]:
            best_file(run, step).stat()
        separator.load_state_dict(content["weights"])
        optimiser.load_state_dict(content["optimiser"])
        return state
    except Exception as error:  # damaged archives raise anything from OSError to UnpicklingError
        raise UserError(
            f"{file}: damaged checkpoint ({type(error).__name__}); delete it to start this run again"
        ) from error
