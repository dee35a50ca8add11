"""In a real browser: what is pressed is what sounds, in the right sample; answers outlive everything around them."""

import io
import itertools
import os
import re
import signal
import socket
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from nbconvert import HTMLExporter
from PIL import Image

from lib import ROOT
from lib.data import audio
from lib.listening import BlindTest, examples
from lib.listening.blind import answers
from lib.listening.blind.design import FIXED
from lib.listening.player import Player
from lib.profile.fields import Blind
from tests import browser
from tests.listening.heard import METHODS, RATE, excerpts

pytestmark = pytest.mark.skipif(browser.MISSING is not None, reason=str(browser.MISSING))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One browser for all tests: a start of it takes longer than most of them."""
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as context:
        yield context


@pytest.fixture
def page(chromium):
    page = chromium.new_page()
    yield page
    page.close()


@pytest.fixture
def noises() -> Player:
    noise = 0.1 * np.random.default_rng(0).standard_normal((3, 2, 4 * RATE)).clip(-4, 4)
    signals = dict(zip(["first", "second", "third"], noise, strict=True))
    return Player(signals, RATE, notes={"second": "uSDR 3.1 dB"}, title="Three noises", start=2.0)


def left_channels(player: Player) -> np.ndarray:
    """[signals, T], as the browser gets them."""
    return np.stack([soundfile.read(io.BytesIO(sound), dtype="float32")[0][:, 0] for sound in player.signals])


def test_a_player_switches_in_the_same_sample(page, noises):
    browser.mount(page, noises)
    player = page.locator(".listening[data-ready]")
    player.get_by_role("button", name="Play").click()
    page.wait_for_function("window.captured.length > 200")
    for key in ("2", "3", "1"):
        count = page.evaluate("window.captured.length")
        page.keyboard.press(key)
        page.wait_for_function(f"window.captured.length > {count} + 60")
    assert float(player.locator(".clock").inner_text().split()[0]) > 2.0
    page.keyboard.press(" ")
    sound, _ = browser.heard(page)
    signals = left_channels(noises)
    at = browser.lag(sound[:4000], signals[0])
    heard = np.stack([browser.explained(sound, signal, at) for signal in signals])
    # one alignment explains every sample, all but the crossfades of three switches and of the loop's seam
    parts = browser.turns(heard)
    assert [number for number, _ in itertools.groupby(number for number, _, _ in parts)] == [0, 1, 2, 0]
    fades = [after - before - 1 for (_, _, before), (_, after, _) in itertools.pairwise(parts)]
    assert max(fades) <= 0.011 * RATE


def test_a_player_is_used_by_mouse_and_by_keys(page, noises):
    """The space bar plays after a click on any button, and presses a button that Tab led to."""
    browser.mount(page, noises)
    player = page.locator(".listening[data-ready]")
    play, loud = player.locator(".play"), player.get_by_role("button", name="Equal loudness")
    play.click()
    player.get_by_role("button", name="2 second").click()
    page.keyboard.press(" ")
    assert "Play" in play.inner_text() and player.locator(".row.heard").inner_text().startswith("2")
    loud.focus()
    page.keyboard.press(" ")
    assert loud.get_attribute("aria-pressed") == "true" and "Play" in play.inner_text()
    box = player.locator(".picture").first.bounding_box()
    at = [box["x"] + 46 + (box["width"] - 46) * share for share in (0.25, 0.75)]
    page.mouse.move(at[0], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(at[1], box["y"] + 60)
    page.mouse.up()
    fields = player.get_by_role("spinbutton")
    assert [float(fields.nth(n).input_value()) for n in (0, 1)] == pytest.approx([3.0, 5.0], abs=0.05)
    page.keyboard.press("Escape")
    assert [float(fields.nth(n).input_value()) for n in (0, 1)] == [2.0, 6.0]
    page.mouse.click(at[1], box["y"] + 60)
    moved = "float => Math.abs(parseFloat(document.querySelector('.clock').textContent) - 5) < 0.11"
    page.wait_for_function(moved)
    heads = page.evaluate("[...document.querySelectorAll('.playhead')].map((head) => head.getBoundingClientRect().x)")
    assert len(heads) == 3 and heads == pytest.approx([at[1]] * 3, abs=2)


KINDS = ("mushra", "preference", "abx")
NAMED = {"button", "slider", "spinbutton", "radio", "radiogroup", "textbox", "img", "group", "form", "toolbar"}


def nameless(view) -> list[str]:
    """Controls and pictures of the accessibility tree that have no name."""
    found = [line.strip(" -").split(maxsplit=1) for line in view.aria_snapshot().splitlines()]
    assert NAMED & {role.strip(":") for role, *_ in found}
    return [role for role, *rest in found if role.strip(":") in NAMED and not "".join(rest).startswith('"')]


def wide(view) -> bool:
    return view.evaluate("element => element.scrollWidth > element.clientWidth + 1")


def test_a_player_is_read_aloud_and_fits_a_telephone(page, noises):
    page.set_viewport_size({"width": 400, "height": 900})
    browser.mount(page, noises)
    player = page.locator(".listening[data-ready]")
    player.get_by_role("button", name="Mix").click()
    assert not nameless(player) and not wide(player)
    assert "second" in player.get_by_role("img").nth(1).get_attribute("aria-label")


@pytest.mark.parametrize("kind", KINDS)
def test_a_blind_test_is_read_aloud_fits_a_telephone_and_is_answered_by_keys(page, tmp_path, kind):
    settings = Blind(test=kind, seconds=1.0, stems=("drums",), questions=("target",), detectable=0.95)
    page.set_viewport_size({"width": 400, "height": 900})
    browser.mount(page, BlindTest(settings, excerpts(1, 2.0), tmp_path))
    test = page.locator(".blind")
    assert not nameless(test)
    page.keyboard.type("ab7")  # the field for it has the focus
    page.keyboard.press("Enter")
    test.and_(page.locator("[data-view=training]")).wait_for()
    test.get_by_role("button", name="Start the test").click()
    test.and_(page.locator("[data-view=trial]")).wait_for()
    first = test.get_attribute("data-trial")
    test.get_by_role("button", name="Play").wait_for()
    assert not nameless(test) and not wide(test)
    page.keyboard.press(" ")
    for key in "012345" if kind == "mushra" else "012" if kind == "preference" else "123":
        page.keyboard.press(key)
    for control in test.locator("input").all()[: 5 if kind == "mushra" else 1]:
        control.focus()
        page.keyboard.press("ArrowRight" if kind == "mushra" else " ")
    test.get_by_role("button", name="Submit").focus()
    page.keyboard.press(" ")
    test.and_(page.locator(f"[data-view]:not([data-trial='{first}'])")).wait_for()
    values = answers.collected(tmp_path, kind)["value"]
    assert list(values) == [51] * 5 if kind == "mushra" else len(values)


def test_the_five_bands_of_the_scale_can_be_seen(page, tmp_path):
    settings = Blind(seconds=1.0, stems=("drums",), questions=("target",))
    browser.mount(page, BlindTest(settings, excerpts(1, 2.0), tmp_path))
    page.locator(".blind input[name=code]").fill("AB7")
    page.keyboard.press("Enter")
    slider = page.locator(".blind input[type=range]").first
    slider.wait_for()
    picture = np.asarray(Image.open(io.BytesIO(slider.screenshot())).convert("L"), int)
    row = picture[len(picture) // 2]
    bands = [int(np.median(row[int(len(row) * (n + 0.3) / 5) : int(len(row) * (n + 0.7) / 5)])) for n in range(5)]
    assert min(abs(one - other) for one, other in itertools.pairwise(bands)) >= 10
    labels = page.locator(".blind .scale div span")
    assert labels.all_inner_texts() == ["Bad", "Poor", "Fair", "Good", "Excellent"]
    box = slider.bounding_box()
    for n, label in enumerate(labels.all()):
        middle = label.bounding_box()["x"] + label.bounding_box()["width"] / 2
        assert abs(middle - (box["x"] + box["width"] * (n + 0.5) / 5)) < 10


def test_an_exported_notebook_plays_without_kernel_and_network(chromium, page, tmp_path):
    """A saved notebook holds, beside the view that needs a kernel, elements that play by themselves."""
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    data, metadata = Player({"a <tone>": 0.5 * tone, "half": 0.25 * tone}, RATE)._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("player", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("execute_result", data=data, metadata=metadata, execution_count=1)]
    exported, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (tmp_path / "exported.html").write_text(exported, "utf-8")
    chromium.set_offline(True)
    try:
        page.goto(f"file://{tmp_path}/exported.html")
        sound = page.locator("audio").nth(1)
        assert page.locator("audio").count() == 2 and "a <tone>" in page.inner_text("body")
        sound.evaluate("audio => { audio.muted = true; return audio.play(); }")
        page.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 0.2")
        assert sound.evaluate("audio => audio.duration") == pytest.approx(2.0, abs=0.01)
    finally:
        chromium.set_offline(False)


def listening_set(folder) -> list[str]:
    """A listening set of made-up methods, and the overrides that let the smoke profile play it."""
    examples.write(folder / "set", excerpts(3, seconds=4.0), {"profile": "smoke", "commit": "0" * 40})
    blind = ["songs=1", "seconds=3", "stems=[drums,vocals]", "questions=[target]"]
    paths = [f"results={folder / 'results'}", f"listening.examples={folder / 'set'}"]
    return [*paths, *(f"listening.blind.{change}" for change in blind)]


def test_a_participant_in_voila_rates_loses_the_kernel_and_goes_on(page, tmp_path):
    overrides, port, home = listening_set(tmp_path), browser.free_port(), tmp_path / ".home"
    home.mkdir()
    command = [sys.executable, "-m", "lib.listening.blind.serve", "smoke", *overrides, "--port", str(port)]
    address, traffic = f"http://127.0.0.1:{port}/", []
    with browser.served(command, home, port) as server:
        keep = lambda part: traffic.append(part)  # noqa: E731 (playwright cannot hold a builtin)
        page.on("websocket", lambda socket: [socket.on(kind, keep) for kind in ("framesent", "framereceived")])
        page.on("response", lambda response: traffic.append(response.url) or traffic.append(body(response)))
        page.goto(address)
        test = page.locator(".blind")
        begin(test, "ab7", "training")
        test.get_by_role("button", name="Start the test").click()
        test.and_(page.locator("[data-view=trial]")).wait_for()
        submit = test.get_by_role("button", name="Submit")
        assert submit.is_disabled()
        first = int(test.get_attribute("data-trial"))
        given = rate(page, test, [0.2, 0.5, 0.95, 0.4, 0.7])
        submit.click()
        test.and_(page.locator(f"[data-view=trial]:not([data-trial='{first}'])")).wait_for()
        table = answers.collected(tmp_path / "results" / "listening", "mushra")
        assert list(table.sort_values("slot")["value"]) == given and set(table["trial"]) == {first}

        second = test.get_attribute("data-trial")
        slider = test.locator("input[type=range]").nth(1)
        slider.focus()
        page.keyboard.press("ArrowRight")
        test.get_by_text("saved", exact=True).wait_for()
        for kernel in browser.below(server.pid, "ipykernel_launcher"):
            os.kill(kernel, signal.SIGKILL)
        page.keyboard.press("ArrowRight")
        test.get_by_text("The connection is lost").wait_for()
        page.reload()
        begin(test, "AB7", "trial")
        assert test.get_attribute("data-trial") == second
        assert test.locator("input[type=range]").nth(1).input_value() == "51"
        source = page.content()
    with pytest.raises(OSError):  # what was started is gone with it
        socket.create_connection(("127.0.0.1", port))
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


def begin(test, code: str, view: str) -> None:
    """Enter a code on the first page and wait for the next."""
    field = test.locator("input[name=code]")
    field.wait_for()
    field.fill(code)
    test.get_by_role("button", name="Begin").click()
    test.and_(test.page.locator(f"[data-view={view}]")).wait_for()
    test.get_by_role("button", name="Play").wait_for()


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


def test_the_notebook_is_explored_in_jupyterlab_from_the_listening_set(page, tmp_path):
    book = nbformat.read(ROOT / "notebooks" / "05_listening.ipynb", 4)
    parameters = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = f'profile = "smoke"\noverrides = {listening_set(tmp_path)!r}'
    nbformat.write(book, tmp_path / "05.ipynb")
    with browser.jupyterlab(tmp_path) as address:
        browser.run_all(page, address, "05.ipynb")
        explorer = page.locator(".listening[data-ready]").first
        explorer.wait_for()
        explorer.scroll_into_view_if_needed()
        names = ["mixture", "reference", *METHODS]
        assert [text.split("\n")[-1] for text in explorer.locator(".pick").all_inner_texts()] == names
        assert not nameless(explorer)
        explorer.get_by_role("button", name="Play").click()
        page.keyboard.press("3")  # the notebook around it has keys of its own
        page.get_by_text("playing: quokka net").wait_for(state="attached")
        page.keyboard.press(" ")
        page.get_by_text("stopped: quokka net").wait_for(state="attached")
        page.get_by_label("method").first.select_option("wombat net")
        page.get_by_label("errors (estimate minus reference)").check()
        page.get_by_role("button", name="error of wombat net", exact=False).first.wait_for()
        page.get_by_label("errors (estimate minus reference)").uncheck()
        page.get_by_label("stem").first.select_option("all stems")
        page.get_by_role("button", name="solo bass").wait_for()
        with page.expect_download() as saved:
            page.get_by_role("button", name="download drums").click()
        saved.value.save_as(tmp_path / "drums.flac")
        page.get_by_role("heading", name="SIMULATED: Paired differences").wait_for()
    wave = audio.read(tmp_path / "drums.flac")
    assert wave.shape == (2, 4 * RATE) and np.abs(wave).max() > 0.01
    tables = {path.name for path in (tmp_path / "results" / "tables").iterdir()}
    assert "listening_simulated_tests.csv" in tables
    assert pd.read_csv(tmp_path / "results" / "tables" / "listening_simulated_means.csv")["simulated"].all()
