"""Words say what intervals allow, and no more."""

import pandas as pd
import pytest

from lib.report import sentences


@pytest.mark.parametrize(
    ("difference", "p", "songs", "pretrainings", "said"),
    [
        (0.3, 0.01, 12, 3, "helps"),
        (-0.3, 0.01, 12, 3, "hurts"),
        (0.3, 0.2, 12, 3, "is undecided"),
        (0.3, 0.01, 12, 1, "is undecided, of one pre-training or seed alone,"),
        (0.3, 0.01, 2, 3, "has too few songs to tell"),
    ],
)
def test_the_verdict_is_what_p_songs_and_pretrainings_allow(difference, p, songs, pretrainings, said):
    row = pd.Series({"difference": difference, "p_holm": p, "n_songs": songs, "n_origins": pretrainings})
    assert sentences.verdict(row) == said


def test_the_answer_has_the_arms_that_stall_against_each_other():
    long = "pre-trained, until it stalls"
    rows = [("pre-trained (group)", "scratch"), ("pre-trained (sliced)", "scratch"), (long, "scratch")]
    rows += [("pre-trained (group)", "pre-trained, shuffled"), (long, "scratch, until it stalls")]
    rows = [
        (*row, stem, metric) for row in rows for stem, metric in (("mean", "uSDR"), ("bass", "uSDR"), ("mean", "cSDR"))
    ]
    claim = pd.DataFrame(rows, columns=["method", "against", "stem", "metric"])
    chosen = sentences.answering(claim)
    assert chosen.to_numpy().tolist() == [
        ["pre-trained (group)", "scratch", "mean", "uSDR"],
        [long, "scratch, until it stalls", "mean", "uSDR"],
    ]


def test_an_outcome_groups_budgets_by_verdict():
    rows = pd.DataFrame({"labeled_songs": [1, 4, 16], "difference": [0.38, 0.09, 0.43], "p_holm": [0.01, 0.4, 0.01]})
    rows = rows.assign(n_songs=24, n_origins=5, low=[0.26, -0.1, 0.15], high=[0.49, 0.28, 0.7])
    said = "helps with 1 and 16 labelled songs (+0.38 dB, +0.26 to +0.49; +0.43 dB, +0.15 to +0.70) and is undecided "
    said += "with 4 labelled songs (+0.09 dB, -0.10 to +0.28)"
    assert sentences.outcome(rows) == said
    assert sentences.outcome(rows[:1], values=False) == "helps with 1 labelled song"
    assert sentences.outcome(rows[:1]) == "helps with 1 labelled song (+0.38 dB, +0.26 to +0.49)"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("pre-trained (sliced) against pre-trained, shuffled", "pre-trained against pre-trained, shuffled"),
        ("pre-trained (sliced), pre-trained (body)", "pre-trained (sliced), pre-trained (body)"),
        ("scratch", "scratch"),
    ],
)
def test_a_kind_of_transfer_is_named_only_beside_another(text, plain):
    assert sentences.without_kind(text) == plain


@pytest.mark.parametrize(("p", "text"), [(0.0002, "p < 0.001"), (0.0139, "p = 0.014"), (1.0, "p = 1")])
def test_p_is_written_as_the_field_writes_it(p, text):
    assert sentences.p_value(p) == text


def test_lists_read_as_lists():
    assert [sentences.listed(items) for items in ([1], [1, 4], [1, 4, 16])] == ["1", "1 and 4", "1, 4 and 16"]
