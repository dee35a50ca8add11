"""A study on a hostile machine: kills, Ctrl-C, two users, a full disk, odd paths and no home; a story in miniature."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from lib import ROOT
from lib.machine import faults, signals
from lib.pipeline import train

STARTED = """
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from lib import profile as profiles
from lib.machine.processes import end_with_parent
from lib.store.files import atomic
results = profiles.project_path(profiles.load(profile, overrides).results)
go = results.with_name("go")
"""
WAITS = """
if not go.exists():
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    worker = pool.submit(os.getpid).result()
    with atomic(results.with_name("pids")) as file:
        file.write_text(f"{os.getpid()} {worker}")
    while not go.exists():
        time.sleep(0.02)
"""
WRITES = """
with atomic(results / "tables" / "numbers.csv") as file:
    file.write_bytes(bytes(4 << 20))
"""
FILLS = """
try:
    (results / "ballast").write_bytes(bytes(100 << 20))
except OSError:
    print("full")
"""
# A machine so slow that the notebook's client looks after its kernel between the kernel's end and its own.
SLOW = """
import sys
if "lib.pipeline.notebooks" in sys.orig_argv:
    import asyncio
    from jupyter_core.utils import run_sync
    from nbclient import NotebookClient
    ends = NotebookClient._async_cleanup_kernel
    async def late(client):
        await client.km.shutdown_kernel(now=True)
        await asyncio.sleep(2)
        await ends(client)
    NotebookClient._cleanup_kernel = run_sync(late)
"""


def notebook(path: Path, *cells: str) -> None:
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in ('profile = "x"\noverrides = []', *cells)]
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)


@pytest.fixture
def project(tmp_path):
    """The project with notebooks that pretend, in a folder with a space and letters beyond ASCII, without git."""
    folder = tmp_path / "étude à 2 π"
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks" / "profiles", folder / "notebooks" / "profiles")
    for name in ("run_all.sh", "requirements.txt", "requirements.in"):
        shutil.copy(ROOT / name, folder)
    (folder / "lib" / "report" / "page.py").write_text("def write(results): (results / 'report.html').touch()\n")
    return folder


def environment(project: Path, **more: str) -> dict[str, str]:
    """No home, no locale, and no commands but those that are needed."""
    programs = project / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("bash", "dirname", "ffmpeg", "ffprobe", "readlink"):
        if not (programs / name).exists():
            (programs / name).symlink_to(shutil.which(name, path=os.environ["PATH"] + os.pathsep + sys.prefix + "/bin"))
    return {"PATH": str(programs), "LC_ALL": "C", "VIRTUAL_ENV": sys.prefix, "TMPDIR": str(project.parent), **more}


def start(project: Path, *arguments: str, **more: str) -> subprocess.Popen:
    call = [project / "run_all.sh", "smoke", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(call, env=environment(project, **more), cwd="/", start_new_session=True, **pipes)


def wait_for(condition, seconds: float = 240) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_study_survives_kills_interruptions_and_a_second_user(project):
    notebook(project / "notebooks" / "00_first.ipynb", STARTED, WAITS, WRITES)
    notebook(project / "notebooks" / "01_second.ipynb", "print('done')")
    results = project / "results" / "smoke"
    pids = results.with_name("pids")
    (project / "slow").mkdir()
    (project / "slow" / "sitecustomize.py").write_text(SLOW)
    for number in (signal.SIGKILL, signal.SIGINT):
        first = start(project, PYTHONPATH=str(project / "slow"))
        wait_for(pids.exists)
        kernel, worker = map(int, pids.read_text().split())
        if number == signal.SIGINT:
            second = start(project)
            said = second.communicate(timeout=240)[1].splitlines()
            assert second.returncode == 2 and len(said) == 1
            assert f"in use by process {first.pid}: wait for it" in said[0] and str(results) in said[0]
        os.killpg(first.pid, number)
        said = first.communicate(timeout=60)[1]
        if number == signal.SIGINT:
            assert first.returncode == 130
            assert said.strip() == "interrupted: the same call resumes from the last checkpoint"
        wait_for(lambda kernel=kernel, worker=worker: not alive(kernel) and not alive(worker), 30)
        pids.unlink()
        assert not (results / "report.html").exists()
    (results / "tables").mkdir(exist_ok=True)
    (results / "tables" / ".left.csv").touch()  # as a kill in the middle of writing leaves it
    results.with_name("go").touch()
    last = start(project)
    out, said = last.communicate(timeout=240)
    assert last.returncode == 0, said
    assert "00_first (1 of 2)" in out and (results / "report.html").exists()
    assert [path.name for path in (results / "tables").iterdir()] == ["numbers.csv"]
    assert not list(project.parent.glob(".*")) and not list(project.glob(".*"))  # what stands in for a home


CALL = """
import sys
from lib.pipeline import notebooks, space
space.planned_bytes = lambda profile: 0  # else the call would be refused
sys.exit(notebooks.main(sys.argv[1:]))
"""


def called(project: Path, results: Path) -> subprocess.CompletedProcess:
    call = [sys.executable, "-c", CALL, "smoke", f"results={results}"]
    return subprocess.run(call, cwd=project, env=environment(project), capture_output=True, text=True, timeout=240)


def one_line(done: subprocess.CompletedProcess, status: int) -> str:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == status and len(lines) == 1, done
    return lines[0]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB of its own; ``small_disk(options)`` mounts it anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")

    if not shutil.which("mount"):
        pytest.skip("no mount here")
    mount("size=2m")
    yield lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_study_goes_on_when_there_is_room(project, small_disk, tmp_path):
    notebook(project / "notebooks" / "00_first.ipynb", STARTED, FILLS, "print(1)")
    results = tmp_path / "disk" / "smoke"
    said = one_line(called(project, results), 1)
    assert f"{results}: no space left: free some, then the same call" in said
    (results / "ballast").unlink()
    small_disk("size=200m")
    assert called(project, results).returncode == 0 and (results / "report.html").exists()
    small_disk("ro")
    said = one_line(called(project, results), 2)
    assert f"results folder {results} cannot be written: Read-only file system" in said


@pytest.mark.parametrize(
    ("message", "free", "expected"),
    [
        ("[Errno 28] No space left on device: 'a.csv'", 1 << 30, "no space left: free some"),
        ("Error while serializing: I/O error: No space left on device (os error 28)", 1 << 30, "no space left"),
        ("PytorchStreamWriter failed writing file data/0: file write failed", 1000, "no space left"),
        ("[Errno 27] File too large", 1 << 30, "the limit of a file's size is reached: raise it (ulimit -f)"),
        ("[Errno 30] Read-only file system: 'a.csv'", 1 << 30, "the disk is read-only: make it writable"),
        ("song.wav: is empty", 1 << 30, ""),
    ],
    ids=["a table", "safetensors", "torch", "a limit", "read-only", "something else"],
)
def test_what_fails_for_the_disk_says_so(tmp_path, monkeypatch, message, free, expected):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    said = faults.fault(message, tmp_path / "not made yet")
    assert said.startswith(f"{tmp_path / 'not made yet'}: {expected}") if expected else said == ""


def test_a_run_of_its_own_says_so_too(tmp_path, monkeypatch, capsys):
    def fail(run):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "last.ckpt"))

    monkeypatch.setattr(signals, "listen", lambda: None)
    monkeypatch.setattr(train, "_train", fail)
    assert train.main(["--profile", "smoke", "--stage", "pretrain", f"results={tmp_path}"]) == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path}/last.ckpt: no space left: free some, then the same call")
