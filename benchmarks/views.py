"""``python -m benchmarks.views``: the pictures in lib/listening/README.md, taken in Chromium.

They show the listening set, or where there is none the real song and what an oracle mask makes of it.
"""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from lib import ROOT, scoring
from lib.data.corpora import real_song
from lib.listening import Groups, examples, explorer
from lib.listening.blind import design, setup
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.profile.fields import Blind, Listening
from tests import browser

FOLDER = ROOT / "results" / "listening_views"
RATE, START, SECONDS = 16000, 0.1, 5.8


def real_excerpt(folder: Path) -> Excerpt:
    """The real song as heard in 05_listening: of the listening set, or with an oracle mask alone."""
    chosen = ROOT / Listening().examples
    if examples.exists(chosen):
        return examples.read(chosen)[-1]
    stems = real_song(folder).stems(START, SECONDS, RATE)
    mask = scoring.ideal_ratio_mask(stems.sum(0), stems, 512, 128)
    return Excerpt("Falcon 69", START, RATE, stems.sum(0), {REFERENCE: stems, "ideal ratio mask": mask})


def save(name: str, shown) -> None:
    """A locator's picture as a small PNG; 64 colours hold a spectrogram's palette."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    picture.save(FOLDER / f"{name}.png", optimize=True)
    print(f"{name}.png: {(FOLDER / f'{name}.png').stat().st_size / 1e3:.0f} kB")


def draw_explorer(page, heard: Excerpt, folder: Path) -> None:
    """The explorer in JupyterLab: a region of the vocals loops."""
    examples.write(folder / "set", [heard], {"profile": "demo", "commit": None})
    cell = "from pathlib import Path\nfrom lib.listening import Explorer, examples\n"
    browser.notebook(folder / "view.ipynb", f"{cell}Explorer(examples.read(Path({str(folder / 'set')!r})))")
    with browser.jupyterlab(folder) as address:
        page.set_viewport_size({"width": 1000, "height": 1300})
        browser.run_all(page, address, "view.ipynb")
        view = page.locator(".listening[data-ready]")
        view.get_by_role("button", name="Play").click()
        page.keyboard.press("3")
        box = view.locator(".picture").first.bounding_box()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.85 * box["width"], box["y"] + 60)
        page.mouse.up()
        page.wait_for_timeout(700)
        save("explorer", page.locator(".jp-OutputArea-output").first)


def stems(page, heard: Excerpt) -> None:
    """All stems of one method, drums and bass heard together, as a telephone shows them."""
    page.set_viewport_size({"width": 420, "height": 900})
    browser.mount(page, explorer.player(heard, explorer.ALL_STEMS, list(heard.versions)[-1]))
    view = page.locator(".listening[data-ready]")
    for stem in ("drums", "bass"):
        view.get_by_role("button", name=f"solo {stem}").click()
    view.locator(".picture").first.click()
    save("stems", view)


def groups(page) -> None:
    """The outputs of an unsupervised model, some of them sorted into stems."""
    outputs, song = examples.read_outputs(ROOT / Listening().examples)
    page.set_viewport_size({"width": 900, "height": 900})
    widget = Groups(outputs, song.versions[REFERENCE], song.rate)
    browser.mount(page, widget)
    view = page.locator(".groups[data-ready]")
    for stem, members in zip(widget.stems, widget.best, strict=True):
        view.get_by_role("button", name=f"output {members.index(1) + 1} in {stem}").click()
    page.wait_for_timeout(300)
    save("groups", view)


def blind(page, heard: Excerpt, kind: str, folder: Path) -> None:
    """A page of a blind test, half answered, and the page that sets the volume."""
    settings = Blind(test=kind, seconds=2.0, stems=("vocals",), questions=("target",))
    if len(heard.versions) < 3:  # two methods at least, for a choice between two
        heard.versions["mixture"] = np.broadcast_to(heard.mixture / 4, heard.versions[REFERENCE].shape)
    methods = [name for name in heard.versions if name != REFERENCE][-3:]  # with keys for all sounds
    made = replace(setup.of_profile(settings), methods=tuple(methods))
    place = design.write(folder / kind, made, design.items(settings, made, [heard]))
    port, home = browser.free_port(), folder / kind / "home"
    home.mkdir()
    page.set_viewport_size({"width": 760, "height": 900})
    command = [sys.executable, "-m", "lib.listening.serve", str(place), "--port", str(port)]
    with browser.served(command, home, port):
        page.goto(f"http://127.0.0.1:{port}/")
        view = page.locator(".blind")
        view.locator("input[name=code]").fill("")
        view.get_by_role("button", name="Begin").click()
        listen(page, kind, "volume")
        view.get_by_role("button", name="Lock the level", disabled=False).click()
        listen(page, kind, "training")
        view.get_by_role("button", name="Continue").click()
        listen(page, kind, "trial", 3)
        for slider, right in zip(view.locator("input[type=range]").all(), (90, 32, 72), strict=False):
            slider.fill(str(right))
        page.wait_for_timeout(300)
        save(kind, view)


def listen(page, kind: str, view: str, most: int = 99) -> None:
    """Play, and hear the first ``most`` sounds of a page until they count as heard."""
    page.locator(f".blind[data-view={view}] .play").click()
    for number, letter in enumerate(page.locator(".letter").all()[:most]):
        page.keyboard.press(str(number + (kind == "abx")))
        page.wait_for_function("letter => letter.matches('.heard-once')", arg=letter.element_handle())


def main() -> int:
    with tempfile.TemporaryDirectory() as name, browser.chromium(Path(name) / "chromium") as context:
        folder = Path(name)
        heard = real_excerpt(folder)
        with closing(context.new_page()) as page:
            draw_explorer(page, heard, folder)
        with closing(context.new_page()) as page:
            stems(page, heard)
        with closing(context.new_page()) as page:
            groups(page)
        for kind in ("mushra", "abx"):
            with closing(context.new_page()) as page:
                blind(page, heard, kind, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
