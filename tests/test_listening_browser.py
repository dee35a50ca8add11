"""In a real browser: what is pressed is what sounds, in the right sample; answers outlive everything around them."""

import itertools
import os
import re
import signal
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbconvert import HTMLExporter

from lib.listening import answers, examples
from lib.listening.design import FIXED
from lib.listening.player import Player
from lib.profile import ROOT
from tests import browser
from tests.test_listening_blind import METHODS, excerpts

pytestmark = pytest.mark.skipif(browser.MISSING is not None, reason=str(browser.MISSING))
RATE = 16000

SIGNALS = """
import numpy as np
noise = 0.1 * np.random.default_rng(0).standard_normal((3, 2, 8 * 16000)).clip(-4, 4)
signals = dict(zip(["first", "second", "third"], noise))
"""
PLAYER = """
from lib.listening.player import Player
Player(signals, 16000, notes={"second": "uSDR 3.1 dB"}, title="Three noises", start=2.0)
"""


def expected() -> np.ndarray:
    """The left channels [3, T] as 16-bit FLAC holds them."""
    namespace = {}
    exec(SIGNALS, namespace)
    return np.stack([np.round(wave[0] * 32768) / 32768 for wave in namespace["noise"]])


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


def test_a_player_in_jupyterlab_switches_in_the_same_sample(tmp_path):
    browser.notebook(tmp_path / "player.ipynb", SIGNALS, PLAYER)
    with browser.jupyterlab(tmp_path) as address, browser.chromium(tmp_path / "chromium") as page:
        browser.run_all(page, address, "player.ipynb")
        player = page.locator(".listening[data-ready]")
        player.wait_for()
        page.screenshot(path=tmp_path / "player.png")
        player.get_by_role("button", name="Play").click()
        page.wait_for_function("window.captured.length > 200")
        clock = float(player.locator(".clock").inner_text().split()[0])
        assert clock > 2.0
        for key in ("2", "3", "1"):
            count = page.evaluate("window.captured.length")
            page.keyboard.press(key)
            page.wait_for_function(f"window.captured.length > {count} + 150")
        page.screenshot(path=tmp_path / "playing.png")
        page.keyboard.press(" ")
        page.wait_for_timeout(200)
        sound, first = browser.heard(page)
        pressed = [when for key, when in page.evaluate("window.pressed") if key in "123"]
    assert len(sound) > 3 * RATE
    signals = expected()
    at = lag(sound[:4000], signals[0])
    heard = np.stack([explained(sound, signal, at) for signal in signals])
    # one alignment explains every sample, all but the crossfades of three switches
    parts = turns(heard)
    assert [number for number, _, _ in parts] == [0, 1, 2, 0]
    fades = [after - before - 1 for (_, _, before), (_, after, _) in itertools.pairwise(parts)]
    assert max(fades) <= 0.011 * RATE
    ends = [first + before for _, _, before in parts[:-1]]
    print("seconds from key to crossfade:", [end / RATE - when for end, when in zip(ends, pressed, strict=True)])


def test_an_exported_notebook_plays_without_kernel_and_network(tmp_path):
    """A saved notebook holds, beside the view that needs a kernel, elements that play by themselves."""
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    data, metadata = Player({"a <tone>": 0.5 * tone, "half": 0.25 * tone}, RATE)._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("player", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("execute_result", data=data, metadata=metadata, execution_count=1)]
    exported, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "exported.html").write_text(exported, "utf-8")
    with browser.chromium(tmp_path / "chromium", offline=True) as page:
        page.goto(f"file://{tmp_path}/exported.html")
        sound = page.locator("audio").nth(1)
        assert page.locator("audio").count() == 2 and "a <tone>" in page.inner_text("body")
        sound.evaluate("audio => { audio.muted = true; return audio.play(); }")
        page.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 0.2")
        assert sound.evaluate("audio => audio.duration") == pytest.approx(2.0, abs=0.01)


def listening_set(folder) -> list[str]:
    """A listening set of made-up methods, and the overrides that let the smoke profile play it."""
    examples.write(folder / "set", excerpts(3, seconds=4.0), {"profile": "smoke", "commit": "0" * 40})
    blind = ["songs=1", "seconds=3", "stems=[drums,vocals]", "questions=[target]"]
    paths = [f"results={folder / 'results'}", f"listening.examples={folder / 'set'}"]
    return [*paths, *(f"listening.blind.{change}" for change in blind)]


def test_a_participant_in_voila_rates_loses_the_kernel_and_goes_on(tmp_path):
    overrides, port, home = listening_set(tmp_path), browser.free_port(), tmp_path / ".home"
    home.mkdir()
    command = [sys.executable, "-m", "lib.listening.serve", "smoke", *overrides, "--port", str(port)]
    address, traffic = f"http://127.0.0.1:{port}/", []
    with browser.served(command, home, address) as server, browser.chromium(tmp_path / "chromium") as page:
        keep = lambda part: traffic.append(part)  # noqa: E731 (playwright cannot hold a builtin)
        page.on("websocket", lambda socket: [socket.on(kind, keep) for kind in ("framesent", "framereceived")])
        page.on("response", lambda response: traffic.append(response.url) or traffic.append(body(response)))
        page.goto(address)
        test = page.locator(".blind")
        begin(test, "ab7", "training", tmp_path)
        test.get_by_role("button", name="Start the test").click()
        test.and_(page.locator("[data-view=trial]")).wait_for()
        submit = test.get_by_role("button", name="Submit")
        assert submit.is_disabled()
        first = int(test.get_attribute("data-trial"))
        given = rate(page, test, [0.2, 0.5, 0.95, 0.4, 0.7])
        page.screenshot(path=tmp_path / "trial.png")
        submit.click()
        test.and_(page.locator(f"[data-view=trial]:not([data-trial='{first}'])")).wait_for()
        table = answers.collected(tmp_path / "results" / "listening", "mushra")
        assert list(table.sort_values("slot")["value"]) == given and set(table["trial"]) == {first}

        second = test.get_attribute("data-trial")
        slider = test.locator("input[type=range]").nth(1)
        slider.focus()
        page.keyboard.press("ArrowRight")
        test.get_by_text("saved", exact=True).wait_for()
        for kernel in browser.kernels(server.pid):
            os.kill(kernel, signal.SIGKILL)
        page.keyboard.press("ArrowRight")
        test.get_by_text("The connection is lost").wait_for()
        page.screenshot(path=tmp_path / "lost.png")
        page.reload()
        begin(test, "AB7", "trial", tmp_path)
        assert test.get_attribute("data-trial") == second
        assert test.locator("input[type=range]").nth(1).input_value() == "51"
        source = page.content()
    everything = "\n".join([source, *(text(part) for part in traffic)])
    assert "Page 2 of" in source and "letters" in everything
    for secret in (*METHODS, *FIXED, "platypus", "leakage", ".ogg", str(tmp_path)):
        assert not re.search(re.escape(secret), everything, re.IGNORECASE), secret


def body(response) -> bytes:
    """What came back, if the browser kept it and if it is not a library of Voilà's own."""
    if "/static/" in response.url or "/voila/" in response.url or "extensions" in response.url:
        return b""
    try:
        return response.body()
    except Exception:  # a redirect has none
        return b""


def text(part: object) -> str:
    return part if isinstance(part, str) else bytes(part).decode("latin-1")


def begin(test, code: str, view: str, folder) -> None:
    """Enter a code on the first page and wait for the next."""
    field = test.locator("input[name=code]")
    field.wait_for()
    test.page.screenshot(path=folder / f"welcome-{view}.png")
    field.fill(code)
    test.get_by_role("button", name="Begin").click()
    test.and_(test.page.locator(f"[data-view={view}]")).wait_for()
    test.get_by_role("button", name="Play").wait_for()
    test.page.screenshot(path=folder / f"begun-{view}.png")


def rate(page, test, shares: list[float]) -> list[int]:
    """Play, hear everything by keys, drag every slider; returns where they came to stand."""
    test.get_by_role("button", name="Play").click()
    page.wait_for_function("window.captured.length > 50")
    for number in range(len(shares) + 1):
        page.keyboard.press(str(number))
        page.wait_for_timeout(100)
    sliders = test.locator("input[type=range]")
    for number, share in enumerate(shares):
        box = sliders.nth(number).bounding_box()
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * share, y, steps=4)
        page.mouse.up()
    values = [int(sliders.nth(n).input_value()) for n in range(sliders.count())]
    assert np.abs(np.array(values) / 100 - shares).max() < 0.05
    return values


def test_the_notebook_is_explored_in_jupyterlab_from_the_listening_set(tmp_path):
    book = nbformat.read(ROOT / "notebooks" / "05_listening.ipynb", 4)
    parameters = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = f'profile = "smoke"\noverrides = {listening_set(tmp_path)!r}'
    nbformat.write(book, tmp_path / "05.ipynb")
    with browser.jupyterlab(tmp_path, "Dark") as address, browser.chromium(tmp_path / "chromium") as page:
        browser.run_all(page, address, "05.ipynb")
        explorer = page.locator(".listening[data-ready]").first
        explorer.wait_for()
        explorer.scroll_into_view_if_needed()
        names = ["mixture", "reference", *METHODS]
        assert [text.split("\n")[-1] for text in explorer.locator(".pick").all_inner_texts()] == names
        page.screenshot(path=tmp_path / "explore-dark.png")
        page.get_by_label("method").first.select_option("wombat net")
        page.get_by_label("errors (estimate minus reference)").check()
        page.get_by_role("button", name="error of wombat net", exact=False).first.wait_for()
        page.get_by_label("errors (estimate minus reference)").uncheck()
        page.get_by_label("stem").first.select_option("all stems")
        page.get_by_role("button", name="solo bass").wait_for()
        with page.expect_download() as saved:
            page.get_by_role("button", name="download drums").click()
        saved.value.save_as(tmp_path / "drums.flac")
        page.screenshot(path=tmp_path / "stems-dark.png")
        page.get_by_role("heading", name="SIMULATED: Paired differences").wait_for()
    from lib import audio

    wave = audio.read(tmp_path / "drums.flac")
    assert wave.shape == (2, 4 * RATE) and np.abs(wave).max() > 0.01
    tables = {path.name for path in (tmp_path / "results" / "tables").iterdir()}
    assert "listening_simulated_tests.csv" in tables
    assert pd.read_csv(tmp_path / "results" / "tables" / "listening_simulated_means.csv")["simulated"].all()
