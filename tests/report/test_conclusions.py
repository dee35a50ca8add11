"""Claims: what they say follows from their numbers."""

import pytest

from lib.report import conclusions

FACTS = {"songs": 24, "seeds": 5, "of": "seed", "family": "budgets"}


@pytest.mark.parametrize(
    ("effect", "sign", "p_holm", "expected"),
    [
        (0.3, 1, 0.01, conclusions.SUPPORTED),
        (-0.3, 1, 0.01, conclusions.NOT_SUPPORTED),
        (-0.3, -1, 0.01, conclusions.SUPPORTED),
        (0.3, -1, 0.01, conclusions.NOT_SUPPORTED),
        (0.3, 1, 0.06, conclusions.UNDECIDED),
    ],
)
def test_a_verdict_is_by_the_corrected_p_and_the_side_of_the_statement(effect, sign, p_holm, expected):
    row = conclusions._row("it helps", sign, (effect, effect - 0.1, effect + 0.1), 0.001, p_holm, **FACTS)
    assert row["verdict"] == expected and row["p"] == 0.001 and row["n"] == "24 songs, 5 seeds"
