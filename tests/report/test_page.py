"""The report shows long tables short, names as names, and the mean over stems as the answer."""

import json

import pandas as pd
import pytest

from lib.report import page
from lib.store.files import write_json
from lib.store.tables import table, write_table


def scores(values: dict) -> pd.DataFrame:
    facts = {"experiment": "test", "method": "<b>mine</b>", "metric": "uSDR", "stem": "bass"}
    return table({**facts, "seed": seed, "song": song, "value": value} for (seed, song), value in values.items())


def test_long_tables_are_averaged_over_songs_and_seeds():
    short, how = page.summary(scores({(0, "a"): 1.0, (0, "b"): 2.0, (1, "a"): 3.0, (1, "b"): 6.0}))
    assert short.to_dict("records") == [{"experiment": "test", "method": "<b>mine</b>", "metric": "uSDR", "bass": 3.0}]
    assert "means" in how


def test_learning_curves_are_shown_where_each_run_ends():
    rows = [("short", 0, 2, -1.0), ("short", 0, 4, -2.0), ("long", 0, 4, -2.0), ("long", 0, 8, -3.0)]
    rows += [("long", 1, 4, -2.0), ("long", 1, 6, -4.0)]
    curves = pd.DataFrame(rows, columns=["method", "seed", "step", "value"]).assign(metric="validation_loss")
    short, how = page.summary(curves)
    assert short.set_index("method")["validation_loss"].to_dict() == {"short": -2.0, "long": -3.5}
    assert "last step" in how


def test_a_table_without_rows_is_shown_as_it_is():
    empty = pd.DataFrame(columns=["method", "seed", "step", "metric", "value"])  # a given model has no learning curve
    assert page.summary(empty)[0].equals(empty)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("p", 0.0002, "< 0.001"),
        ("p_holm", 0.0449, "0.045"),
        ("from_base_p", 1.0, "1.000"),
        ("learning_rate", 0.0005, "5e-4"),
        ("learning_rate", 0.002, "2e-3"),
        ("difference", 0.27449, "0.274"),
        ("difference", -12.3456, "-12.3"),
        ("difference", -0.0001, "0.000"),
        ("seconds", 732.0959, "732"),
        ("seconds", 73209.59, "73210"),
        ("weights", "d19680c3bbee4f4e" * 4, "d19680c3bbee"),
        ("statement", "facade of 4 songs", "facade of 4 songs"),
        ("best", True, "yes"),
        ("difference", None, ""),
    ],
)
def test_a_cell_is_written_as_the_field_writes_it(column, value, text):
    other = {bool: False, str: "else"}.get(type(value), 0.5)
    texts, _ = page.display_table(pd.DataFrame({column: [value, other]}))
    assert texts.iloc[0, 0] == text


def test_the_verdict_stands_early_and_ends_become_an_interval():
    row = {"statement": "it helps", "effect": 0.3, "low": 0.1, "high": 0.5, "n_songs": 24.0, "simulated": True}
    texts, note = page.display_table(pd.DataFrame([row | {"verdict": "supported"}]))
    assert texts.to_dict("records") == [
        {
            "statement": "it helps",
            "verdict": "supported",
            "effect": "0.300",
            "95% interval": "0.100 to 0.500",
            "n songs": "24",
        }
    ]
    assert note == "1 rows"


def test_an_end_that_is_missing_leaves_no_interval():
    rows = {"from_base_low": [0.1, None], "from_base_high": [0.2, None]}
    assert list(page.display_table(pd.DataFrame(rows))[0]["from base 95% interval"]) == ["0.100 to 0.200", ""]


def test_long_tables_show_their_start():
    texts, note = page.display_table(pd.DataFrame({"n": range(page.ROWS + 1)}))
    assert len(texts) == page.ROWS and note == f"{page.ROWS + 1} rows, the first {page.ROWS} shown"


@pytest.fixture
def study(tmp_path):
    """Results of two notebooks, one of them with simulated listeners, and a table that no notebook wrote."""
    written = {
        "00_music": ["tables/levels.csv", "figures/levels.png"],
        "01_heard": ["tables/simulated_means.csv", "figures/simulated.png", "tables/heard.csv"],
    }
    files = {name: {"notebook": notebook} for notebook, names in written.items() for name in names}
    for name in (*files, "tables/stray.csv"):
        if name.endswith(".csv"):
            write_table(tmp_path / name, pd.DataFrame({"n": [1]}))
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
    for notebook in written:
        cells = [{"cell_type": "code", "source": ["# no title"]}]
        cells += [{"cell_type": "markdown", "source": [f"# Title of <{notebook}>\n", "text"]}]
        write_json(tmp_path / "notebooks" / f"{notebook}.ipynb", {"cells": cells})
    write_json(tmp_path / "provenance.json", {"files": files})
    return tmp_path


def test_sections_follow_the_notebooks_that_wrote_figures_and_tables(study):
    text = page.write(study).read_text("utf-8")
    places = [
        '<h2 id="00_music">Title of &lt;00_music&gt;',
        'href="notebooks/00_music.ipynb"',
        'src="figures/levels.png"',
        'href="tables/levels.csv"',
        '<h2 id="01_heard">',
        'href="tables/heard.csv"',
        'src="figures/simulated.png"',
        '<h2 id="further">Further',
        'href="tables/stray.csv"',
    ]
    assert [text.count(part) for part in places] == [1] * len(places)
    assert sorted(places, key=text.index) == places


def test_tables_and_simulated_listeners_are_folded(study):
    text = page.write(study).read_text("utf-8")
    assert text.count("<details>") == text.count("</details>") == len(list(study.glob("tables/*.csv"))) + 1
    simulated = text[text.index("<details><summary>Simulated") : text.index('<h2 id="further">')]
    assert 'src="figures/simulated.png"' in simulated and 'href="tables/simulated_means.csv"' in simulated
    assert "tables/heard.csv" not in simulated


def test_a_notebook_without_a_title_goes_by_its_name(study):
    (study / "notebooks" / "00_music.ipynb").write_text(json.dumps({"cells": []}))
    assert '<h2 id="00_music">00_music</h2>' in page.write(study).read_text("utf-8")


def test_claims_stand_above_all_sections_unfolded(study):
    write_table(study / "tables" / "claims.csv", pd.DataFrame({"statement": ["it helps"], "verdict": ["supported"]}))
    text = page.write(study).read_text("utf-8")
    assert text.count('href="tables/claims.csv"') == 1
    assert text.index("supported") < text.index("<details>") and text.index("supported") < text.index("<h2")


def test_a_page_without_claim_says_so_and_names_are_escaped(tmp_path):
    write_table(tmp_path / "tables" / "my scores.csv", scores({(0, "a"): 1.0}))
    text = page.write(tmp_path).read_text("utf-8")
    assert "There is no claim.csv yet." in text
    assert "<b>mine" not in text and "&lt;b&gt;mine" in text
    assert 'href="tables/my%20scores.csv"' in text


def test_the_answer_quotes_the_mean_over_stems(tmp_path):
    row = {
        "experiment": "test",
        "labeled_songs": 8,
        "method": "pre-trained (group)",
        "against": "scratch",
        "n_songs": 12,
        "n_origins": 3,
        "effect": 0.8,
        "p_holm": 0.01,
    }
    rows = [
        row
        | {"metric": metric, "stem": stem, "difference": value, "low": value - 0.1, "high": value + 0.1, "n_seeds": 3}
        for metric, stem, value in (("uSDR", "bass", 0.9), ("uSDR", "mean", 0.3), ("cSDR", "mean", 0.7))
    ]
    write_table(tmp_path / "tables" / "claim.csv", pd.DataFrame(rows))
    text = page.write(tmp_path).read_text("utf-8")
    assert text.count('class="answer"') == 1
    assert "differs from scratch by +0.30 dB uSDR" in text and "+0.20 to +0.40 dB" in text
