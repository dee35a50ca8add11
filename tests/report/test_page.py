"""The report shows long tables short, names as names, and the mean over stems as the answer."""

import pandas as pd

from lib.report import page
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
    assert text.count("class='answer'") == 1
    assert "differs from scratch by +0.30 dB uSDR" in text and "+0.20 to +0.40 dB" in text
