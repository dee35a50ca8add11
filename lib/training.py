"""The training step, with both of the study's objectives in view, and `fit`, which repeats it (Lightning Fabric).

Every step is a function of (weights, optimiser state, seed, step): the data set draws example i from (seed, i), dropout
is seeded from (seed, step) and the learning rate is a formula of the step. A run that was stopped and resumed therefore
ends with the same weights, bit for bit on a CPU, as one that was not. On many processes (torchrun, srun) a step takes
the same examples, each process its share of them, and the first process alone writes.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lib import UserError, one_line
from lib.losses import mixit_loss, stem_snr_loss
from lib.machine import memory, signals
from lib.machine.devices import cpu, forget_peak, gpu, on_gpu, resolve_precision
from lib.machine.distributed import all_gather, broadcast, share_weights, start_fabric, world_size
from lib.machine.progress import bar
from lib.mixing import loader
from lib.model import checkpoints
from lib.model.locoformer import SIZES
from lib.model.separator import Separator
from lib.profile.fields import Compute, Optimisation
from lib.store.files import file_lock
from lib.store.fingerprints import file_digest
from lib.store.runs import Log, Run

VERSION = 1
"""Raise it when the same schedule, examples and seed train to other weights: runs are renamed."""
PATIENCE = 10
"""Steps in a row without a finite loss and gradient after which a run is given up."""
RANK_STRIDE = 1 << 24
"""Distance between the seeds of dropout on two processes: more than a run has steps."""


# The two objectives: loss [B] in dB of a separator on a batch


def mixit(separator: Separator, mixtures: Tensor, assignment: str = "exact") -> Tensor:
    """Unsupervised: mixtures [B, 2, C, T], their sum separated -> MixIT's loss [B] (arXiv 2006.12701, equation 3)."""
    estimates, remix = separator(mixtures.sum(1), remixable=True)
    return mixit_loss(estimates, mixtures, assignment, remix=remix)[0]


def supervised(separator: Separator, stems: Tensor) -> Tensor:
    """Supervised: stems [B, 4, C, T], whose sum is the mixture -> the stem loss [B]."""
    return stem_snr_loss(separator(stems.sum(1)), stems)


@dataclass(frozen=True)
class Task:
    """What is trained: the separator, its examples, the loss [B] of a batch, and the validation loss in dB.

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


def train_step(fabric, model, optimiser, task: Task, stage: Optimisation, batch: Tensor, rate: float, seed: int):
    """One step over this process's share of a batch: (loss, gradient norm, signal to stop or ""), the same on all.

    The share is taken in so many parts that one holds ``1 / stage.accumulate`` of the whole batch, whatever the number
    of processes. If loss or gradient is not finite, nothing is updated.
    """
    model.train()
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]
    processes, total = fabric.world_size, torch.zeros((), dtype=torch.float64, device=fabric.device)
    parts = fabric.to_device(batch).chunk(math.ceil(stage.accumulate / processes))
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for number, part in enumerate(parts, 1):
            with fabric.no_backward_sync(model, enabled=processes > 1 and number < len(parts)):
                loss = task.loss(model, part).mean() * len(part) / len(batch)
                fabric.backward(loss)
            total += loss.detach()
    stop = signals.stop_requested()
    of_all = torch.stack([total, total.new_tensor(bool(stop) * processes)])
    if processes > 1:
        of_all = fabric.all_reduce(of_all, reduce_op="mean")
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), stage.clip_norm)
    total, requested, norm = torch.cat([of_all, norm[None].double()]).tolist()  # the one wait for a GPU
    stop = (stop or "a signal") if requested else ""
    if math.isfinite(total) and math.isfinite(norm):
        optimiser.step()
    optimiser.zero_grad()
    return total, norm, stop


def fit(task: Task, stage: Optimisation, run: Run, seed: int, compute: Compute, workers: int, label: str) -> Separator:
    """Train to the end of ``stage``, resuming from the run's last checkpoint; return the averaged best separator.

    The run folder receives ``log.csv``, ``last.ckpt``, the ``stage.average_best`` best checkpoints by validation loss,
    and at the end their average as ``model.safetensors``, with ``done.json``. A finished run is loaded, not repeated,
    as long as its weights are there; if another process is training it, its end is waited for.

    Raises: UserError after `PATIENCE` steps in a row without a finite loss and gradient.
    """
    fabric = start_fabric(compute)
    with file_lock(run.folder / "lock") if fabric.is_global_zero else contextlib.nullcontext():
        if broadcast(run.finished and run.weights.exists()):
            return checkpoints.load(run.folder)
        if fabric.is_global_zero:
            run.reopen()
        with signals.deferred():
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
    forget_peak(fabric.device)
    base_rate = stage.learning_rate or task.separator.size.learning_rate
    optimiser = torch.optim.AdamW(task.parameters(), lr=base_rate, weight_decay=stage.weight_decay, fused=True)
    task.separator.masker.recompute = compute.recompute
    stage = _in_parts_that_fit(fabric, task.separator, stage, compute)
    if compute.compile and on_gpu(compute):
        compile_if_possible(task.separator.masker)
    model, optimiser = fabric.setup(task.separator, optimiser)
    state = checkpoints.resume(run, task.separator, optimiser, fabric.device)
    if len(set(all_gather(state["step"]))) > 1:
        raise UserError(f"{run.folder}: not the same on all nodes; the results folder must lie on a disk they share")
    log = Log(run.folder / "log.csv", state["step"]) if first else None
    mine, pinned = (fabric.global_rank, fabric.world_size), fabric.device.type == "cuda"
    batches = loader(task.dataset, batch, range(state["step"], stage.steps), workers, *mine, pinned)
    progress = bar(label, stage.steps, state["step"]) if first else lambda *_, **__: None
    began, before = time.monotonic(), state["seconds"]
    while state["step"] < (stage := _as_it_goes(stage, state)).steps:
        step, asked = state["step"], time.monotonic()
        part = next(batches)
        state["waited"] += time.monotonic() - asked
        rate = learning_rate(stage, base_rate, step)
        dropout_seed = seed * 1_000_003 + step + fabric.global_rank * RANK_STRIDE
        (loss, norm, stop), stage = _step_that_fits(fabric, model, optimiser, task, stage, part, rate, dropout_seed)
        _count_skipped(run, state, math.isfinite(loss) and math.isfinite(norm))
        done = step + 1
        state["step"], state["seconds"] = done, before + time.monotonic() - began
        validation = None
        if done % stage.validate_every == 0 or done == stage.steps:
            validation = broadcast(_validate(task, model))
            checkpoints.keep_best(run, task.separator, state["best"], validation, done, stage.average_best, first)
            state["stalled_at"] = state["stalled_at"] or _stalled_at(stage, state)
        if first:
            log.write(done, loss, validation, rate, norm, state["skipped"], state["seconds"])
            if done % stage.checkpoint_every == 0 or validation is not None or stop:
                checkpoints.write_state(run, task.separator, optimiser, state)
        progress(done, loss=loss, validation=validation)
        if stop:
            broadcast(None)  # no process ends before the first has written
            raise signals.Stopped(
                f"{run.folder}: stopped by {stop} after step {done} of {stage.steps}, a checkpoint is written; "
                "the same call resumes from there"
            )
    if first:
        log.close()
    return _finish(fabric, run, task.separator, stage, state)


def compile_if_possible(masker: nn.Module) -> None:
    """Have torch compile the masker at its first use; where it cannot, say why and go on without."""
    plain, compiled = masker.forward, torch.compile(masker.forward)

    def forward(spectrum: Tensor) -> list[Tensor]:
        try:
            return compiled(spectrum)
        except torch._dynamo.exc.TorchDynamoException as error:
            print(f"compute.compile: {one_line(str(error))}: training is not compiled, and slower", file=sys.stderr)
            masker.forward = plain
            return plain(spectrum)

    masker.forward = forward


def _count_skipped(run: Run, state: dict, finite: bool) -> None:
    state["bad_in_a_row"] = 0 if finite else state["bad_in_a_row"] + 1
    state["skipped"] += not finite
    if state["bad_in_a_row"] >= PATIENCE:
        raise UserError(
            f"{run.folder}: loss or gradient was not finite for {PATIENCE} steps in a row up to step "
            f"{state['step'] + 1}; lower the learning rate or look at the corpus, then start again"
        )


def _stalled_at(stage: Optimisation, state: dict) -> int:
    """The present step, if before the decay ``patience`` validations in a row brought no new lowest loss, else 0."""
    if not stage.patience or not state["best"] or state["step"] >= stage.decay_start:
        return 0
    since = state["step"] - state["best"][0][1]
    return state["step"] if since >= stage.patience * stage.validate_every else 0


def _as_it_goes(stage: Optimisation, state: dict) -> Optimisation:
    return stage.decaying_from(state["stalled_at"]) if state["stalled_at"] else stage


def _in_parts_that_fit(fabric, separator: Separator, stage: Optimisation, compute: Compute) -> Optimisation:
    """The stage with as many parts a step, on all processes, as their GPUs' memory asks for where it is known."""
    size = next((name for name, size in SIZES.items() if size == separator.size), "")
    row = memory.counted(size, type(stage).__name__.lower(), separator.sources, compute.recompute)
    if fabric.device.type != "cuda" or row is None or resolve_precision(compute) != "bf16-mixed":
        return stage
    fits = memory.fitting(row, torch.cuda.mem_get_info(fabric.device)[0], stage.crop_seconds)
    share, processes = share_of_batch(stage, fabric.world_size), fabric.world_size
    return replace(stage, accumulate=max(all_gather(memory.parts(stage, share, processes, fits))))


def _step_that_fits(fabric, model, optimiser, task: Task, stage: Optimisation, batch: Tensor, rate: float, seed: int):
    """`train_step`, in smaller parts where the GPU's memory runs out, and the stage with their number.

    Raises: UserError if not one example fits, or if there are several processes.
    """
    while True:
        with contextlib.suppress(torch.OutOfMemoryError):
            return train_step(fabric, model, optimiser, task, stage, batch, rate, seed), stage
        # out here, what the step held is free again
        optimiser.zero_grad()
        stage = replace(stage, accumulate=memory.halved(stage, len(batch), fabric.world_size))


def _validate(task: Task, model) -> float:
    model.eval()
    with torch.inference_mode():
        return task.validate(model)


def _losses(loss: Callable, separator: Separator, batch: Tensor) -> Tensor:
    """``loss`` [B] of a batch, by halves where a GPU's memory is too small for it."""
    with contextlib.suppress(torch.OutOfMemoryError):
        return loss(separator, batch)
    if len(batch) == 1:
        raise UserError("GPU memory ran out in validation with one example: does another process use the GPU?")
    return torch.cat([_losses(loss, separator, half) for half in batch.chunk(2)])


def mean_loss(loss: Callable, separator: Separator, batches: Callable[[], Iterable[Tensor]]) -> float:
    """Mean of ``loss`` over the examples of all batches of all processes, each of which has its own."""
    device = separator.window.device
    losses = [_losses(loss, separator, batch.to(device)) for batch in batches()]
    if world_size() > 1:
        parts = all_gather([value for part in losses for value in part.tolist()])
        losses = [torch.tensor(list(itertools.chain(*parts)))]
    return torch.cat(losses).mean().item()


def _finish(fabric, run: Run, separator: Separator, stage: Optimisation, state: dict) -> Separator:
    """Average the best checkpoints, on all processes; the first writes them and marks the run finished."""
    if not state["best"]:
        raise UserError(f"{run.folder}: no finite validation loss in {stage.steps} steps; lower the learning rate")
    if fabric.is_global_zero:
        _write_average(run, separator, stage, state, fabric.world_size)
    share_weights(separator)
    return separator.eval()


def _write_average(run: Run, separator: Separator, stage: Optimisation, state: dict, processes: int) -> None:
    files = [checkpoints.best_file(run, step) for _, step in state["best"]]
    separator.load_state_dict(checkpoints.average(files))
    checkpoints.save(separator, run.weights)
    run.finish(
        steps=stage.steps,
        seconds=state["seconds"],
        waited_seconds=state["waited"],
        skipped_steps=state["skipped"],
        best_validation_loss=state["best"][0][0],
        averaged_steps=[step for _, step in state["best"]],
        audio_seconds=stage.steps * stage.batch * stage.crop_seconds,
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **gpu(separator.window.device, stage.accumulate),
        weights=file_digest(run.weights),
        cpu=cpu(),
        processes=processes,
        threads=1 if separator.window.is_cuda else torch.get_num_threads(),
    )
    for file in (*files, run.folder / "last.ckpt"):
        file.unlink()


def example_flops(make: Callable[[], Separator], loss: Callable, mixtures: int, samples: int) -> int:
    """Floating-point operations of a step for one example, forward and backward, counted without computing any.

    ``make`` gives the separator, ``loss`` takes it and a batch [1, ``mixtures``, 2, ``samples``], whole hops. Fourier
    transforms do not count. Blocks are alike: one is counted, beside the separator without any.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here, for it takes a moment, and counts are kept

    with torch.device("meta"):
        separator = make()
        masker, frames = separator.masker, samples // separator.hop
        blocks, masker.blocks = masker.blocks, nn.ModuleList()
        bands = sum(len(group.bands) for group in masker.groups)
        for group in masker.groups:
            group.masks_of_each = group.masks_of_all  # as many operations, in fewer calls
        inside = torch.zeros(1, frames, bands, separator.size.features, requires_grad=True)
        with FlopCounterMode(display=False) as around:
            loss(separator, torch.zeros(1, mixtures, 2, samples)).mean().backward()
        with FlopCounterMode(display=False) as within:
            blocks[0](inside).sum().backward()
    return around.get_total_flops() + len(blocks) * within.get_total_flops()
