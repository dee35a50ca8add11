"""Run the notebooks of a study and write its report: ``python -m lib.pipeline.notebooks PROFILE [key=value ...]``."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from filelock import Timeout

from lib import ROOT, UserError
from lib import profile as profiles
from lib.machine import faults
from lib.machine.kernels import Kernel, _sockets, kernel_environment
from lib.machine.processes import ended
from lib.pipeline.space import check
from lib.profile.fields import PROFILES, Blind, Profile
from lib.store import provenance
from lib.store.files import file_lock, read_facts, write_json
from lib.store.fingerprints import fingerprint

LISTENING = "05_listening"
"""The notebook with the blind test. It depends on estimates, and thus on weights."""


class NotebookError(Exception):
    """A notebook failed."""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 done, 1 a notebook failed, 2 wrong call (nothing started), 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored in a script's background job
            signal.signal(number, _interrupt)
    started, results = time.monotonic(), ROOT
    try:
        if not arguments:
            raise UserError("usage: python -m lib.pipeline.notebooks PROFILE [key=value ...]")
        name, *overrides = arguments
        profile = profiles.load(name, overrides)
        results = profiles.project_path(profile.results)
        check(profile, results)
        named = filter(profiles.is_named, chain(*profile.corpus.music.values()))
        if {*named} - {profiles.RENDERED}:
            from lib.data import corpora  # takes a second

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
        if not (fault := faults.fault(error, results)):
            raise
        print(fault, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same call resumes from the last checkpoint", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: object) -> None:
    # nbclient may report the end of the kernel as an error
    logging.disable()
    raise KeyboardInterrupt


@contextlib.contextmanager
def locked(results: Path) -> Iterator[None]:
    """Lock the results folder. Raises: UserError if it is not writable or another process holds it."""
    path = results / "runs" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock(path).acquire(blocking=False)
    except Timeout:
        holder = path.read_text("utf-8").strip()
        raise UserError(f"{results} is in use by process {holder}: wait for it, or set results=FOLDER") from None
    except OSError as error:
        raise UserError(f"results folder {results} cannot be written: {error.strerror}") from None
    with lock:
        path.write_text(f"{os.getpid()}\n", "utf-8")
        yield


def paths() -> list[Path]:
    """The notebooks of a study, in their order."""
    return sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def run(profile: Profile, results: Path, parameters: dict) -> None:
    """Execute all notebooks from the first whose inputs or outputs changed, then write the report."""
    notebooks = paths()
    stamps = {path: results / "runs" / "stamps" / f"{path.stem}.json" for path in notebooks}
    keys = _keys(profile, results, notebooks)
    first = _first_outdated(results, stamps, keys)
    for path in notebooks[:first]:
        print(f"{path.stem}: unchanged")
    if first == len(notebooks) and (results / "report.html").exists():
        return
    if parameters.get("overrides") and stamps[notebooks[-1]].exists():
        again = ", ".join(path.stem for path in notebooks[first:])
        print(f"{results} holds another finished study: {again} are replaced; results=FOLDER keeps it")
    _sweep(results)
    # later notebooks may read the tables of earlier ones
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
            _remove_stale(results, path.stem, changed)
            write_json(stamps[path], {"key": keys[path], "files": files})
            provenance.files(results, path.stem, files)
            print(f"{path.stem}: {time.monotonic() - started:.0f} s", flush=True)
        _remove_unheard(results / "notebooks")
        from lib.report import page

        page.write(results)


def execute(notebook: Path, results: Path, parameters: dict) -> None:
    """Execute a notebook by papermill into ``results/notebooks``, with its stderr on ours.

    Raises: NotebookError; the partial notebook is then kept as ``NAME.failed.ipynb``.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from lib.listening.export import sounds_beside

    target, partial = results / "notebooks" / notebook.name, results / "runs" / "notebooks" / notebook.name
    failed = target.with_suffix(".failed.ipynb")
    for folder in (target.parent, partial.parent):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        done = papermill.execute_notebook(
            notebook, partial, parameters, kernel_name="python3", language="python", cwd=ROOT, progress_bar=False,
            stderr_file=sys.stderr, coalesce_streams=True, shutdown_kernel="immediate",
            kernel_manager_class=Kernel, config=Config(KernelManager=_sockets()),
            # otherwise output of the kernel's child processes is shown twice
            extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        )  # fmt: skip
    except PapermillExecutionError as error:
        os.replace(partial, failed)
        if fault := faults.fault(error.evalue, results):
            raise NotebookError(f"{notebook.stem} failed: {fault}") from None
        kind = "" if error.ename == UserError.__name__ else f"{error.ename}: "
        message = " ".join(error.evalue.split())[:400]
        raise NotebookError(f"{notebook.stem} failed: {kind}{message} (see {failed})") from None
    except DeadKernelError:
        raise NotebookError(f"{notebook.stem} failed: its process {ended(Kernel.status)}") from None
    # executed notebooks are committed: no path of this machine
    done.metadata["papermill"].update(input_path=f"notebooks/{notebook.name}", output_path=notebook.name)
    sounds_beside(done, target.parent)
    papermill.iorw.write_ipynb(done, str(partial))
    os.replace(partial, target)
    failed.unlink(missing_ok=True)


def _remove_unheard(folder: Path) -> None:
    """Remove sounds that no executed notebook plays."""
    pages = "".join(path.read_text("utf-8") for path in folder.glob("*.ipynb"))
    for sound in (folder / "sound").glob("*"):
        if sound.name not in pages:
            sound.unlink()


def _remove_stale(results: Path, notebook: str, written: Sequence[str]) -> None:
    """Remove figures that an earlier version of a notebook drew."""
    for name, record in provenance.read(results).get("files", {}).items():
        if name.startswith("figures/") and record["notebook"] == notebook and name not in written:
            for kind in (".svg", ".png"):
                (results / name).with_suffix(kind).unlink(missing_ok=True)


def _keys(profile: Profile, results: Path, notebooks: Sequence[Path]) -> dict[Path, str]:
    """Per notebook, a hash over all of its inputs. The blind test and its answers are inputs of `LISTENING` alone."""
    music = [provenance.corpus_fingerprint(profile, key, times=True) for key in profile.corpus.music]
    shared = [music, provenance.lib_fingerprint(), _sha256(ROOT / "requirements.txt")]
    others = [replace(profile, listening=replace(profile.listening, blind=Blind()))]
    answers = sorted((results / "listening").glob("*/answers/*.jsonl"))
    own = {LISTENING: [profile, *((path.name, _sha256(path)) for path in answers)]}
    return {path: fingerprint([*shared, *own.get(path.stem, others), _sources(path)]) for path in notebooks}


def _sources(notebook: Path) -> list:
    """Types, tags and sources of the cells, without outputs. Raises: UserError if the file is not a notebook."""
    cells = read_facts(notebook, "cells")["cells"]
    return [[cell["cell_type"], cell["metadata"].get("tags"), "".join(cell["source"])] for cell in cells]


def _first_outdated(results: Path, stamps: dict[Path, Path], keys: dict[Path, str]) -> int:
    read, expected = [], {}
    for path in stamps.values():
        try:
            stamp = read_facts(path, "key", "files")
            expected |= stamp["files"]  # the last notebook to write a table owns it
            read.append(stamp)
        except (UserError, TypeError, ValueError):
            read.append({"key": None, "files": {}})
    for number, (notebook, stamp) in enumerate(zip(stamps, read, strict=True)):
        whole = all(_sha256(results / name) == expected[name] for name in stamp["files"])
        if stamp["key"] != keys[notebook] or not whole or not (results / "notebooks" / notebook.name).exists():
            return number
    return len(read)


def _sweep(results: Path) -> None:
    """Remove temporary files of killed writes (see `lib.store.files.atomic`)."""
    with file_lock(results / "runs" / "skipped.lock"):  # a separate training may be writing that table
        for folder in ("", "tables", "figures", "notebooks", "runs/stamps"):
            for path in filter(Path.is_file, (results / folder).glob(".*")):
                path.unlink()


def _products(results: Path) -> dict[str, tuple[int, int]]:
    """Tables and figures (SVG, not PNG: the same drawing), with modification time and inode to detect rewrites."""
    files = [*(results / "tables").rglob("*.csv"), *(results / "figures").rglob("*.svg")]
    return {str(path.relative_to(results)): (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _portable(path: Path) -> str:
    """A profile as named in executed notebooks: by name, by a path in the project, or by an absolute path."""
    path = path.resolve()
    if path.parent == PROFILES:
        return path.stem
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
