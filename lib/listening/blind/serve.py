"""Serve the blind test of a profile with Voilà: ``python -m lib.listening.blind.serve PROFILE [key=value]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat

from lib import ROOT, UserError
from lib import profile as profiles
from lib.machine.kernels import HOMES

LOOPBACK = "127.0.0.1"
IDLE_SECONDS = 3600  # a participant may take a break


def main(arguments: Sequence[str]) -> int:
    """Exit status: that of Voilà, or 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m lib.listening.blind.serve", description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as listening.blind.test=abx")
    parser.add_argument("--port", type=int, default=8866, help="default: 8866")
    parser.add_argument(
        "--network",
        metavar="ADDRESS",
        help="address of this machine to listen on (0.0.0.0: all). Participants then need a token: LISTENING_TOKEN, or "
        "a random one, which is printed. There is no encryption: outside a trusted network, use a TLS proxy or an SSH "
        "tunnel",
    )
    call = parser.parse_args(arguments)
    if not 1 <= call.port <= 65535:
        parser.error("--port from 1 to 65535")
    if call.network is not None and not re.fullmatch(r"[0-9A-Za-z.:-]+", call.network):
        parser.error("--network takes an address of this machine, such as 0.0.0.0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # otherwise Voilà outlives this process
    try:
        prepare(call.profile, call.overrides)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="listening-") as folder:
        token = os.environ.get("LISTENING_TOKEN") or secrets.token_urlsafe(16) if call.network else ""
        notebook = write_notebook(Path(folder), call.profile, call.overrides)
        home = write_settings(Path(folder), token)
        host = call.network or LOOPBACK
        print(f"Listening test: {address(host, call.port, token)}", flush=True)
        process = subprocess.Popen(command(notebook, host, call.port), env=environment(home))
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()
        process.terminate()
        return process.wait()


def prepare(profile: str, overrides: Sequence[str]) -> None:
    """Separate the passages of the test and print its protocol. Raises: UserError."""
    from lib import listening
    from lib.listening.blind import design
    from lib.study import Study

    study = Study(profiles.load(profile, overrides))
    settings = study.profile.listening.blind
    passages = design.items(settings, listening.excerpts(study, settings.songs))
    compressed = " (Vorbis, from the listening set: for trial runs only)"
    source = compressed if listening.plays_examples(study) else ""
    print(f"{settings.test}: {len(passages)} passages{source}; {' '.join(design.protocol(settings, passages))}")
    print(f"Answers: {listening.folder(study)}")


def write_notebook(folder: Path, profile: str, overrides: Sequence[str]) -> Path:
    """The one-cell notebook to serve, alone in ``folder``: the server has access to nothing else."""
    source = ["import sys", f"sys.path.insert(0, {str(ROOT)!r})", "from lib import listening"]
    source.append(f"listening.blind_test({profile!r}, {list(overrides)!r})")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(source))])
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata["title"] = "Listening test"
    path = folder / "listening.ipynb"
    nbformat.write(book, path)
    return path


def write_settings(folder: Path, token: str) -> Path:
    """A private home of the server; the token is in a file, since command lines are public."""
    home = folder / ".home"
    home.mkdir(mode=0o700)
    if token:
        (home / "voila.json").write_text(json.dumps({"Voila": {"token": token}}), encoding="utf-8")
    return home


def command(notebook: Path, host: str, port: int) -> list[str]:
    """Voilà for a notebook, without sources and tracebacks, which may reveal conditions; idle kernels are culled."""
    call = [sys.executable, "-m", "voila", str(notebook), "--no-browser", f"--Voila.ip={host}", f"--port={port}"]
    call += ["--strip_sources=True", "--show_tracebacks=False", "--Voila.port_retries=0"]
    return [
        *call,
        f"--MappingKernelManager.cull_idle_timeout={IDLE_SECONDS}",
        "--MappingKernelManager.cull_interval=60",
    ]


def environment(home: Path) -> dict[str, str]:
    """Kernel and extensions of this interpreter, independent of the user's."""
    shared = {"JUPYTER_PATH": os.path.join(sys.prefix, "share", "jupyter"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return os.environ | dict.fromkeys(HOMES, str(home)) | shared


def address(host: str, port: int, token: str) -> str:
    """The URL for participants."""
    named = socket.gethostname() if host == "0.0.0.0" else host
    return f"http://{named}:{port}/" + (f"?token={token}" if token else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
