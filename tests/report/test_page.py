"""The report says what the tables say, and no more than their intervals allow."""

import pandas as pd
import pytest

from lib.report import page, sentences
from lib.store.tables import table, write_table


@pytest.mark.parametrize(
    ("low", "high", "p", "songs", "seeds", "said"),
    [
        (0.1, 0.5, 0.01, 12, 3, "pre-training helps"),
        (-0.5, -0.1, 0.01, 12, 3, "pre-training hurts"),
        (-0.1, 0.5, 0.01, 12, 3, "undecided, the interval holds zero"),
        (0.0, 0.5, 0.01, 12, 3, "undecided, the interval holds zero"),
        (0.1, 0.5, 0.2, 12, 3, "undecided by p, which allows for few seeds and several tests"),
        (0.1, 0.5, 0.01, 12, 1, "pre-training helps in this one seed"),
        (0.1, 0.5, 0.01, 2, 3, "too few songs to tell"),
    ],
)
def test_the_verdict_is_what_interval_and_p_allow(low, high, p, songs, seeds, said):
    assert sentences.verdict(low, high, p, songs, seeds) == said


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
    page = page.write(tmp_path).read_text("utf-8")
    assert "There is no claim.csv yet." in page
    assert "<b>mine" not in page and "&lt;b&gt;mine" in page
    assert 'href="tables/my%20scores.csv"' in page


def test_the_answer_has_the_long_arm_against_scratch_as_long():
    rows = [("pre-trained (group)", "scratch"), ("pre-trained (sliced)", "scratch"), ("pre-trained, long", "scratch")]
    rows += [("pre-trained (group)", "pre-trained, shuffled"), ("pre-trained, long", "scratch, equal compute")]
    same = {"labeled_songs": 4, "stem": "mean", "metric": "uSDR", "n_songs": 12, "n_seeds": 3, "effect": 1.0}
    same |= {"difference": 0.2, "low": 0.1, "high": 0.3, "p_holm": 0.01}
    said = sentences.answer(pd.DataFrame([{"method": method, "against": against, **same} for method, against in rows]))
    assert [text.split(" by ")[0].split(", ", 1)[1] for text in said] == [
        "pre-trained (group) differs from scratch",
        "pre-trained, long differs from scratch, equal compute",
    ]
    assert all(text.endswith("pre-training helps") for text in said)


@pytest.mark.parametrize(
    ("method", "low", "high", "told"),
    [
        ("pre-trained (sliced)", 0.1, 0.3, "the compute is better spent on pre-training"),
        ("pre-trained (sliced)", -0.3, -0.1, "the compute is better spent on supervised steps"),
        ("pre-trained (sliced)", -0.3, 0.1, "undecided, the interval holds zero"),
        ("pre-trained, long", -0.3, -0.1, "pre-training hurts"),
    ],
)
def test_against_equal_compute_the_verdict_is_on_the_use_of_compute(method, low, high, told):
    row = {"labeled_songs": 4, "stem": "mean", "metric": "uSDR", "n_songs": 12, "n_seeds": 3, "effect": 1.0}
    row |= {"low": low, "p_holm": 0.01}
    row |= {"method": method, "against": "scratch, equal compute", "difference": (low + high) / 2, "high": high}
    assert sentences.claim_sentence(pd.Series(row)).endswith(f": {told}")


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
    page = page.write(tmp_path).read_text("utf-8")
    assert page.count("class='answer'") == 1
    assert "differs from scratch by +0.30 dB uSDR" in page and "+0.20 to +0.40 dB" in page
