"""The one command: wrong calls end at once with one line, and the set-up repairs itself. Nothing is installed here."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib import ROOT

# stands in for Python 3.11: "makes" an environment and "installs", slowly or not at all, and writes down what it did
FAKE_PYTHON = r"""#!/bin/bash
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg" && echo venv >>"$FAKE_LOG" ;;
    *" install "*)
        [[ -e $FAKE_LOG.break ]] && exit 1
        [[ -e $FAKE_LOG.slow ]] && echo slow >>"$FAKE_LOG" && exec sleep 60
        if [[ $* == *--target* ]]; then
            while [[ $1 != --target ]]; do shift; done
            mkdir -p "$2/ffmpeg/binaries"
            printf '#!/bin/sh\n' | tee "$2/ffmpeg/binaries/ffmpeg" >"$2/ffmpeg/binaries/ffprobe"
            echo ffmpeg >>"$FAKE_LOG"
        else
            sleep 0.3
            echo install >>"$FAKE_LOG"
        fi ;;
    "-m lib.pipeline."*) echo "${2#lib.pipeline.} ${*:3}" ;;
esac
"""


def call(project, *arguments, **environment):
    """``run_all.sh`` of a project folder, called from another folder."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(project)} | environment
    command = [str(project / "run_all.sh"), *arguments]
    return subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, timeout=60, check=False)


def one_line(done):
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def project(tmp_path):
    """The project without an environment, in a folder with a space in its name."""
    folder = tmp_path / "a study"
    folder.mkdir()
    for name in ("run_all.sh", "requirements.txt", "requirements-ffmpeg.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("lib", "notebooks"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def bare(project, tmp_path):
    """How to call in a machine that has a fake Python 3.11, the usual commands and no ffmpeg; what it did is in log."""
    programs = tmp_path / "bin"
    programs.mkdir()
    usual = "awk bash cat chmod cp cut df dirname find flock mkdir mv readlink rm sh sha256sum sleep tee touch"
    for name in usual.split():
        (programs / name).symlink_to(shutil.which(name))
    (programs / "python3.11").write_text(FAKE_PYTHON)
    (programs / "python3.11").chmod(0o755)
    return {"PATH": str(programs), "FAKE_LOG": str(tmp_path / "log")}


def steps(bare):
    return Path(bare["FAKE_LOG"]).read_text().split()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nope"], "unknown profile 'nope'"),
        (["nope.yaml"], "unknown profile 'nope.yaml'"),
        (["--force"], "unknown profile '--force'"),
        (["smoke", "seeds"], "'seeds' is not of the form key=value"),
        (["smoke", "=3"], "'=3' is not of the form key=value"),
        (["smoke", "a..b=3"], "'a..b=3' is not of the form key=value"),
    ],
)
def test_wrong_calls_end_before_any_set_up(project, bare, arguments, expected):
    assert expected in one_line(call(project, *arguments, **bare))
    assert not (project / ".venv").exists()


def test_help_needs_no_set_up(project, bare):
    done = call(project, "--help", **bare)
    assert done.returncode == 0 and "key=value" in done.stdout and not done.stderr
    assert not (project / ".venv").exists()


def test_no_python_is_one_line(project, bare):
    (Path(bare["PATH"]) / "python3.11").unlink()
    assert "Python 3.11" in one_line(call(project, "smoke", **bare))


def test_set_up_happens_once_and_again_when_the_lock_changes(project, bare):
    done = call(project, "smoke", "pretrain.steps=2", **bare)
    assert done.returncode == 0 and "notebooks smoke pretrain.steps=2" in done.stdout, done
    assert steps(bare) == ["venv", "install", "ffmpeg"]
    assert call(project, **bare).stdout == "notebooks demo\n" or not (ROOT / "notebooks/profiles/demo.yaml").exists()
    assert len(steps(bare)) == 3
    with open(project / "requirements.txt", "a") as lock:
        lock.write("# changed\n")
    assert call(project, "smoke", **bare).returncode == 0
    assert steps(bare)[3:] == ["venv", "install", "ffmpeg"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["smoke", "--plan", "pretrain.steps=2"], "estimate smoke pretrain.steps=2"),
        (["paper", "results=here", "--plan"], "estimate paper results=here"),
        (["--plan"], "estimate demo"),
    ],
)
def test_a_plan_is_asked_for_in_any_place(project, bare, arguments, expected):
    assert call(project, *arguments, **bare).stdout.splitlines()[-1] == expected


def test_a_set_up_that_was_cut_off_is_repaired(project, bare):
    broken = Path(bare["FAKE_LOG"] + ".break")
    broken.touch()
    assert call(project, "smoke", **bare).returncode == 1
    broken.unlink()
    done = call(project, "smoke", **bare)
    assert "notebooks smoke" in done.stdout and steps(bare) == ["venv", "venv", "install", "ffmpeg"]


@pytest.mark.parametrize("whole_group", [True, False], ids=["Ctrl-C", "kill"])
def test_an_interrupted_set_up_ends_at_once_with_one_line_and_is_repaired(project, bare, whole_group):
    slow = Path(bare["FAKE_LOG"] + ".slow")
    slow.touch()
    options = {"env": bare | {"HOME": str(project)}, "text": True, "start_new_session": True}
    calls, said = [], project / "said"
    for state in ("making .venv", "waiting"):  # the second one waits for the first
        with open(said, "a") as file:
            command = [project / "run_all.sh", "smoke"]
            calls.append(subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, **options))
        wait_for(lambda state=state: state in said.read_text())
    wait_for(lambda: Path(bare["FAKE_LOG"]).exists() and "slow" in steps(bare))
    started = time.monotonic()
    for process in reversed(calls):
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        line = process.communicate(timeout=30)[1]
        assert process.returncode == 130, line
        assert line == "run_all.sh: interrupted: the same call resumes the set-up\n"
    assert time.monotonic() - started < 30  # of 60 that the installation would take
    slow.unlink()
    assert "notebooks smoke" in call(project, "smoke", **bare).stdout
    assert steps(bare) == ["venv", "slow", "venv", "install", "ffmpeg"]


def wait_for(condition, seconds=60):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_lost_ffmpeg_is_fetched_again(project, bare):
    call(project, "smoke", **bare)
    (project / ".venv/bin/ffprobe").unlink()
    call(project, "smoke", **bare)
    assert steps(bare) == ["venv", "install", "ffmpeg", "ffmpeg"]


def test_two_at_once_set_up_once(project, bare):
    variables = bare | {"HOME": str(project)}
    command = [project / "run_all.sh", "smoke"]
    calls = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) for _ in range(2)]
    assert all(b"notebooks smoke" in process.communicate(timeout=60)[0] for process in calls)
    assert steps(bare) == ["venv", "install", "ffmpeg"]


def test_somebody_elses_venv_is_left_alone(project, bare):
    (project / ".venv").mkdir()
    (project / ".venv/pyvenv.cfg").touch()
    (project / ".venv/keep").touch()
    assert "not made by run_all.sh" in one_line(call(project, "smoke", **bare))
    assert (project / ".venv/keep").exists()


@pytest.fixture
def active(bare):
    """The interpreter of these tests as active environment; should it not fit, no other one can be made."""
    programs = Path(bare["PATH"])
    (programs / "python3.11").unlink()
    for name in ("ffmpeg", "ffprobe"):
        (programs / name).symlink_to(shutil.which(name))
    return {"PATH": str(programs), "VIRTUAL_ENV": sys.prefix}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["finetune.sed=1"], "did you mean seeds"),
        (["finetune.seeds=three"], "finetune.seeds must be a list"),
        (["finetune.steps=1.5"], "finetune.steps must be a whole number"),
        (["corpus.unlabeled=/no/such/folder"], "/no/such/folder"),
        (["corpus.unlabeled=fma:small", "corpus.fma_root=/no/such/folder"], "put fma_metadata.zip there"),
        (["corpus.rendered.unlabeled_songs=999999999"], "GB needed"),
        (["results=/proc/results"], "/proc/results"),
    ],
)
def test_an_active_environment_is_used_and_bad_values_start_nothing(project, active, tmp_path, arguments, expected):
    results = [] if "results" in arguments[0] else [f"results={tmp_path / 'results'}"]
    done = call(project, "smoke", *arguments, *results, **active)
    assert f"using the active environment {sys.prefix}" in done.stdout, done
    assert expected in one_line(done)
    assert not (tmp_path / "results").exists() and not (project / ".venv").exists()


def test_an_environment_with_other_versions_is_not_used(project, active):
    lock = (project / "requirements.txt").read_text()
    (project / "requirements.txt").write_text(lock.replace("torch==2.11.0", "torch==2.0.0"))
    done = call(project, "smoke", **active)
    assert "torch is 2.11.0" in done.stdout and "2.0.0 is pinned" in done.stdout
    assert "Python 3.11" in one_line(done)


def test_the_lock_holds_every_pin_and_a_hash_for_each():
    lock = (ROOT / "requirements.txt").read_text()
    pins = [line for line in (ROOT / "requirements.in").read_text().splitlines() if "==" in line and line[0] != "#"]
    assert len(pins) > 20 and all(f"\n{pin} \\" in lock for pin in pins)
    entries = [entry for entry in lock.split("\n") if "==" in entry and not entry.startswith((" ", "#"))]
    assert all(entry.endswith("\\") for entry in entries)
    assert "\nffmpeg-binaries" not in lock and "://" not in lock
