"""What is chosen and concluded: schedules by validation, verdicts by intervals."""

import numpy as np
import pandas as pd
import pytest

from lib.experiments import search
from lib.profile.fields import Optimisation
from lib.report import conclusions
from lib.store.tables import song_rows, table


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


def test_the_search_marks_the_best_schedule_of_each_arm():
    frames = []
    for method, best in (("scratch", 1e-3), ("pre-trained (group)", 5e-4)):
        for rate in (5e-4, 1e-3, 2e-3):
            facts = {"experiment": "search", "method": method, "labeled_songs": 4}
            value = 3.0 - (rate != best)
            rows = [
                row
                for seed in (0, 1)
                for row in song_rows("s", [("bass", "uSDR", value + seed), ("bass", "cSDR", 9.0)], **facts, seed=seed)
            ]
            frames.append(table(rows).assign(learning_rate=rate, steps=200, body_rate=1.0))
    found = search.searched(pd.concat(frames))
    best = found[found["best"]].set_index("method")
    assert best["learning_rate"].to_dict() == {"scratch": 1e-3, "pre-trained (group)": 5e-4}
    np.testing.assert_allclose(best["mean"], 3.5)
    assert len(found) == 6 and set(found["n_songs"]) == {1} and set(found["n_seeds"]) == {2}


def test_a_stretched_schedule_keeps_its_shape_and_its_warm_up():
    stage = Optimisation(steps=200, warmup_steps=20, decay_start=100, decay_every=25, validate_every=25)
    longer = stage.stretched(1000)
    assert (longer.steps, longer.warmup_steps) == (1000, 20)
    assert (longer.decay_start, longer.decay_every, longer.validate_every) == (500, 125, 125)
    assert stage.stretched(200) == stage
    assert stage.stretched(2).decay_every == 1
