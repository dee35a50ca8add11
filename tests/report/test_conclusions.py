"""Verdicts by intervals."""

import numpy as np
import pytest

from lib.report import conclusions


@pytest.mark.parametrize(
    ("low", "high", "p", "sign", "songs", "seeds", "expected"),
    [
        (0.1, 0.5, 0.01, 1, 24, 5, conclusions.SUPPORTED),
        (-0.5, -0.1, 0.01, 1, 24, 5, conclusions.NOT_SUPPORTED),
        (-0.5, -0.1, 0.01, -1, 24, 5, conclusions.SUPPORTED),
        (0.1, 0.5, 0.01, -1, 24, 5, conclusions.NOT_SUPPORTED),
        (-0.1, 0.5, 0.01, 1, 24, 5, conclusions.UNDECIDED),
        (0.1, 0.5, 0.05, 1, 24, 5, conclusions.UNDECIDED),
        (0.1, 0.5, np.nan, 1, 24, 5, conclusions.UNDECIDED),
        (0.1, 0.5, 0.01, 1, 2, 5, conclusions.UNDECIDED),
        (0.1, 0.5, 0.01, 1, 24, 1, conclusions.UNDECIDED),
        (0.1, 0.5, 0.01, 1, 24, 0, conclusions.SUPPORTED),
    ],
)
def test_a_verdict_needs_the_whole_interval_a_small_p_and_enough_songs(low, high, p, sign, songs, seeds, expected):
    assert conclusions.verdict(low, high, p, sign, songs, seeds) == expected
