"""Shared fixtures: reference vectors, a separator small enough to train inside a test, and a server of archives.

They import what they need: the process that only deals out tests to others should not wait for torch.
"""

from __future__ import annotations

import http.server
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lib  # noqa: F401 (ffmpeg is on the PATH from here on)

if TYPE_CHECKING:
    import torch

# What is trained here is too small to be shared by threads: they would wait for each other most of the time. torch
# reads this when it is imported, and so do processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# With it, jsonschema could check IRIs, of which there are none; its import takes two seconds.
sys.modules["rfc3987_syntax"] = None
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job of a shell; its children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
QUICK = {
    *("model", "profile", "data/test_segments.py"),
    *("experiments/test_intervals.py", "experiments/test_probes.py"),
    *("test_losses.py", "test_mixing.py"),
    *("test_order.py", "test_pinned.py", "test_properties.py", "test_scoring.py"),
    *("test_training.py", "test_transfer.py", "test_trust.py"),
}
"""Files and folders of tests that have the marker ``quick``."""
LONGEST = (
    *("pipeline/test_smoke.py", "listening/test_browser.py", "pipeline/test_paper.py", "machine/test_distributed.py"),
    *("pipeline/test_real.py", "machine/test_gpu.py", "machine/test_faults.py", "experiments/test_jobs.py"),
    *("hostile/test_hostile.py", "test_separate.py", "test_randomness.py", "test_training.py"),
    *("model/test_checkpoints.py", "test_pinned.py"),
)
"""Files that come first, so that no process is left alone with a long one at the end."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m quick`` other files are not even imported."""
    aside = config.option.markexpr == "quick" and collection_path.name.startswith("test_")
    return True if aside and not _is_quick(collection_path) else None


@pytest.hookimpl(tryfirst=True)  # before what is deselected by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_quick(item.path):
            item.add_marker(pytest.mark.quick)
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def _is_quick(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / name) for name in QUICK)


@pytest.fixture
def golden():
    """Load ``golden/NAME.npz`` as tensors by name."""
    import numpy as np
    import torch

    from tests.toys import GOLDEN

    def load(name: str) -> dict[str, torch.Tensor]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
            return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}

    return load


@pytest.fixture
def tiny():
    """A small separator with five outputs at 8 kHz, in evaluation mode."""
    from lib.model.separator import Separator

    return Separator.from_size("tiny", 5, seed=3, rate=8000, n_fft=256, hop=64, band_scale=4.0, dropout=0.0).eval()


@pytest.fixture(scope="session")
def fork_server():
    """Starts processes as forks of one that has imported torch and trainings once: twenty times as fast as new ones."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.machine.one_of_many", "lightning_fabric", "torch.distributed"])
    return context


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; each number in ``server.breaks`` ends one answer after so many bytes."""

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if self.path.lstrip("/") not in server.files:
            return self.send_error(server.missing)
        data = server.files[self.path.lstrip("/")]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: server.breaks.pop(0) if server.breaks else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of ``files`` by name, at ``url``; ``asked`` lists the ranges of all requests."""
    from lib.data import download

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vars(found).update(files={}, asked=[], breaks=[], ranges=True, missing=404)
    found.url = f"http://127.0.0.1:{found.server_port}/"
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
