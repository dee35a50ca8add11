"""The list of a study's runs: each line makes its run, together they make all that the notebooks ask for."""

import contextlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lib.experiments import ablations, claim, jobs, probes, search
from lib.pipeline import matrix, train
from lib.profile.load import load
from lib.study import Study

ROOT = Path(__file__).resolve().parent.parent
SBATCH = sorted((ROOT / "cluster").glob("*.sbatch"))
SHORT = """
base: smoke
corpus: {rendered: {unlabeled_songs: 4}}
pretrain: {steps: 2, seeds: [0], validate_every: 1}
finetune: {steps: 2, seeds: [0], labeled_songs: [1], transfers: [sliced], controls: [shuffled], validate_every: 1}
probes: {seeds: [0], redealt: false}
regime: {learning_rates: [1e-3], steps: [2], searched_songs: [1], pretrain_steps: [1], labeled_songs: [1]}
"""


@pytest.fixture
def short(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.stopping, "listen", lambda: None)  # the signals of this process are pytest's
    (tmp_path / "short.yaml").write_text(SHORT)
    return ["--profile", str(tmp_path / "short.yaml"), f"results={tmp_path / 'results'}"]


def listed(capsys, *arguments) -> list[str]:
    capsys.readouterr()
    assert train.main([*arguments, "--list"]) == 0
    return capsys.readouterr().out.splitlines()


def test_listing_reads_no_music_and_writes_nothing(short, capsys, tmp_path):
    assert listed(capsys, *short, "corpus.labeled=nowhere", "corpus.unlabeled=nowhere")
    assert not (tmp_path / "results").exists()


def test_every_line_works_and_nothing_is_left_for_the_notebooks(short, capsys, tmp_path):
    lines = listed(capsys, *short)
    assert len(lines) == len(set(lines)) > 10
    for line in lines:
        start, *arguments = shlex.split(line)[2:]
        assert start == "lib.training" and train.main(arguments) == 0, line
    study = Study(load(short[1], [short[2]]))
    assert len(list(study.results.glob("runs/*-*/done.json"))) == len(lines)
    wanted = [*claim.claim_jobs(study), *ablations.ablation_jobs(study), *probes.pretraining_jobs(study)]
    wanted += [*probes.reference_jobs(study), *search.search_jobs(study), *search.map_jobs(study)]
    assert jobs.planned(wanted) == {}
    before = {path: path.stat().st_mtime_ns for path in study.results.glob("runs/*-*/*")}
    assert train.main([*short, "--run", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


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
    """Three sizes and four amounts of music pre-trained, each fine-tuned, and scratch for each size."""
    profile = load(name)
    found = list(matrix.runs(profile, absent=True).values())
    key = lambda job: (job.profile.model.size, job.profile.corpus.unlabeled.removeprefix("fma:"))  # noqa: E731
    pretrained = [key(job) for job in found if job.how == jobs.MIXIT]
    assert sorted(pretrained) == sorted(
        [
            ("small", "large"),
            ("large", "large"),
            *(("medium", subset) for subset in ("small", "medium", "large", "full")),
        ]
    )
    scratch = [job.profile.model.size for job in found if job.how == "scratch"]
    assert sorted(scratch) == ["large", "medium", "small"]
    how = profile.finetune.transfers[0]
    assert how == {"paper": "sliced", "published": "frequent"}[name]
    assert sorted(key(job) for job in found if job.how == how) == sorted(pretrained)


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
    start = "srun --kill-on-bad-exit=1 python -m lib.training --profile"
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
