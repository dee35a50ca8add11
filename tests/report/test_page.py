"""The report is one file that reads like a paper: answer, arms, a section a notebook, sounds."""

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest

from lib import STEMS
from lib.listening import static
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.report import page
from lib.store.files import write_json
from lib.store.tables import write_table
from tests.browser import CHROMIUM, MISSING

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 300"><text y="20">{}</text></svg>'
ROW = {"stem": "mean", "metric": "uSDR", "n_songs": 24, "n_seeds": 5, "n_origins": 5}
CLAIM = [
    ("pre-trained (sliced)", "scratch", 1, 0.38, 0.001),
    ("pre-trained (sliced)", "scratch", 4, -0.2, 0.01),
    ("scratch, until it stalls", "scratch", 4, 0.1, 0.2),
]


def execute(folder, name, title, html=""):
    """A notebook as executed: a title, and an output."""
    shown = [{"data": {"text/html": html}}] if html else []
    cells = [{"cell_type": "code", "source": [], "outputs": shown}]
    cells += [{"cell_type": "markdown", "source": [f"# {title}\n", "text"]}]
    write_json(folder / "notebooks" / f"{name}.ipynb", {"cells": cells})


@pytest.fixture
def study(tmp_path):
    """Results of two notebooks, one of them with sounds and simulated listeners, and a table that no notebook wrote."""
    columns = ["method", "against", "labeled_songs", "difference", "p_holm"]
    claim = pd.DataFrame(CLAIM, columns=columns).assign(**ROW)
    claim = claim.assign(low=claim["difference"] - 0.1, high=claim["difference"] + 0.1)
    tables = {"claim": claim, "simulated_means": claim, "songs_worth": claim, "stray": claim}
    for name, frame in tables.items():
        write_table(tmp_path / "tables" / f"{name}.csv", frame)
    owners = {"tables/claim.csv": "03_claim", "tables/songs_worth.csv": "03_claim"}
    owners["tables/simulated_means.csv"] = "05_listening"
    for name, notebook in (
        ("gain", "03_claim"),
        ("songs", "03_claim"),
        ("a_new", "03_claim"),
        ("simulated", "05_listening"),
    ):
        owners[f"figures/{name}.svg"] = notebook
        (tmp_path / "figures").mkdir(exist_ok=True)
        (tmp_path / "figures" / f"{name}.svg").write_text(SVG.format(name))
    stems = np.random.default_rng(0).normal(0, 0.1, (len(STEMS), 2, 8000)).astype(np.float32)
    heard = Excerpt("One & only", 0.0, 8000, stems.sum(0), {REFERENCE: stems, "scratch": stems + 0.01})
    execute(tmp_path, "03_claim", "Does <it> help?")
    execute(tmp_path, "05_listening", "Listening", static.page(heard))
    files = {name: {"notebook": notebook} for name, notebook in owners.items()}
    write_json(tmp_path / "provenance.json", {"profile": {"name": "mine"}, "files": files})
    return tmp_path


def sources(text: str) -> list[str]:
    """What pictures show, in their order."""
    data = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)"', text)
    return [re.search(r'y="20">(\w+)<', base64.b64decode(part).decode())[1] for part in data]


def test_the_answer_comes_first_and_sections_follow_the_notebooks_that_wrote_their_files(study):
    text = page.write(study).read_text("utf-8")
    assert sources(text) == ["gain", "songs", "a_new"]
    places = [
        "Does MixIT",
        "pre-training helps with 1 labelled song",
        "The arms, compared",
        '<h2 id="03_claim">Does &lt;it&gt; help?',
    ]
    places += [
        'href="notebooks/03_claim.ipynb"',
        'href="tables/claim.csv"',
        '<h2 id="05_listening">',
        '<h2 id="further">',
    ]
    places += ['href="tables/stray.csv"']
    assert sorted(places, key=text.index) == places
    assert "simulated" not in text


def test_arms_have_verdicts_in_words_and_are_explained(study):
    text = " ".join(page.write(study).read_text("utf-8").split())
    cells = re.findall(r'class="(\w*)"><b>(\w+)</b> ([+-][\d.]+ dB) <span class="interval">([^<]+)</span>', text)
    assert cells == [
        ("better", "better", "+0.38 dB", "+0.28 to +0.48"),
        ("worse", "worse", "-0.20 dB", "-0.30 to -0.10"),
        ("undecided", "undecided", "+0.10 dB", "+0.00 to +0.20"),
    ]
    assert "<dt>pre-trained</dt><dd>Starts from MixIT" in text and "(sliced)" not in text


@pytest.mark.parametrize("beside", [False, True], ids=["embedded", "in files"])
def test_sounds_are_inside_the_page(study, beside):
    if beside:
        notebook = study / "notebooks" / "05_listening.ipynb"
        content = json.loads(notebook.read_text("utf-8"))
        html = content["cells"][0]["outputs"][0]["data"]["text/html"]
        (study / "notebooks" / "sound").mkdir()
        (study / "notebooks" / "sound" / "a.ogg").write_bytes(b"sound")
        content["cells"][0]["outputs"][0]["data"]["text/html"] = re.sub(
            r'src="data:audio[^"]+"', 'src="sound/a.ogg"', html
        )
        write_json(notebook, content)
    text = page.write(study).read_text("utf-8")
    played = re.findall(
        r'soft"><b>(\w+)</b>.*?<audio controls preload="none" src="data:audio/ogg;base64,(.*?)"', text, re.S
    )
    assert [name for name, _ in played] == ["mixture", "reference", "scratch"]
    assert "One &amp; only: vocals" in text
    assert not beside or {base64.b64decode(sound) for _, sound in played} == {b"sound"}


def test_results_without_a_claim_say_so(tmp_path):
    write_table(tmp_path / "tables" / "my scores.csv", pd.DataFrame({"n": [1]}))
    text = page.write(tmp_path).read_text("utf-8")
    assert "There is no result yet." in text and 'href="tables/my%20scores.csv"' in text


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.parametrize("width", [390, 2560])
def test_nothing_lies_outside_the_window(study, width):
    from playwright.sync_api import sync_playwright

    path = page.write(study)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": width, "height": 900})
        view.goto(path.as_uri())
        inside = (
            "[...document.querySelectorAll('body *')].every(e => e.getBoundingClientRect().right <= innerWidth + 1)"
        )
        assert view.evaluate(inside) and view.evaluate("document.documentElement.scrollWidth") == width
        browser.close()
