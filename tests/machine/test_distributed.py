"""Many processes train what one does: the same weights and log, one writer, faults and signals that end cleanly."""

import csv
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lib import UserError
from lib.machine import torchrun
from lib.pipeline import train
from lib.profile.fields import Compute
from lib.profile.load import load
from lib.store.runs import Run
from lib.study import Study

ROOT = Path(__file__).resolve().parent.parent
PROFILE = """
base: smoke
model: {dropout: 0.0}
pretrain: {steps: 20, batch: 4, accumulate: 2, seeds: [0], learning_rate: 1e-4, validate_every: 10, checkpoint_every: 5}
finetune:
  {steps: 20, batch: 4, accumulate: 4, seeds: [0], labeled_songs: [2], learning_rate: 1e-4, validate_every: 10,
   checkpoint_every: 5, validate_on: songs}
"""
FINETUNE = ["--stage", "finetune", "--transfer", "sliced"]
PRETRAIN = ["--stage", "pretrain"]
SCRIPT = str(ROOT / "tests" / "one_of_many.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Study:
    """A study of which one process, this one, trained a MixIT model and the sliced model that starts from it."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "tiny.yaml").write_text(PROFILE)
    study = Study(load(str(folder / "tiny.yaml"), [f"results={folder / 'one'}"]))
    study.supervised("sliced", 0, 2)
    return study


@pytest.fixture
def beside(alone, tmp_path):
    """Another results folder for the same songs; gives (study, arguments of `lib.training` that name it)."""
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "corpora").symlink_to(alone.cache)
    study = alone.variant({"results": str(tmp_path / "many")})
    return study, ["--profile", str(alone.results.parent / "tiny.yaml"), f"results={study.results}"]


def environment(**more) -> dict:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in more.items()}


def together(count, *arguments, **variables) -> subprocess.CompletedProcess:
    """``count`` processes under torchrun."""
    call = [*TORCHRUN, f"--nproc-per-node={count}", SCRIPT, *arguments]
    return subprocess.run(
        call, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, timeout=500, check=False
    )


def rows(run: Run) -> list[dict]:
    with open(run.folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_same(run: Run, other: Run) -> None:
    """Weights to 1e-6, losses and gradient norms to what float32 leaves of a sum in another order."""
    mine, theirs = load_file(run.weights), load_file(other.weights)
    assert max((mine[name] - theirs[name]).abs().max().item() for name in mine) <= 1e-6
    assert len(rows(run)) == len(rows(other)) == 20
    for one, two in zip(rows(run), rows(other), strict=True):
        for key in ("loss", "gradient_norm", "learning_rate"):
            assert float(one[key]) == pytest.approx(float(two[key]), rel=2e-4, abs=2e-4)
        assert bool(one["validation_loss"]) == bool(two["validation_loss"])
        assert float(one["validation_loss"] or 0) == pytest.approx(float(two["validation_loss"] or 0), abs=2e-4)


def test_two_processes_train_what_one_does_and_the_first_alone_writes(alone, beside):
    study, arguments = beside
    done = together(2, *FINETUNE, *arguments, READ_ONLY=study.results)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("finished: ") == 1
    for run in ("pretrain_run", "supervised_run"):
        of = () if run == "pretrain_run" else ("sliced", 0, 2)
        assert_same(getattr(alone, run)(*of), getattr(study, run)(*of))
        assert getattr(study, run)(*of).facts()["processes"] == 2


@pytest.mark.parametrize("fault", ["11 1 SIGTERM", "11 0 SIGUSR1"])
def test_a_signal_to_one_of_two_stops_both_and_one_process_goes_on(alone, beside, fault):
    study, arguments = beside
    done = together(2, *PRETRAIN, *arguments, FAULT=fault)
    stopped = [line for line in done.stderr.splitlines() if "stopped by" in line]
    assert done.returncode != 0 and len(stopped) == 1, done.stderr[-3000:]
    assert "after step 12 of 20, a checkpoint is written; the same call goes on from there" in stopped[0]
    run = study.pretrain_run()
    assert not run.finished and (run.folder / "last.ckpt").exists() and len(rows(run)) == 12
    study.pretrain()
    assert_same(alone.pretrain_run(), run)


def test_a_signal_to_the_whole_group_leaves_the_loaders_processes_to_their_step_and_two_finish(alone, beside):
    study, arguments = beside
    call = [sys.executable, SCRIPT, *PRETRAIN, *arguments, "corpus.workers=2"]
    done = subprocess.run(
        call, cwd=ROOT, env=environment(FAULT="6 -1 SIGTERM"), capture_output=True, text=True, start_new_session=True
    )
    assert done.returncode == train.STOPPED, done.stderr[-3000:]
    assert "a checkpoint is written; the same call goes on from there" in done.stderr
    assert (study.pretrain_run().folder / "last.ckpt").exists()
    done = together(2, *PRETRAIN, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(alone.pretrain_run(), study.pretrain_run())


def test_a_killed_process_ends_the_job_with_a_message(beside):
    study, arguments = beside
    done = together(2, *PRETRAIN, *arguments, FAULT="7 1 SIGKILL")
    assert done.returncode == 1
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert not study.pretrain_run().finished


def test_tasks_of_srun_join(alone, beside):
    study, arguments = beside
    job = {"JOB_ID": random.SystemRandom().randrange(10**6), "JOB_NAME": "study", "NODELIST": "localhost"}
    shared = {"NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "STEP_NUM_TASKS": 2, "STEP_NUM_NODES": 1, "NODEID": 0}
    tasks = []
    for number in (0, 1):
        variables = {
            f"SLURM_{key}": value for key, value in {**job, **shared, "PROCID": number, "LOCALID": number}.items()
        }
        call = [sys.executable, SCRIPT, *PRETRAIN, *arguments]
        tasks.append(subprocess.Popen(call, cwd=ROOT, env=environment(**variables)))
    assert [task.wait(timeout=500) for task in tasks] == [0, 0]
    assert_same(alone.pretrain_run(), study.pretrain_run())


def test_an_allocation_of_several_tasks_does_not_bother_a_process_outside_of_srun(beside, monkeypatch):
    study, _ = beside
    for key, value in {"NTASKS": 4, "NTASKS_PER_NODE": 4, "NNODES": 1, "JOB_NAME": "study", "PROCID": 0}.items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    study.variant({"pretrain.steps": 1}).pretrain()


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


def test_from_a_notebook_torchrun_is_started_and_its_failure_is_one_line(alone, beside, monkeypatch):
    study, _ = beside
    monkeypatch.setattr(torchrun, "on_gpu", lambda compute: True)  # the processes themselves find none, and use the CPU
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = study.pretrain_run().begin()
    (run.folder / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="training on 2 GPUs ended with status 1, see the messages above"):
        study.pretrain()
    (run.folder / "last.ckpt").unlink()
    assert_same(alone.pretrain_run(), study.pretrain())
    assert run.facts()["processes"] == 2
