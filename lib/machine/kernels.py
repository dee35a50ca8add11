"""Notebook kernels that are this very interpreter, and leave nothing in anyone's home folder."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import ClassVar

from jupyter_client import AsyncKernelManager

from lib import ROOT

HOMES = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
"""Variables that keep Jupyter out of the user's home."""


class Kernel(AsyncKernelManager):
    """Manages a kernel, and keeps the exit status of one that ended by itself."""

    status: ClassVar[int | None] = None

    async def is_alive(self) -> bool:
        alive = await super().is_alive()
        if not alive and self.has_kernel:
            Kernel.status = await self.provisioner.poll()
        return alive


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
