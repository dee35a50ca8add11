"""Many processes train what one does: the same weights and log, one writer, faults and signals that end cleanly.

Most of them are forks of one process that has imported everything, with the environment that torchrun or srun gives;
`test_torchrun_...` start torchrun itself.
"""

import csv
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from lib import ROOT, UserError
from lib.arms import Finetuning, Pretraining
from lib.machine import distributed, torchrun
from lib.pipeline import train
from lib.profile.fields import Compute
from lib.store.runs import Run
from tests import toys
from tests.browser import free_port
from tests.machine import one_of_many

STEPS = {"steps": 12, "batch": 4, "learning_rate": 1e-4, "validate_every": 3, "checkpoint_every": 3}
PROFILE = {f"{stage}.{key}": value for stage in ("pretrain", "finetune") for key, value in STEPS.items()}
PROFILE |= {"model.dropout": 0.0, "pretrain.accumulate": 2, "finetune.accumulate": 4, "finetune.labeled_songs": [2]}
PROFILE |= {"finetune.validate_on": "songs"}
FINETUNE = ["--stage", "finetune", "--transfer", "sliced"]
PRETRAIN = ["--stage", "pretrain"]


def trainings(study) -> tuple[Pretraining, Finetuning]:
    return Pretraining(study, 0), Finetuning(study, "sliced", 0, 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A study of which one process, this one, trained a MixIT model and the sliced model that starts from it."""
    study = toys.study(tmp_path_factory.mktemp("alone"), PROFILE)
    trainings(study)[1].trained()
    return study


@pytest.fixture
def beside(alone, tmp_path):
    """The same study with a results folder of its own, and the arguments that name its profile."""
    study = alone.variant({"results": str(tmp_path / "many")})
    return study, ["--profile", toys.profile_file(study)]


class Done(NamedTuple):
    """The exit status of every process, and what each said."""

    status: list[int]
    said: list[str]


@pytest.fixture
def together(fork_server, tmp_path):
    """Run ``lib.pipeline.train`` on several processes at once, with an environment for each."""

    def run(arguments: list[str], environments: list[dict]) -> Done:
        files = [str(tmp_path / f"said-{number}") for number in range(len(environments))]
        given = [{name: str(value) for name, value in one.items()} for one in environments]
        plan = [(arguments, *one) for one in zip(given, files, strict=True)]
        processes = [fork_server.Process(target=one_of_many.forked, args=one) for one in plan]
        for process in processes:
            process.start()
        for process in processes:
            process.join(500)
        said = [Path(file).read_text() for file in files]
        return Done([process.exitcode for process in processes], said)

    return run


def of_torchrun(count: int, **more) -> list[dict]:
    """What torchrun sets for each of ``count`` processes of one node."""
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": 0}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [{**shared, "RANK": number, "LOCAL_RANK": number, **more} for number in range(count)]


def rows(run: Run) -> list[dict]:
    with open(run.folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_same(run: Run, other: Run) -> None:
    """Weights to 1e-6, losses and gradient norms to what float32 leaves of a sum in another order."""
    mine, theirs = load_file(run.weights), load_file(other.weights)
    assert max((mine[name] - theirs[name]).abs().max().item() for name in mine) <= 1e-6
    assert len(rows(run)) == len(rows(other)) == 4
    for one, two in zip(rows(run), rows(other), strict=True):
        for key in ("loss", "gradient_norm", "learning_rate", "validation_loss"):
            assert float(one[key]) == pytest.approx(float(two[key]), rel=2e-4, abs=2e-4)


def test_two_processes_train_what_one_does_and_the_first_alone_writes(alone, beside, together):
    study, arguments = beside
    done = together([*FINETUNE, *arguments], of_torchrun(2, READ_ONLY=study.results))
    assert done.status == [0, 0], done.said
    assert ["finished: " in text for text in done.said] == [True, False]
    for one, two in zip(trainings(alone), trainings(study), strict=True):
        assert_same(one.run, two.run)
        assert two.run.facts()["processes"] == 2


@pytest.mark.parametrize("fault", ["7 1 SIGTERM", "7 0 SIGUSR1"])
def test_a_signal_to_one_of_two_stops_both_and_one_process_resumes(alone, beside, together, fault):
    study, arguments = beside
    done = together([*PRETRAIN, *arguments], of_torchrun(2, FAULT=fault))
    assert done.status == [train.STOPPED, 0], done.said
    assert "after step 8 of 12, a checkpoint is written; the same call resumes from there" in done.said[0]
    assert "stopped by" not in done.said[1]
    run = trainings(study)[0].run
    assert not run.finished and (run.folder / "last.ckpt").exists() and len(rows(run)) == 8
    assert_same(trainings(alone)[0].run, trainings(study)[0].trained())


def test_a_signal_to_the_whole_group_leaves_the_loaders_processes_to_their_step_and_two_finish(alone, beside, together):
    study, arguments = beside
    done = together([*PRETRAIN, *arguments, "corpus.workers=2"], [{"FAULT": "6 -1 SIGTERM"}])
    assert done.status == [train.STOPPED], done.said
    run = trainings(study)[0].run
    assert "a checkpoint is written" in done.said[0] and (run.folder / "last.ckpt").exists()
    done = together([*PRETRAIN, *arguments], of_torchrun(2))
    assert done.status == [0, 0], done.said
    assert_same(trainings(alone)[0].run, run)


@pytest.mark.parametrize(("name", "allocated"), [("study", 2), ("interactive", 2), ("bash", 8)])
def test_tasks_of_srun_join_in_batch_jobs_and_in_interactive_allocations_larger_than_the_step(
    alone, beside, together, name, allocated
):
    study, arguments = beside
    job = {"JOB_ID": random.SystemRandom().randrange(10**6), "JOB_NAME": name, "NODELIST": "nowhere,localhost"}
    job |= {"NTASKS": allocated, "NTASKS_PER_NODE": allocated, "NNODES": 2, "NODEID": 1}
    job |= {"STEP_NUM_TASKS": 2, "STEP_NUM_NODES": 1, "STEP_NODELIST": "localhost", "STEP_ID": 3}
    tasks = [{f"SLURM_{key}": value for key, value in {**job, "PROCID": n, "LOCALID": n}.items()} for n in (0, 1)]
    done = together([*PRETRAIN, *arguments], tasks)
    assert done.status == [0, 0], done.said
    assert_same(trainings(alone)[0].run, trainings(study)[0].run)


def test_unlike_numbers_of_tasks_on_two_nodes_are_refused_in_one_line(beside, monkeypatch, capsys):
    for key, value in {"STEP_NUM_TASKS": 3, "STEP_NUM_NODES": 2, "PROCID": 0}.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    assert train.main([*PRETRAIN, *beside[1]]) == 2
    message = capsys.readouterr().err
    assert message == "srun started 3 tasks on 2 nodes: start as many on each (--ntasks-per-node)\n"


def test_a_process_that_is_shown_one_gpu_takes_it(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert distributed.process_devices("cuda", 4) == [torch.device("cuda", 0)] * 4
    assert distributed.process_devices("cpu", 2) == [torch.device("cpu")] * 2
    in_a_job_of(monkeypatch, 2)
    with pytest.raises(UserError, match="2 processes on a node with 1 GPU"):
        distributed.process_devices("cuda", 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [device.index for device in distributed.process_devices("cuda", 3)] == [0, 1, 2]


def test_attention_drops_what_it_is_told_to_and_a_gpu_that_is_not_there_is_one_line():
    distributed.start_fabric(Compute(accelerator="cpu"))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"compute\.accelerator=gpu: no GPU that torch can use"):
            distributed.start_fabric(Compute(accelerator="gpu"))


def test_an_allocation_of_several_tasks_does_not_bother_a_process_outside_of_srun(beside, monkeypatch):
    study, _ = beside
    for key, value in {"NTASKS": 4, "NTASKS_PER_NODE": 4, "NNODES": 1, "JOB_NAME": "study", "PROCID": 0}.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    assert trainings(study.variant({"pretrain.steps": 1}))[0].trained().finished


def in_a_job_of(monkeypatch, count):
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "RANK": 0}.items():
        monkeypatch.setenv(key, str(value))


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(beside, monkeypatch, capsys):
    study, arguments = beside
    in_a_job_of(monkeypatch, 3)
    assert train.main([*PRETRAIN, *arguments]) == 2
    message = capsys.readouterr().err
    assert message == "a batch of 4 cannot be shared by 3 processes: start a number that divides it\n"
    assert not (study.results / "runs").exists()


def test_notebooks_use_all_gpus_that_share_a_batch(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [torchrun.processes(Compute(), batch) for batch in (8, 6, 5, 2)] == [4, 3, 1, 2]
    assert torchrun.processes(Compute(accelerator="cpu"), 8) == torchrun.processes(Compute(jobs=2), 8) == 1
    in_a_job_of(monkeypatch, 2)
    assert torchrun.processes(Compute(), 8) == 1


def test_torchrun_ends_the_job_of_a_killed_process_with_a_message(beside):
    study, arguments = beside
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FAULT": "7 1 SIGKILL"}
    call += [one_of_many.__file__, *PRETRAIN, *arguments]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 1
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert not trainings(study)[0].run.finished


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"), 1),
        (torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"), 1),
        (RuntimeError("shapes cannot be multiplied"), None),
    ],
    ids=["gloo", "nccl", "another"],
)
def test_the_loss_of_another_process_is_one_line(beside, monkeypatch, capsys, error, status):
    def fail(chosen):
        raise error

    monkeypatch.setattr(train, "_train", fail)
    if status is None:
        with pytest.raises(RuntimeError, match="shapes"):
            train.main([*PRETRAIN, *beside[1]])
    else:
        assert train.main([*PRETRAIN, *beside[1]]) == status
        message = capsys.readouterr().err
        assert message.startswith("another process of this run has ended") and message.count("\n") == 1


def test_torchrun_is_started_from_a_notebook_and_its_failure_is_one_line(alone, beside, monkeypatch):
    study, _ = beside
    monkeypatch.setattr(torchrun, "on_gpu", lambda compute: True)  # the processes themselves find none, and use the CPU
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    training = trainings(study)[0]
    with monkeypatch.context() as patch:
        patch.setattr(torchrun.sys, "executable", shutil.which("false"))
        with pytest.raises(UserError, match="training on 2 GPUs ended with status 1, see the messages above"):
            training.trained()
    assert_same(trainings(alone)[0].run, training.trained())
    assert training.run.facts()["processes"] == 2
