"""Which schedule each arm gets."""

import numpy as np
import pandas as pd

from lib.experiments import search
from lib.store.tables import song_rows, table


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
    found = search.searched(pd.concat(frames), "uSDR")
    best = found[found["best"]].set_index("method")
    assert best["learning_rate"].to_dict() == {"scratch": 1e-3, "pre-trained (group)": 5e-4}
    np.testing.assert_allclose(best["mean"], 3.5)
    assert len(found) == 6 and set(found["n_songs"]) == {1} and set(found["n_seeds"]) == {2}
