"""What tests in a real browser share: servers with homes of their own, Debian's Chromium, and a tap on its sound."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anywidget
import ipywidgets
import nbformat
import numpy as np

from lib import ROOT

CHROMIUM = "/usr/bin/chromium"
MISSING = None if os.path.exists(CHROMIUM) else f"needs {CHROMIUM} (apt-get install chromium)"
PATIENCE = 500_000  # milliseconds: kernels that import torch start slowly on a busy machine

TAP = """
(() => {
  window.captured = [];
  const code = `registerProcessor("tap", class extends AudioWorkletProcessor {
    process([input]) {
      this.port.postMessage({frame: currentFrame, samples: input[0]?.slice() ?? new Float32Array(128)});
      return true;
    }
  });`;
  const url = URL.createObjectURL(new Blob([code], {type: "text/javascript"}));
  const Original = window.AudioContext;
  window.AudioContext = class extends Original {
    constructor(options) {
      super(options);
      window.context = this;
      this.tap = this.createGain();
      this.audioWorklet.addModule(url).then(() => {
        const node = new AudioWorkletNode(this, "tap");
        node.port.onmessage = ({data}) => window.captured.push(data);
        this.tap.connect(node);
      });
    }
  };
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target === this.context.destination && this.context.tap) connect.call(this, this.context.tap);
    return connect.call(this, target, ...rest);
  };
  document.addEventListener("keydown", (event) => {
    if (window.context) (window.pressed ??= []).push([event.key, window.context.currentTime]);
  }, true);
})();
"""

COLLECT = """() => {
  const blocks = window.captured;
  if (!blocks.length) return ["", 0];
  const first = blocks[0].frame, last = blocks.at(-1);
  const all = new Float32Array(last.frame + last.samples.length - first).fill(NaN);
  for (const {frame, samples} of blocks) all.set(samples, frame - first);
  const bytes = new Uint8Array(all.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return [btoa(text), first];
}"""

MOUNT = """async (sent) => {
  const revived = (value) => {
    if (value === null || typeof value !== "object") return value;
    if (value.base64 !== undefined)
      return new DataView(Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0)).buffer);
    if (Array.isArray(value)) return value.map(revived);
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, revived(part)]));
  };
  const state = revived(sent), listeners = {};
  const fire = (event, ...facts) => listeners[event]?.forEach((listener) => listener(...facts));
  const model = {
    get: (name) => state[name],
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: () => {},
    send: async (message) => {
      const answer = await tell(message);
      for (const [name, value] of Object.entries(answer.state)) {
        if (JSON.stringify(value) === JSON.stringify(sent[name])) continue;
        [sent[name], state[name]] = [value, revived(value)];
        fire(`change:${name}`);
      }
      answer.replies.forEach((reply) => fire("msg:custom", reply));
    },
  };
  document.head.append(Object.assign(document.createElement("style"), { textContent: state._css }));
  const view = await import(URL.createObjectURL(new Blob([state._esm], { type: "text/javascript" })));
  window.render = () => view.default.render({ model, el: document.body });
  await render();
}"""


def heard(page) -> tuple[np.ndarray, int]:
    """What the page has sent to the loudspeaker so far: left channel [T], and the number of its first frame."""
    encoded, first = page.evaluate(COLLECT)
    sound = np.frombuffer(base64.b64decode(encoded), np.float32)
    begun = int(np.append(-1, np.flatnonzero(np.isnan(sound)))[-1]) + 1  # a worklet may miss frames after its first
    return sound[begun:], first + begun


def lag(sound: np.ndarray, signal: np.ndarray) -> int:
    """Where in ``signal``, played round and round, ``sound`` starts."""
    spectrum = np.fft.rfft(signal) * np.conj(np.fft.rfft(sound, len(signal)))
    return int(np.fft.irfft(spectrum, len(signal)).argmax())


def explained(sound: np.ndarray, signal: np.ndarray, at: int) -> np.ndarray:
    """Whether each sample of ``sound`` is that of ``signal`` from sample ``at`` on, played round and round."""
    return np.abs(sound - signal[(at + np.arange(len(sound))) % len(signal)]) < 1e-4


def turns(heard: np.ndarray) -> list[tuple[int, int, int]]:
    """(signal, first sample, last sample) of what sounds one after the other, from [signals, T]; at least 100 each."""
    found = []
    for number, row in enumerate(heard):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
        found += [(first, stop - 1, number) for first, stop in edges.reshape(-1, 2) if stop - first >= 100]
    return [(number, int(first), int(last)) for first, last, number in sorted(found)]


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator:
    """A fresh, headless Chromium; its pages have the tap in place."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=CHROMIUM, headless=True, args=flags, viewport={"width": 1280, "height": 1000}
        )
        try:
            context.add_init_script(TAP)
            context.set_default_timeout(PATIENCE)
            yield context
        finally:
            context.close()


def mount(page, widget: anywidget.AnyWidget) -> None:
    """Show a widget on a page of its own, with no Jupyter between them: what its view sends is answered at once."""
    replies = []
    widget.send = lambda content, buffers=None: replies.append(content)

    def told(message: dict) -> dict:
        replies.clear()
        widget._handle_custom_msg(message, [])
        return {"state": portable({key: getattr(widget, key) for key in names}), "replies": replies}

    names = [name for name in widget.keys if name not in ipywidgets.DOMWidget.class_trait_names()]
    page.route("http://localhost/", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto("http://localhost/")
    page.expose_function("tell", told)
    page.evaluate(MOUNT, portable({name: getattr(widget, name) for name in names}))


def portable(value: object) -> object:
    """A widget's state as JSON; bytes become ``{"base64": text}``."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: portable(part) for key, part in value.items()}
    return [portable(part) for part in value] if isinstance(value, list) else value


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(home: Path) -> dict[str, str]:
    """Settings of nobody but the test, and the interpreter that runs it."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "VOILA"))}
    homes = ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")
    variables |= dict.fromkeys(homes, str(home))
    variables |= {"JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"), "PYTHONPATH": str(ROOT)}
    return variables | {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


@contextlib.contextmanager
def served(command: list[str], home: Path, port: int, **options: object) -> Iterator[subprocess.Popen]:
    """A server process, up once ``port`` is open; it and its kernels end with the block. ``options`` are Popen's."""
    log = home / "server.log"
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, env=environment(home), cwd=ROOT, stdout=out, stderr=out, **options)
    try:
        for _ in range(3000):
            # not a request: every one that Voilà answers costs a kernel
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, log.read_text("utf-8")[-3000:]
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@contextlib.contextmanager
def jupyterlab(folder: Path, theme: str = "Light") -> Iterator[str]:
    """JupyterLab over ``folder``; yields its address."""
    home, port = folder / ".home", free_port()
    settings = home / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (settings / "themes.jupyterlab-settings").write_text(f'{{"theme": "JupyterLab {theme}"}}')
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    command += [f"--ServerApp.port={port}", "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1"]
    with served(command, home, port):
        yield f"http://127.0.0.1:{port}"


def run_all(page, address: str, notebook: str) -> None:
    """Open a notebook in JupyterLab alone (no file browser beside it) and run all its cells."""
    page.goto(f"{address}/doc/tree/{notebook}?reset")
    page.locator(".jp-Notebook").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def notebook(path: Path, *cells: str) -> Path:
    """A notebook of code cells."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    content.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(content, path)
    return path


def below(ancestor: int, named: str) -> list[int]:
    """Ids of the processes below one whose command line holds ``named``."""
    parents, found = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if named in (entry / "cmdline").read_text():
                found.append(int(entry.name))

    def descends(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == ancestor:
                return True
        return False

    return [process for process in found if descends(process)]


def cpu_seconds(processes: list[int]) -> float:
    """What processes have used so far, on all cores."""
    ticks = [
        (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[11:13] for process in processes
    ]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")
