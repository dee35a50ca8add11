"""Processes that train one model together: started by torchrun or by srun, never here, joined by Fabric."""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from lib import UserError
from lib.machine.devices import keep_freed_memory, on_gpu, resolve_precision
from lib.profile.fields import Compute

if TYPE_CHECKING:  # its import takes seconds, which only what trains should wait for
    from lightning_fabric import Fabric

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision at every start
STEP_TIMEOUT = datetime.timedelta(minutes=20)
"""How long a process waits for the others within a step before it gives up: one of them hangs."""
PREPARATION_TIMEOUT = datetime.timedelta(days=7)
"""How long processes wait while the first one looks into a corpus, or another job trains what all of them need."""


def device(compute: Compute) -> torch.device:
    """Where this process computes; a CPU alone needs no Fabric. Raises: as `start_fabric`."""
    if on_gpu(compute) or math.prod(world()) > 1:
        return start_fabric(compute).device
    _prepare(compute)
    return torch.device("cpu")


def start_fabric(compute: Compute) -> Fabric:
    """Fabric on the device of this process, with the profile's number of CPU threads and memory kept that was freed.

    Where torchrun or srun started several processes, they are joined (DistributedDataParallel) when this returns.

    Raises: UserError if the profile asks for a GPU and there is none, or if there are more processes than GPUs.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    from lib.machine.srun import SrunEnvironment

    _prepare(compute)
    accelerator, precision, (local, nodes) = "cuda" if on_gpu(compute) else "cpu", resolve_precision(compute), world()
    if on_gpu(compute) and precision == "bf16-mixed":
        torch.set_float32_matmul_precision("high")  # TF32 for what bf16 leaves in float32; full float32 stays full
    if local * nodes == 1:
        here = LightningEnvironment()  # no allocation of several tasks around this process is its business
        return Fabric(accelerator=accelerator, devices=1, precision=precision, plugins=here)
    there = TorchElasticEnvironment() if dist.is_torchelastic_launched() else SrunEnvironment()
    # the separator's only buffer is a constant; sent along at every forward pass, it would tie validations together
    strategy = DDPStrategy(
        parallel_devices=process_devices(accelerator, local),
        cluster_environment=there,
        timeout=STEP_TIMEOUT,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
    fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=nodes, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


def _prepare(compute: Compute) -> None:
    if not on_gpu(compute) and compute.accelerator in ("gpu", "cuda"):
        raise UserError(f"compute.accelerator={compute.accelerator}: no GPU that torch can use; set it to cpu or auto")
    keep_freed_memory()
    # some of cuDNN's kernels drop attention weights with a probability of 1/16 or 1/8, where 1/10 is asked for
    torch.backends.cuda.enable_cudnn_sdp(False)
    if compute.threads:
        torch.set_num_threads(compute.threads)


def process_devices(accelerator: str, local: int) -> list[torch.device]:
    """The device of each of a node's ``local`` processes: all the same where each is shown one GPU of its own.

    Raises: UserError if there are fewer GPUs than processes.
    """
    if accelerator == "cpu":
        return [torch.device("cpu")] * local
    seen = torch.cuda.device_count()
    if 1 < seen < local:
        raise UserError(f"{local} processes on a node with {seen} GPUs: start one process a GPU")
    if seen == 1 < local and not dist.is_torchelastic_launched():  # --gpus-per-task=1 shows each task its own
        return [torch.device("cuda", 0)] * local
    if seen < local:
        raise UserError(f"{local} processes on a node with {seen} GPU: start one process a GPU")
    return [torch.device("cuda", number) for number in range(local)]


def world() -> tuple[int, int]:
    """(processes a node, nodes) of the job that torchrun or srun started this process in; (1, 1) outside of one.

    Raises: UserError for a step of srun with unlike numbers of tasks on its nodes.
    """
    environment = os.environ
    if dist.is_torchelastic_launched():
        local = int(environment["LOCAL_WORLD_SIZE"])
        return local, int(environment["WORLD_SIZE"]) // local
    # set within a step of srun alone, and not in the batch script or the interactive shell around it
    tasks, nodes = (int(environment.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    if tasks % nodes:
        raise UserError(f"srun started {tasks} tasks on {nodes} nodes: start as many on each (--ntasks-per-node)")
    return tasks // nodes, nodes


def rank() -> int:
    """The number of this process among those that were joined, 0 without others."""
    return dist.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """How many processes were joined."""
    return dist.get_world_size() if _is_distributed() else 1


def broadcast(value: object) -> object:
    """``value`` of the first process, on all of them; they wait for it as long as it takes."""
    if not _is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_patient_group())
    return box[0]


def all_gather(value: object) -> list:
    """``value`` of every process, in their order, on all of them."""
    if not _is_distributed():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_patient_group())
    return values


@contextlib.contextmanager
def rank_zero_first() -> Iterator[None]:
    """The first process does what is within before all others do it: it writes what they only read.

    Raises: UserError on all of them if it raised one.
    """
    if rank() > 0 and (problem := broadcast(None)):
        raise UserError(problem)
    problem = None
    try:
        yield
    except UserError as error:
        problem = str(error)
        raise
    finally:
        if rank() == 0:
            broadcast(problem)


def lost(error: Exception) -> str:
    """The message for an ``error`` that says that another process is gone, or "" for any other."""
    if not isinstance(error, dist.DistError) and "gloo/transport" not in str(error):  # gloo has no type of its own
        return ""
    return "another process of this run has ended, or its node has: the same call resumes from the last checkpoint"


def share_weights(module: torch.nn.Module) -> None:
    """Give every process the weights that ``module`` has on the first."""
    if _is_distributed():
        for value in module.state_dict().values():
            dist.broadcast(value, src=0)


def leave() -> None:
    """End the connection with the other processes, if there is one."""
    if _is_distributed():
        _patient_group.cache_clear()
        dist.destroy_process_group()


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@functools.cache
def _patient_group() -> dist.ProcessGroup:
    return dist.new_group(backend="gloo", timeout=PREPARATION_TIMEOUT)
