"""Cases of bad input by kind, each with what must come of it; `driver` runs them, each in a process of its own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib import UserError

REFUSED, SKIPPED, RESULT = "refused", "skipped", "result"


class Skip(Exception):
    """What a reader listed as left out; the message is the reason."""


@dataclass(frozen=True)
class Case:
    """``act`` is called with an empty folder. It must be refused in one line, or skip with a reason, that holds
    ``says`` (a regular expression), or, without ``says``, return what equals ``gives``."""

    name: str
    act: Callable[[Path], object]
    says: str = ""
    gives: object = None
    how: str = REFUSED

    @property
    def expected(self) -> str:
        return self.how if self.says else RESULT


def called(main: Callable[[Sequence[str]], int], *arguments: object) -> str:
    """What a command prints; raises `UserError` with its last line if its status says that the call was wrong."""
    out, error = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
    lines = [line.rsplit("\r", 1)[-1] for line in error.getvalue().split("\n") if line]  # behind bars of progress
    if status in (1, 2) and lines and "Traceback" not in error.getvalue():
        assert len(lines) == 1 or lines[0].startswith("usage:"), lines
        raise UserError(lines[-1])
    assert status == 0, (status, lines)
    return out.getvalue()


def written(path: Path, content: bytes | str) -> Path:
    """``path`` with the content of a file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path
