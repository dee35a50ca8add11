"""Sentences say what intervals allow, and no more."""

import pandas as pd
import pytest

from lib.report import sentences

ROW = {"labeled_songs": 4, "stem": "mean", "metric": "uSDR", "n_songs": 12, "n_seeds": 3, "n_origins": 3, "effect": 1.0}


@pytest.mark.parametrize(
    ("difference", "p", "songs", "pretrainings", "said"),
    [
        (0.3, 0.01, 12, 3, "pre-training helps"),
        (-0.3, 0.01, 12, 3, "pre-training hurts"),
        (0.3, 0.2, 12, 3, "undecided"),
        (0.3, 0.01, 12, 1, "undecided, of one pre-training or seed alone"),
        (0.3, 0.01, 2, 3, "too few songs to tell"),
    ],
)
def test_the_verdict_is_what_p_songs_and_pretrainings_allow(difference, p, songs, pretrainings, said):
    row = pd.Series({"difference": difference, "p_holm": p, "n_songs": songs, "n_origins": pretrainings})
    assert sentences.verdict(row, "difference") == said


def test_the_answer_has_the_arms_that_stall_against_each_other():
    long = "pre-trained, until it stalls"
    rows = [("pre-trained (group)", "scratch"), ("pre-trained (sliced)", "scratch"), (long, "scratch")]
    rows += [("pre-trained (group)", "pre-trained, shuffled"), (long, "scratch, until it stalls")]
    same = ROW | {"difference": 0.2, "low": 0.1, "high": 0.3, "p_holm": 0.01}
    said = sentences.answer(pd.DataFrame([{"method": method, "against": against, **same} for method, against in rows]))
    assert [text.split(" by ")[0].split(", ", 1)[1] for text in said] == [
        "pre-trained (group) differs from scratch",
        f"{long} differs from scratch, until it stalls",
    ]
    assert all(text.endswith("pre-training helps") for text in said)


@pytest.mark.parametrize(
    ("method", "low", "high", "told"),
    [
        ("pre-trained (sliced)", 0.1, 0.3, "the compute is better spent on pre-training"),
        ("pre-trained (sliced)", -0.3, -0.1, "the compute is better spent on supervised steps"),
        ("pre-trained (sliced)", -0.3, 0.1, "undecided"),
    ],
)
def test_against_equal_compute_the_verdict_is_on_the_use_of_compute(method, low, high, told):
    row = ROW | {"low": low, "p_holm": 0.2 if low < 0 < high else 0.01}
    row |= {"method": method, "against": "scratch, equal compute", "difference": (low + high) / 2, "high": high}
    assert sentences.claim_sentence(pd.Series(row)).endswith(f": {told}")
