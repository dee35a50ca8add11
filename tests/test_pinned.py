"""Numbers of short trainings, pinned: what moves them renames every run.

Both objectives train the smallest model for a few steps on noise. Learning rate, weight decay and
clipping are far stronger than in any study, so that each shows in few steps.

``python -m tests.test_pinned`` writes ``golden/training.json`` anew.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from lib.arms import Finetuning, Pretraining
from lib.model import checkpoints
from lib.store.tables import read_table
from lib.study import Study
from tests import toys

GOLDEN = toys.GOLDEN / "training.json"
SCHEDULE = {
    **{"steps": 6, "batch": 2, "crop_seconds": 1.0, "learning_rate": 0.01, "warmup_steps": 2, "decay_start": 3},
    **{"decay_every": 1, "decay_factor": 0.5, "weight_decay": 3.0, "clip_norm": 0.05, "validate_every": 1},
    **{"average_best": 2, "seeds": [3]},
}
REASON = (
    "a training gives other numbers than it did. If that is meant, bump the version: raise VERSION in the module that "
    "changed (lib.mixing, losses, training, transfer, model.separator) and run `python -m tests.test_pinned`"
)


def study(folder: Path) -> Study:
    """A study of noise with that schedule for both objectives."""
    fields = {f"{stage}.{key}": value for stage in ("pretrain", "finetune") for key, value in SCHEDULE.items()}
    return toys.study(folder, {**fields, "finetune.body_rate": 0.5, "finetune.patience": 9})


def numbers(study: Study) -> dict:
    """By training: losses and learning rates of every step, and three sums over the weights of each layer."""
    runs = {"MixIT": Pretraining(study, 3)}
    runs |= {arm: Finetuning(study, arm, 3, 2) for arm in ("scratch", "sliced", "group", "body")}
    return {name: {"steps": _steps(one.trained()), "weights": _weights(one.run)} for name, one in runs.items()}


def _steps(run) -> list[list[float]]:
    log = read_table(run.folder / "log.csv")
    return log[["loss", "validation_loss", "learning_rate", "gradient_norm"]].to_numpy(float).tolist()


def _weights(run) -> list[float]:
    """Sum, absolute sum and a sum with alternating signs, over all weights in their order."""
    flat = np.concatenate(
        [value.double().flatten().numpy() for value in checkpoints.load(run.folder).state_dict().values()]
    )
    return [float(flat.sum()), float(np.abs(flat).sum()), float(flat[::2].sum() - flat[1::2].sum())]


def test_short_trainings_give_the_numbers_that_they_gave(tmp_path):
    pinned, now = json.loads(GOLDEN.read_text("utf-8")), numbers(study(tmp_path))
    for name, expected in pinned.items():
        # float32 sums in another order, as on another processor, part by less; a changed rule by far more
        assert np.allclose(now[name]["steps"], expected["steps"], rtol=2e-4, atol=2e-4), f"{name}: {REASON}"
        assert now[name]["weights"] == pytest.approx(expected["weights"], rel=2e-4), f"{name}: {REASON}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(numbers(study(Path(folder))), indent=1) + "\n", encoding="utf-8")
    sys.exit(f"{GOLDEN} is written")
