"""The list of a study's runs: each line makes its run, together they make all that the notebooks ask for."""

import contextlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lib import ROOT
from lib.arms import ARMS, Pretraining
from lib.experiments import ablations, claim, jobs, probes, search
from lib.experiments.jobs import Job
from lib.machine import signals
from lib.pipeline import matrix, train
from lib.profile.load import load
from tests import toys

SBATCH = sorted((ROOT / "cluster").glob("*.sbatch"))
AXES = [
    {"name": "unlabelled music", "base": "all", "levels": [
        {"label": "half", "set": {"corpus.unlabeled_fraction": 0.5}}, {"label": "all"},
        {"label": "not there", "set": {"corpus.unlabeled": "data/nowhere"}}]},
    {"name": "what is transferred", "base": "all", "levels": [
        {"label": "nothing", "transfer": "scratch"}, {"label": "encoder", "transfer": "encoder"}, {"label": "all"}]},
]  # fmt: skip
SHORT = {
    **{"finetune.labeled_songs": [1], "finetune.transfers": ["sliced"], "finetune.controls": ["shuffled"]},
    **{"probes.seeds": [0], "probes.redealt": False, "regime.seeds": [0], "regime.learning_rates": [1e-3]},
    **{"regime.steps": [2], "regime.searched_songs": [1], "regime.pretrain_steps": [1], "regime.labeled_songs": [1]},
    **{"ablations.axes": AXES, "ablations.transfer": "sliced"},
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "listen", lambda: None)  # the signals of this process are pytest's
    return toys.study(tmp_path, SHORT)


@pytest.fixture
def short(study):
    """The arguments that name the study's profile."""
    return ["--profile", toys.profile_file(study)]


def listed(capsys, *arguments) -> list[str]:
    capsys.readouterr()
    assert train.main([*arguments, "--list"]) == 0
    return capsys.readouterr().out.splitlines()


def test_listing_reads_no_music_and_writes_nothing(short, capsys, tmp_path):
    assert listed(capsys, *short, "corpus.labeled=nowhere", "corpus.unlabeled=nowhere")
    assert not (tmp_path / "results").exists()


def test_every_line_works_and_nothing_is_left_for_the_notebooks(study, short, capsys):
    lines = [line for line in listed(capsys, *short) if " # its music is missing" not in line]
    assert len(lines) == len(set(lines)) > 10
    for line in lines:
        start, *arguments = shlex.split(line)[2:]
        assert start == "lib.pipeline.train" and train.main(arguments) == 0, line
    assert len(list(study.results.glob("runs/*-*/done.json"))) == len(lines)
    supervised = [*claim.claim_trainings(study), *probes.reference_trainings(study)]
    wanted = [*map(Job, supervised), *ablations.ablation_jobs(study), *probes.pretraining_jobs(study)]
    assert jobs.planned([*wanted, *search.search_jobs(study)]) == {}
    before = {path: path.stat().st_mtime_ns for path in study.results.glob("runs/*-*/*")}
    assert train.main([*short, "--run", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_lines_whose_music_is_missing_say_so_and_keep_their_numbers(short, capsys):
    there = listed(capsys, *short)
    lines = listed(capsys, *short, "corpus.unlabeled=nowhere")
    missing = [number for number, line in enumerate(lines, 1) if line.endswith("  # its music is missing: nowhere")]
    assert len(lines) == len(there) and 1 in missing and 0 < len(missing) < len(lines)
    assert all(shlex.split(a, comments=True)[:4] == shlex.split(b)[:4] for a, b in zip(lines, there, strict=True))
    assert train.main([*short, "corpus.unlabeled=nowhere", "--run", "1"]) == 2
    assert "corpus.unlabeled=nowhere is not there" in capsys.readouterr().err


def test_a_line_that_is_not_there_is_named(short, capsys):
    count = len(listed(capsys, *short))
    assert train.main([*short, "--run", str(count + 1)]) == 2
    assert f"has runs 1 to {count}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--profile", "nope", "--list"], ["--profile", "smoke", "--list", "pretrain.stps=1"]]
)
def test_wrong_calls_are_one_line(capsys, arguments):
    assert train.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["paper", "published"])
def test_the_published_matrix_is_whole(name):
    """Three sizes and four amounts of music pre-trained, each fine-tuned, one with frozen blocks; scratch a size."""
    profile = load(name)
    trainings = [job.training for job in matrix.runs(profile).values()]

    def key(training) -> tuple[str, str]:
        fields = training.study.profile
        return fields.model.size, fields.corpus.unlabeled.removeprefix("fma:")

    pretrained = [key(training) for training in trainings if isinstance(training, Pretraining)]
    assert sorted(pretrained) == sorted(
        [
            ("small", "large"),
            ("large", "large"),
            *(("medium", subset) for subset in ("small", "medium", "large", "full")),
        ]
    )
    by_arm = {arm: [key(one) for one in trainings if getattr(one, "arm", "") == arm] for arm in ARMS}
    assert sorted(size for size, _ in by_arm["scratch"]) == ["large", "medium", "small"]
    (transfer,) = profile.finetune.transfers
    assert transfer == {"paper": "sliced", "published": "frequent"}[name]
    assert sorted(by_arm[transfer]) == sorted([*pretrained, ("medium", "large")])
    frozen = [one for one in trainings if getattr(one, "arm", "") == transfer and one.schedule.frozen_blocks]
    assert [key(one) for one in frozen] == [("medium", "large")]


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.stem)
def test_batch_files_parse(path):
    subprocess.run(["bash", "-n", path], check=True)
    options = [line.split()[1].split("=")[0] for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--signal", "--requeue", "--ntasks-per-node", "--gpus-per-node", "--open-mode"} <= set(options)


@pytest.fixture
def scheduler(tmp_path):
    """A machine whose srun and scontrol write down how they are called; srun ends as asked."""
    for name, status in (("srun", "$STATUS"), ("scontrol", "0")):
        (tmp_path / name).write_text(f'#!/bin/bash\necho "{name} $*" >>"{tmp_path}/calls"\nexit {status}\n')
        (tmp_path / name).chmod(0o755)

    def submit(path, *arguments, status=0, **variables) -> tuple[int, list[str]]:
        (tmp_path / "calls").unlink(missing_ok=True)
        programs = f"{tmp_path}{os.pathsep}{Path(shutil.which('bash')).parent}"
        variables = {"PATH": programs, "STATUS": str(status), "SLURM_SUBMIT_DIR": str(tmp_path), **variables}
        done = subprocess.run([path, *arguments], env=variables, check=False)
        calls = []
        with contextlib.suppress(FileNotFoundError):
            calls = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, calls

    return submit


def test_batch_files_start_runs_and_queue_again_what_was_stopped(scheduler):
    matrix, pretrain = SBATCH
    start = "srun --kill-on-bad-exit=1 python -m lib.pipeline.train --profile"
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert scheduler(matrix, "paper", "compute.compile=true", **task) == (
        0,
        [f"{start} paper --run 3 compute.compile=true"],
    )
    assert scheduler(pretrain, SLURM_JOB_ID="7") == (0, [f"{start} paper --stage pretrain"])
    finetune = ["demo", "--stage", "finetune", "--seed", "1"]
    assert scheduler(pretrain, *finetune, SLURM_JOB_ID="7")[1] == [f"{start} demo --stage finetune --seed 1"]
    assert scheduler(pretrain, status=train.STOPPED, SLURM_JOB_ID="7")[1][1:] == ["scontrol requeue 7"]
    assert scheduler(matrix, status=train.STOPPED, **task)[1][1:] == ["scontrol requeue 7_3"]
    assert scheduler(pretrain, status=2, SLURM_JOB_ID="7") == (2, [f"{start} paper --stage pretrain"])
