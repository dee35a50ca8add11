"""Runs cases in forks with a limit of memory and time: ``python -m tests.hostile.driver OUT.jsonl [NAME ...]``.

torch is imported once, by the process that forks. A fork takes cases until one of them ends it; then the next one goes
on. Without names all cases run.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from lib import UserError
from tests.hostile import REFUSED, RESULT, SKIPPED, Case, Skip
from tests.hostile.cases import CASES

GIGABYTES, SECONDS = 4, 300
"""What a case may take beyond what the process holds before it, and when it is taken for a hang on a busy machine."""


def outcome(case: Case) -> dict:
    """What came of a case, in an empty folder: its kind (refused, skipped, result, an error) and text or value.

    ``strays`` are files that it left outside of that folder, ``said`` what it printed if that holds a traceback.
    """
    with tempfile.TemporaryDirectory(prefix="hostile-") as outer, tempfile.TemporaryFile() as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        folder = Path(outer) / "inner"
        folder.mkdir()
        os.chdir(folder)
        kind, value = _acted(case, folder)
        os.chdir("/")
        log.seek(0)
        said = log.read().decode("utf-8", "replace")
        strays = sorted(path.name for path in Path(outer).iterdir() if path != folder)
    return {"kind": kind, "value": value, "said": said if "Traceback" in said else "", "strays": strays}


def _acted(case: Case, folder: Path) -> tuple[str, object]:
    try:
        return RESULT, case.act(folder)
    except UserError as error:
        return REFUSED, str(error)
    except Skip as error:
        return SKIPPED, str(error)
    except BaseException as error:
        return type(error).__name__, "".join(traceback.format_exception(error))[-1500:]


def _serve(cases: Sequence[Case], pipe: int) -> None:
    """In the fork: a line of JSON a case."""
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + (GIGABYTES << 30), hard))
    with open(pipe, "w", encoding="utf-8") as answers:
        for case in cases:
            print(json.dumps(outcome(case)), file=answers, flush=True)


def run(cases: Sequence[Case]) -> Iterator[dict]:
    """The outcome of every case in turn; of kind "killed" if its process was ended, or it took too long."""
    left = list(cases)
    while left:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            try:
                _serve(left, theirs)
            finally:
                os._exit(0)
        os.close(theirs)
        with open(ours, "rb", buffering=0) as answers:
            for line in _lines(answers):
                left.pop(0)
                yield json.loads(line)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if left:
            left.pop(0)
            yield {"kind": "killed", "value": f"hangs, or status {status}", "said": "", "strays": []}


def _lines(pipe) -> Iterator[bytes]:
    """Lines until the end of the pipe, or until none comes any more."""
    held = b""
    while select.select([pipe], [], [], SECONDS)[0] and (part := pipe.read(1 << 16)):
        *lines, held = (held + part).split(b"\n")
        yield from lines


def main(arguments: list[str]) -> int:
    """Write what came of the cases to a file, a line of JSON a case."""
    target, *names = arguments
    chosen = [case for case in CASES if not names or case.name in names]
    with open(target, "w", encoding="utf-8") as file:
        for case, found in zip(chosen, run(chosen), strict=True):
            print(json.dumps({"name": case.name, **found}), file=file, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
