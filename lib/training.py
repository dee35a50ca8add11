"""One `fit` for MixIT pre-training and for supervised training, on Lightning Fabric.

Every step is a function of (weights, optimiser state, seed, step): the data set draws example i from (seed, i), dropout
is seeded from (seed, step) and the learning rate is a formula of the step. A run that was stopped and started again
therefore ends with the same weights, bit for bit on a CPU, as one that was not.

``python -m lib.training --profile PROFILE --stage STAGE`` trains one run of a study (see `lib.jobs`), also on many
processes under torchrun or srun. A step then takes the same examples, each process its share of them, and the first
process alone writes.
"""

from __future__ import annotations

import contextlib
import csv
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from lib import UserError, memory, stopping
from lib.compute import gathered, on_gpu, share_weights, shared, start_fabric
from lib.mixing import loader
from lib.model import Separator
from lib.profile import Compute, Optimisation
from lib.progress import bar
from lib.provenance import cpu
from lib.runs import Run, atomic, file_digest, held

PATIENCE = 10
"""Steps in a row without a finite loss and gradient after which a run is given up."""

RANK_STRIDE = 1 << 24
"""Distance between the seeds of dropout on two processes: more than a run has steps."""

LOG_FIELDS = ("step", "loss", "validation_loss", "learning_rate", "gradient_norm", "skipped", "seconds")


@dataclass(frozen=True)
class Task:
    """What is trained: the separator, its examples, the loss of a batch [B], and the validation loss in dB.

    Parameters whose names ``slower`` picks learn at ``slower_rate`` times the learning rate.
    """

    separator: Separator
    dataset: Dataset
    loss: Callable[[Separator, Tensor], Tensor]
    validate: Callable[[Separator], float]
    slower: Callable[[str], bool] = lambda name: False
    slower_rate: float = 1.0

    def parameters(self) -> list[dict]:
        """The optimiser's parameter groups, each with its ``scale`` of the learning rate."""
        named = list(self.separator.named_parameters())
        groups = [
            {"params": [value for name, value in named if self.slower(name) == slow], "scale": scale}
            for slow, scale in ((False, 1.0), (True, self.slower_rate))
        ]
        return [group for group in groups if group["params"]]


def learning_rate(stage: Optimisation, base: float, step: int) -> float:
    """Linear warm-up, then ``decay_factor`` every ``decay_every`` steps from ``decay_start`` on; steps count from 0."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    decays = max(0, step - stage.decay_start) // stage.decay_every
    return base * warm * stage.decay_factor**decays


def fit(task: Task, stage: Optimisation, run: Run, seed: int, compute: Compute, workers: int, label: str) -> Separator:
    """Train to the end of ``stage``, going on from the run's last checkpoint; return the averaged best separator.

    The run folder receives ``log.csv``, ``last.ckpt``, the ``stage.average_best`` best checkpoints by validation loss,
    and at the end their average as ``model.safetensors``, with ``done.json``. A finished run is loaded, not repeated,
    as long as its weights are there; where another process is at it, its end is waited for.

    Raises: UserError after `PATIENCE` steps in a row without a finite loss and gradient.
    """
    fabric = start_fabric(compute)
    with held(run.folder / "lock") if fabric.is_global_zero else contextlib.nullcontext():
        if shared(run.finished and run.weights.exists()):
            return Separator.from_pretrained(run.folder)
        if fabric.is_global_zero:
            run.reopen()
        with stopping.deferred():
            return _fit(fabric, task, stage, run, seed, compute, workers, label)


def share_of_batch(stage: Optimisation, processes: int) -> int:
    """Examples of a step that each process takes. Raises: UserError if they cannot be shared equally."""
    if stage.batch % processes:
        raise UserError(
            f"a batch of {stage.batch} cannot be shared by {processes} processes: start a number that divides it"
        )
    return stage.batch // processes


def _fit(fabric, task: Task, stage: Optimisation, run: Run, seed: int, compute: Compute, workers: int, label: str):
    first, batch = fabric.is_global_zero, share_of_batch(stage, fabric.world_size)
    base_rate = stage.learning_rate or task.separator.size.learning_rate
    optimiser = torch.optim.AdamW(task.parameters(), lr=base_rate, weight_decay=stage.weight_decay, fused=True)
    task.separator.masker.recompute = compute.recompute
    if compute.compile and on_gpu(compute):
        task.separator.masker.compile()
    model, optimiser = fabric.setup(task.separator, optimiser)
    state = _resume(run, task.separator, optimiser, fabric.device)
    if len(set(gathered(state["step"]))) > 1:
        raise UserError(f"{run.folder}: not the same on all nodes; the results folder must lie on a disk they share")
    log = Log(run.folder / "log.csv", state["step"]) if first else None
    batches = loader(task.dataset, batch, state["step"], stage.steps, workers, fabric.global_rank, fabric.world_size)
    progress = bar(label, stage.steps, state["step"]) if first else lambda *_, **__: None
    began, before = time.monotonic(), state["seconds"]
    while state["step"] < (stage := _as_it_goes(stage, state)).steps:
        step, asked = state["step"], time.monotonic()
        part = next(batches)
        state["waited"] += time.monotonic() - asked
        rate = learning_rate(stage, base_rate, step)
        dropout_seed = seed * 1_000_003 + step + fabric.global_rank * RANK_STRIDE
        loss, norm, stop = _step_that_fits(fabric, model, optimiser, task, stage, part, rate, dropout_seed)
        finite = math.isfinite(loss) and math.isfinite(norm)
        state["bad_in_a_row"] = 0 if finite else state["bad_in_a_row"] + 1
        state["skipped"] += not finite
        if state["bad_in_a_row"] >= PATIENCE:
            raise UserError(
                f"{run.folder}: loss or gradient was not finite for {PATIENCE} steps in a row up to step {step + 1}; "
                "lower the learning rate or look at the corpus, then start again"
            )
        done = step + 1
        state["step"], state["seconds"] = done, before + time.monotonic() - began
        validation = None
        if done % stage.validate_every == 0 or done == stage.steps:
            validation = shared(_validate(task, model))
            _keep_best(run, task.separator, state["best"], validation, done, stage.average_best, first)
            state["stalled_at"] = state["stalled_at"] or _stalled_at(stage, state)
        if first:
            log.write(done, loss, validation, rate, norm, state["skipped"], state["seconds"])
            if done % stage.checkpoint_every == 0 or validation is not None or stop:
                _checkpoint(run, task.separator, optimiser, state)
        progress(done, loss=loss, validation=validation)
        if stop:
            shared(None)  # no process ends before the first has written
            raise stopping.Stopped(
                f"{run.folder}: stopped by {stop} after step {done} of {stage.steps}, a checkpoint is written; "
                "the same call goes on from there"
            )
    if first:
        log.close()
    return _finish(fabric, run, task.separator, stage, state)


def _stalled_at(stage: Optimisation, state: dict) -> int:
    """The present step, if before the decay ``patience`` validations in a row brought no new lowest loss, else 0."""
    if not stage.patience or not state["best"] or state["step"] >= stage.decay_start:
        return 0
    since = state["step"] - state["best"][0][1]
    return state["step"] if since >= stage.patience * stage.validate_every else 0


def _as_it_goes(stage: Optimisation, state: dict) -> Optimisation:
    return stage.decaying_from(state["stalled_at"]) if state["stalled_at"] else stage


def _step_that_fits(fabric, model, optimiser, task: Task, stage: Optimisation, batch: Tensor, rate: float, seed: int):
    """`train_step`. Raises: UserError that names the batch that would fit where memory of a GPU runs out."""
    with contextlib.suppress(torch.OutOfMemoryError):
        return train_step(fabric, model, optimiser, task, stage, batch, rate, seed)
    raise memory.exhausted(fabric, task, optimiser, stage, batch)  # out here, what the step held is free again


def train_step(fabric, model, optimiser, task: Task, stage: Optimisation, batch: Tensor, rate: float, seed: int):
    """One step over this process's share of a batch: (loss, gradient norm, signal to stop or ""), the same on all.

    The share is taken in so many parts that one holds ``1 / stage.accumulate`` of the whole batch, whatever the number
    of processes. If loss or gradient is not finite, nothing is updated.
    """
    model.train()
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    total, processes = 0.0, fabric.world_size
    parts = fabric.to_device(batch).chunk(math.ceil(stage.accumulate / processes))
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for number, part in enumerate(parts, 1):
            with fabric.no_backward_sync(model, enabled=processes > 1 and number < len(parts)):
                loss = task.loss(model, part).mean() * len(part) / len(batch)
                fabric.backward(loss)
            total += loss.item()
    stop = stopping.wanted()
    if processes > 1:
        of_all = torch.tensor([total, bool(stop) * processes], dtype=torch.float64, device=fabric.device)
        total, wanted = fabric.all_reduce(of_all, reduce_op="mean").tolist()
        stop = (stop or "a signal") if wanted else ""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), stage.clip_norm).item()
    if math.isfinite(total) and math.isfinite(norm):
        optimiser.step()
    optimiser.zero_grad()
    return total, norm, stop


def _validate(task: Task, model) -> float:
    model.eval()
    with torch.inference_mode():
        return task.validate(model)


def _keep_best(run: Run, separator: Separator, best: list, validation: float, step: int, count: int, write: bool):
    """Keep the weights of the ``count`` lowest validation losses; ``best`` lists [loss, step], lowest first."""
    if not math.isfinite(validation):
        return
    best.append([validation, step])
    best.sort()
    if write and [validation, step] in best[:count]:
        separator.save(run.folder / f"best-{step:07d}.safetensors")
    del best[count:]


def _checkpoint(run: Run, separator: Separator, optimiser, state: dict) -> None:
    content = {"weights": separator.state_dict(), "optimiser": optimiser.state_dict(), "state": state}
    with atomic(run.folder / "last.ckpt") as temporary:
        torch.save(content, temporary)
    kept = {f"best-{step:07d}.safetensors" for _, step in state["best"]}
    for file in run.folder.glob("best-*.safetensors"):
        if file.name not in kept:
            file.unlink()


def _resume(run: Run, separator: Separator, optimiser, device: torch.device) -> dict:
    """Load ``last.ckpt`` into separator and optimiser; without one, the state of a run's start."""
    file = run.folder / "last.ckpt"
    start = {"step": 0, "seconds": 0.0, "waited": 0.0, "skipped": 0, "bad_in_a_row": 0, "stalled_at": 0, "best": []}
    if not file.exists():
        return start
    try:
        content = torch.load(file, map_location=device, weights_only=True)
        state = content["state"]
        if any(type(state[key]) is not type(value) for key, value in start.items()):
            raise TypeError
        for _, step in state["best"]:
            (run.folder / f"best-{step:07d}.safetensors").stat()
        separator.load_state_dict(content["weights"])
        optimiser.load_state_dict(content["optimiser"])
        return state
    except Exception as error:  # damaged archives raise anything from OSError to UnpicklingError
        raise UserError(
            f"{file}: damaged checkpoint ({type(error).__name__}); delete it to start this run again"
        ) from error


def _finish(fabric, run: Run, separator: Separator, stage: Optimisation, state: dict) -> Separator:
    """Average the best checkpoints, on all processes; the first writes them and marks the run finished."""
    if not state["best"]:
        raise UserError(f"{run.folder}: no finite validation loss in {stage.steps} steps; lower the learning rate")
    if fabric.is_global_zero:
        _write_average(run, separator, stage, state, fabric.world_size)
    share_weights(separator)
    return separator.eval()


def _write_average(run: Run, separator: Separator, stage: Optimisation, state: dict, processes: int) -> None:
    files = [run.folder / f"best-{step:07d}.safetensors" for _, step in state["best"]]
    separator.load_state_dict(average(files))
    separator.save(run.weights)
    run.finish(
        steps=stage.steps,
        seconds=state["seconds"],
        waited_seconds=state["waited"],
        skipped_steps=state["skipped"],
        best_validation_loss=state["best"][0][0],
        averaged_steps=[step for _, step in state["best"]],
        audio_seconds=stage.steps * stage.batch * stage.crop_seconds,
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        weights=file_digest(run.weights),
        cpu=cpu(),
        processes=processes,
    )
    for file in (*files, run.folder / "last.ckpt"):
        file.unlink()


def imported(empty: Separator, separator: Separator, run: Run) -> None:
    """Finish ``run`` without a step: the weights of ``separator`` in ``empty``, which has the profile's dropout."""
    empty.load_state_dict(separator.state_dict())
    run.begin()
    Log(run.folder / "log.csv", 0).close()
    empty.save(run.weights)
    none = ("steps", "seconds", "waited_seconds", "skipped_steps", "audio_seconds", "peak_memory_mib")
    run.finish(
        **dict.fromkeys(none, 0),
        best_validation_loss=None,
        averaged_steps=[],
        weights=file_digest(run.weights),
        cpu=cpu(),
    )


def average(files: list[Path]) -> dict[str, Tensor]:
    """Mean of the weights in several safetensors files."""
    states = [load_file(file) for file in files]
    return {name: torch.stack([s[name].double() for s in states]).mean(0).float() for name in states[0]}


class Log:
    """``log.csv`` of a run, one row a step; rows after the checkpoint that a run goes on from are dropped."""

    def __init__(self, path: Path, step: int):
        rows = []
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                rows = [
                    row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= step
                ]
        with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        self.file = open(path, "a", newline="", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by fit)
        self.writer = csv.writer(self.file)

    def write(self, step, loss, validation, rate, norm, skipped, seconds) -> None:
        shown = "" if validation is None else f"{validation:.6f}"
        self.writer.writerow([step, f"{loss:.6f}", shown, f"{rate:.3e}", f"{norm:.4f}", skipped, f"{seconds:.2f}"])

    def close(self) -> None:
        self.file.close()


if __name__ == "__main__":
    from lib.jobs import main

    sys.exit(main(sys.argv[1:]))
