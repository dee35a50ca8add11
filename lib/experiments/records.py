"""What runs leave behind: which stand behind a notebook, their learning curves, their cost."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib.arms import Finetuning, Pretraining
from lib.store.runs import Run
from lib.store.tables import read_table, whole
from lib.study import Study

Named = tuple[str, int | None, int | None, int | None, Run]
"""Method, seed, labelled songs, fold, run."""
KEYS = ["method", "seed", "labeled_songs", "fold"]


def named(training: Pretraining | Finetuning) -> Named:
    """A training as tables name it, trained where missing."""
    if isinstance(training, Pretraining):
        return "MixIT", training.seed, None, None, training.trained()
    return training.method, training.seed, training.songs, training.study.fold, training.trained()


def recorded(study: Study, notebook: str, runs: Iterable[Named]) -> list[Named]:
    """The runs that a notebook stands on, named in ``tables/runs.csv``: notebook, method to fold, run.

    ``weights`` is the SHA-256 of what each was trained to.
    """
    runs = list(runs)
    rows = [(notebook, *keys, run.name, run.facts()["weights"]) for *keys, run in runs]
    table = whole(pd.DataFrame(rows, columns=["notebook", *KEYS, "run", "weights"]))
    if (study.results / "tables" / "runs.csv").exists():
        others = study.read("runs")
        table = pd.concat([others[others["notebook"] != notebook], table])
    study.write("runs", table.drop_duplicates().sort_values("notebook", kind="stable"))
    return runs


def learning_curves(study: Study, runs: list[Named]) -> pd.DataFrame:
    """Loss and validation loss in dB of several runs: method, seed, labeled_songs, fold, step, metric, value.

    The loss at a step is the mean over the batches since the validation before; each batch's stands in the run's log.
    """
    frames = []
    for *keys, run in runs:
        log = read_table(run.folder / "log.csv").astype(float)  # a step that was skipped has the loss "nan"
        validated = log["step"].where(log["validation_loss"].notna()).bfill().rename("step")
        means = log.groupby(validated)[["loss", "validation_loss"]].mean().reset_index().astype({"step": int})
        long = means.melt("step", var_name="metric").dropna(subset="value")
        frames.append(whole(long.assign(**dict(zip(KEYS, keys, strict=True)))))
    return pd.concat(frames, ignore_index=True)[[*KEYS, "step", "metric", "value"]]


def cost(study: Study, trainings: Iterable[Pretraining | Finetuning]) -> pd.DataFrame:
    """What every run took, tidy (stage, method, seed, labeled_songs, fold, metric, value): ``tables/cost.csv``.

    ``core seconds`` are seconds times processes times threads; ``FLOPs`` are the floating-point operations of the steps
    that were really taken, without those of validation (whose time is in the seconds). What the whole pre-training took
    from which a run starts stands beside that ("FLOPs of its pre-training").
    """
    rows = []
    for training in trainings:
        *keys, run = named(training)
        facts, start = run.facts(), getattr(training, "pretraining", None)
        values = {
            "seconds": facts["seconds"],
            "seconds waiting for data": facts["waited_seconds"],
            "skipped steps": facts["skipped_steps"],
            "audio seconds per second": facts["audio_seconds"] / max(facts["seconds"], 1e-9),
            "peak memory in MiB": facts["peak_memory_mib"],
            **_spent(training),
            **(_on_gpu(training, facts) if "gpu" in facts else {}),
            **{f"{what} {OF_PRETRAINING}": value for what, value in (_spent(start) if start else {}).items()},
        }
        columns = {"stage": run.name.split("-")[0], **dict(zip(KEYS, keys, strict=True))}
        rows += [{**columns, "metric": metric, "value": value} for metric, value in values.items()]
    return study.write("cost", whole(pd.DataFrame(rows)))


def _on_gpu(training: Pretraining | Finetuning, facts: dict) -> dict[str, float]:
    """Of a GPU: its peak memory, and the rate of the training steps, to which validation adds time alone."""
    operations = facts["steps"] * training.step_flops
    return {
        "peak GPU memory in MiB": facts["peak_gpu_memory_mib"],
        "TFLOP/s of a GPU": operations / max(facts["seconds"], 1e-9) / facts["processes"] / 1e12,
    }


OF_PRETRAINING = "of its pre-training"
TOOK = ["steps", "core_seconds", "petaflop"]
"""What a model took, by the columns of `spent`."""


def _spent(training: Pretraining | Finetuning) -> dict[str, float]:
    facts = training.run.facts()
    threads = facts.get("threads", training.study.profile.compute.threads or np.nan)  # 0: torch's choice, not recorded
    return {
        "steps": facts["steps"],
        "core seconds": facts["seconds"] * facts.get("processes", 1) * threads,
        "FLOPs": facts["steps"] * training.step_flops,
    }


def spent(study: Study) -> pd.DataFrame:
    """What a model of each method and budget took in the mean over seeds and folds, read from ``tables/cost.csv``.

    By (method, labeled_songs): steps, the supervised ones; core_seconds and petaflop, those of the pre-training
    included, which petaflop_pretraining holds alone. No petaflop holds validation.
    """
    table = study.read("cost").dropna(subset="labeled_songs")
    means = table.groupby(["method", "labeled_songs", "metric"], sort=False)["value"].mean().unstack("metric")
    before = {
        what: means.get(f"{what} {OF_PRETRAINING}", means["steps"] * 0).fillna(0) for what in ("core seconds", "FLOPs")
    }
    return pd.DataFrame({
        "steps": means["steps"],
        "core_seconds": means["core seconds"] + before["core seconds"],
        "petaflop": (means["FLOPs"] + before["FLOPs"]) / 1e15,
        "petaflop_pretraining": before["FLOPs"] / 1e15,
    })  # fmt: skip
