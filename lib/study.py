"""Runs a study: the notebooks in order, each once, then the report. ``python -m lib.study PROFILE [key=value ...]``."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib import UserError, disk, provenance, runs
from lib import profile as profiles
from lib.profile import PROFILES, ROOT, Profile

_PARAMETERS = {"nano": 2e6, "tiny": 4e6, "mini": 8e6, "demo": 12e6, "small": 55e6, "medium": 87e6, "large": 168e6}
"""Upper bounds of the parameter counts (tiny to demo at 16 kHz), for the estimate of disk space."""


HOMES = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
"""Variables that keep Jupyter out of the user's home."""


class NotebookError(Exception):
    """A notebook failed; the message is one line."""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 done, 1 a notebook failed, 2 wrong call (nothing started), 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a script's background job has it
            signal.signal(number, _interrupt)
    started, results = time.monotonic(), ROOT
    try:
        if not arguments:
            raise UserError("usage: python -m lib.study PROFILE [key=value ...]")
        name, *overrides = arguments
        profile = profiles.load(name, overrides)
        results = profiles.resolve(profile.results)
        check(profile, results)
        if profile.corpus.labeled == profiles.MUSDB or profile.corpus.unlabeled.startswith(profiles.FMA):
            from lib import corpora  # here, for it takes a second

            corpora.provide(profile)
        with locked(results):
            run(profile, results, {"profile": _portable(profiles.find(name)), "overrides": overrides})
        print(f"done after {time.monotonic() - started:.0f} s: {results / 'report.html'}")
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if not (fault := disk.fault(error, results)):
            raise
        print(fault, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same call goes on from the last checkpoint", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: object) -> None:
    # what waits for the kernel would report its end as a fault, on a machine slow enough to let it look
    logging.disable()
    raise KeyboardInterrupt


def check(profile: Profile, results: Path) -> None:
    """Raises: UserError if a folder of music does not exist or the disk cannot hold what is planned."""
    corpus = profile.corpus
    for key, parts in (("labeled", (corpus.labeled,)), ("unlabeled", corpus.unlabeled_parts)):
        for folder in (profiles.resolve(part) for part in parts if not profiles.is_named(part)):
            if not folder.is_dir():
                raise UserError(f"corpus.{key}: there is no folder {folder}: name one that exists, or 'rendered'")
    parent = next(folder for folder in (results, *results.parents) if folder.is_dir())
    written = sum(path.stat().st_size for path in results.rglob("*") if path.is_file())
    needed, free = planned_bytes(profile) / 1e9, (shutil.disk_usage(parent).free + written) / 1e9
    if needed > free:
        raise UserError(f"{results}: {needed:.1f} GB needed, {free:.1f} GB free: make room, or set results=FOLDER")


def planned_bytes(profile: Profile) -> float:
    """Disk space that a study takes at most: rendered songs, the weights of every run, one run's checkpoints."""
    rendered, tuning, ablations = profile.corpus.rendered, profile.finetune, profile.ablations
    total = 0.0
    if profile.corpus.labeled == "rendered":
        songs = rendered.train_songs + rendered.validation_songs + rendered.test_songs
        total += songs * rendered.song_seconds * profile.audio.rate * 2 * 3 * 5  # channels, bytes, files
    if "rendered" in profile.corpus.unlabeled_parts:
        total += (
            (1 + profile.probes.redealt) * rendered.unlabeled_songs * rendered.song_seconds * 32_000
        )  # MP3, at most 256 kbit/s
    regime, budgets = profile.regime, len(tuning.labeled_songs)
    variants = profile.probes.redealt + profile.probes.same_song
    pretrainings = len(profile.pretrain.seeds) + len(profile.probes.seeds) * (1 + variants)
    schedules = len(regime.learning_rates) * len(regime.body_rates) * len(regime.steps)
    searched = (1 + len(regime.transfers)) * schedules * len(regime.searched_songs)
    mapped = (1 + 2 * len(regime.labeled_songs)) * len(regime.pretrain_steps)
    count = pretrainings + len(regime.seeds) * (searched + mapped)
    count += len(tuning.seeds) * budgets * (1 + len(tuning.transfers) + len(tuning.controls))
    count += 3 * len(ablations.seeds) * sum(len(axis.levels) for axis in ablations.axes)
    # two copies stay of each run; while one trains, its best checkpoints and the last with the optimiser's moments
    copies = 2 * count + max(profile.pretrain.average_best, tuning.average_best) + 4
    return total + copies * 4 * _PARAMETERS[profile.model.size]


@contextlib.contextmanager
def locked(results: Path) -> Iterator[None]:
    """Hold the results folder for this process. Raises: UserError if it cannot be written or another one holds it."""
    try:
        (results / "runs").mkdir(parents=True, exist_ok=True)
        lock = open(results / "runs" / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"results folder {results} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            raise UserError(f"{results} is in use by process {holder}: wait for it, or set results=FOLDER") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def run(profile: Profile, results: Path, parameters: dict) -> None:
    """Execute the notebooks whose inputs or outputs changed, and all that follow them; then write the report."""
    notebooks = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    stamps = {path: results / "runs" / "stamps" / f"{path.stem}.json" for path in notebooks}
    keys = _keys(profile, notebooks)
    first = _first_outdated(results, stamps, keys)
    for path in notebooks[:first]:
        print(f"{path.stem}: unchanged")
    if first == len(notebooks) and (results / "report.html").exists():
        return
    _sweep(results)
    # a later notebook may build on what an earlier one is about to rewrite
    for path in notebooks[first:]:
        stamps[path].unlink(missing_ok=True)
    provenance.update(results, **provenance.describe(profile))
    with kernel_environment():
        for path in notebooks[first:]:
            print(f"{path.stem} ({notebooks.index(path) + 1} of {len(notebooks)}) ...", flush=True)
            started, before = time.monotonic(), _products(results)
            with provenance.stage(results, path.stem):
                execute(path, results, parameters)
            changed = [name for name, state in _products(results).items() if before.get(name) != state]
            files = {name: _sha256(results / name) for name in changed}
            runs.write_json(stamps[path], {"key": keys[path], "files": files})
            provenance.files(results, path.stem, files)
            print(f"{path.stem}: {time.monotonic() - started:.0f} s", flush=True)
        from lib import report

        report.write(results)


def execute(notebook: Path, results: Path, parameters: dict) -> None:
    """Run one notebook by papermill into ``results/notebooks``; what it writes to stderr is shown as it comes.

    Raises: NotebookError; the notebook as far as it came is then kept as ``NAME.failed.ipynb``.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    target, partial = results / "notebooks" / notebook.name, results / "runs" / "notebooks" / notebook.name
    failed = target.with_suffix(".failed.ipynb")
    for folder in (target.parent, partial.parent):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        done = papermill.execute_notebook(
            notebook, partial, parameters, kernel_name="python3", language="python", cwd=ROOT, progress_bar=False,
            stderr_file=sys.stderr, coalesce_streams=True, shutdown_kernel="immediate",
            config=Config(KernelManager=_sockets()),
            # else what a kernel's own processes say is shown twice
            extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        )  # fmt: skip
    except PapermillExecutionError as error:
        os.replace(partial, failed)
        if fault := disk.fault(error.evalue, results):
            raise NotebookError(f"{notebook.stem} failed: {fault}") from None
        kind = "" if error.ename == UserError.__name__ else f"{error.ename}: "
        message = " ".join(error.evalue.split())[:400]
        raise NotebookError(f"{notebook.stem} failed: {kind}{message} (see {failed})") from None
    except DeadKernelError:
        raise NotebookError(f"{notebook.stem} failed: its process was killed, most likely for lack of memory") from None
    # the executed notebook is committed and read elsewhere: it names no folder of this machine
    done.metadata["papermill"].update(input_path=f"notebooks/{notebook.name}", output_path=notebook.name)
    papermill.iorw.write_ipynb(done, str(partial))
    os.replace(partial, target)
    failed.unlink(missing_ok=True)


@contextlib.contextmanager
def kernel_environment() -> Iterator[None]:
    """Let kernels be this very interpreter, with this environment's programs and without anyone's home folder."""
    # a short path: kernels are reached by sockets in there, whose names may not exceed 107 characters
    with tempfile.TemporaryDirectory(prefix="study-", ignore_cleanup_errors=True) as home:
        os.environ |= dict.fromkeys((*HOMES, "MPLCONFIGDIR"), home)
        _set_paths()
        yield


def _sockets() -> dict[str, str]:
    """How a kernel is reached: by sockets among its home's files, since a port may be taken between choice and use, and
    sockets in the working folder by another study in it."""
    return {"transport": "ipc", "ip": os.path.join(os.environ[HOMES[-1]], "kernel")}


def _set_paths() -> None:
    os.environ["JUPYTER_PATH"] = os.path.join(sys.prefix, "share", "jupyter")
    os.environ["PATH"] = os.pathsep.join([os.path.join(sys.prefix, "bin"), os.environ.get("PATH", os.defpath)])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "20")  # a log wants no thousand bars


def _keys(profile: Profile, notebooks: Sequence[Path]) -> dict[Path, str]:
    """Per notebook, a hash over everything that can change what it shows."""
    music = [provenance.corpus_fingerprint(profile, key, times=True) for key in ("labeled", "unlabeled")]
    shared = [profile, music, provenance.lib_fingerprint(), _sha256(ROOT / "requirements.txt")]
    return {path: runs.fingerprint([*shared, _sha256(path)]) for path in notebooks}


def _first_outdated(results: Path, stamps: dict[Path, Path], keys: dict[Path, str]) -> int:
    read, expected = [], {}
    for path in stamps.values():
        try:
            stamp = runs.read_facts(path, "key", "files")
            expected |= stamp["files"]  # notebooks may write to the same table: the last one's version counts
            read.append(stamp)
        except (UserError, TypeError, ValueError):
            read.append({"key": None, "files": {}})
    for number, (notebook, stamp) in enumerate(zip(stamps, read, strict=True)):
        whole = all(_sha256(results / name) == expected[name] for name in stamp["files"])
        if stamp["key"] != keys[notebook] or not whole or not (results / "notebooks" / notebook.name).exists():
            return number
    return len(read)


def _sweep(results: Path) -> None:
    """Remove what a kill in the middle of writing left; it was to get its name when whole (`lib.runs.atomic`)."""
    with runs.held(results / "runs" / "skipped.lock"):  # a run of its own may be writing that table
        for folder in ("", "tables", "figures", "notebooks", "runs/stamps"):
            for path in filter(Path.is_file, (results / folder).glob(".*")):
                path.unlink()


def _products(results: Path) -> dict[str, tuple[int, int]]:
    """Tables and figures, with what tells a rewritten file from an untouched one."""
    files = (path for folder in ("tables", "figures") for path in (results / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(results)): (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _portable(path: Path) -> str:
    """A profile as the executed notebooks name it: by name, else relative to the project if it lies in there."""
    path = path.resolve()
    if path.parent == PROFILES:
        return path.stem
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
