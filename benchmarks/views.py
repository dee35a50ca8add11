"""``python -m benchmarks.views``: the pictures in lib/listening/README.md, taken in Chromium.

They show the listening set, or where there is none the real song and what an oracle mask makes of it.
"""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from lib import ROOT, scoring
from lib.data.corpora import real_song
from lib.listening import BlindTest, examples, explorer
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


def blind(page, heard: Excerpt, kind: str) -> None:
    """A page of a blind test, half answered."""
    settings = Blind(test=kind, seconds=4.0, stems=("vocals",), questions=("target",))
    if len(heard.versions) < 3:  # two methods at least, for a choice between two
        heard.versions["mixture"] = np.broadcast_to(heard.mixture / 4, heard.versions[REFERENCE].shape)
    page.set_viewport_size({"width": 760, "height": 900})
    with tempfile.TemporaryDirectory() as answers:
        browser.mount(page, BlindTest(settings, [heard], Path(answers)))
        view = page.locator(".blind")
        view.locator("input[name=code]").fill("AB7")
        page.keyboard.press("Enter")
        view.get_by_role("button", name="Start the test").click()
        view.and_(page.locator("[data-view=trial]")).wait_for()
        view.get_by_role("button", name="Play").click()
        for key in "012":
            page.keyboard.press(key)
            page.wait_for_timeout(400)
        for slider, right in zip(view.locator("input[type=range]").all(), (40, -18, 22), strict=False):
            slider.focus()
            for _ in range(abs(right)):
                page.keyboard.press("ArrowRight" if right > 0 else "ArrowLeft")
        page.wait_for_timeout(300)
        save(kind, view)


def main() -> int:
    with tempfile.TemporaryDirectory() as name, browser.chromium(Path(name) / "chromium") as context:
        folder = Path(name)
        heard = real_excerpt(folder)
        with closing(context.new_page()) as page:
            draw_explorer(page, heard, folder)
        with closing(context.new_page()) as page:
            stems(page, heard)
        for kind in ("mushra", "abx"):
            with closing(context.new_page()) as page:
                blind(page, heard, kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
