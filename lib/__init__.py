"""Mixture-invariant pre-training for music source separation: model, losses, data flow and scores of the study."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

# Set-up installs ffmpeg and ffprobe beside the interpreter; kernels start without activation.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.join(sys.prefix, "bin")])

for _stream in filter(None, (sys.stdout, sys.stderr)):
    if hasattr(_stream, "reconfigure"):  # names of files may hold what a terminal cannot show, or no encoding has
        _stream.reconfigure(errors="backslashreplace")

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

STEMS = ("bass", "drums", "vocals", "other")
"""The four stems, in the order of every array."""

MESSAGE = 1000
"""Maximum length of a message in characters."""


class UserError(Exception):
    """An error the user can fix: one line that names the file or field, what is wrong and what to do."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: str) -> str:
    """``text`` on one line, without control characters, truncated to about `MESSAGE` characters."""
    if len(text) > MESSAGE:
        text = f"{text[: MESSAGE // 2]} ... {text[-MESSAGE // 3 :]}"
    text = " ".join(filter(None, map(str.strip, text.splitlines())))
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _report(kind: type, error: BaseException, trace: object, report: Callable = sys.excepthook) -> None:
    """An interrupted call ends with one line, wherever it was."""
    print("interrupted", file=sys.stderr) if kind is KeyboardInterrupt else report(kind, error, trace)


sys.excepthook = _report
