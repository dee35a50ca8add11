"""How stems sound, in numbers."""

import numpy as np
import pandas as pd
import pytest

from lib import STEMS
from lib.experiments import music
from tests import toys


def test_a_sine_that_sounds_half_the_time():
    rate = 8000
    stems = np.zeros((4, 2, 4 * rate), np.float32)
    stems[STEMS.index("vocals"), :, : 2 * rate] = np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate)
    values = {(stem, metric): value for stem, metric, value in music.sound(stems, rate)}
    assert values["vocals", "level"] == pytest.approx(0, abs=1e-3)
    assert values["vocals", "centroid"] == pytest.approx(1000, rel=0.02)
    assert values["vocals", "crest"] == pytest.approx(6.02, abs=0.01)  # 3 dB of a sine, 3 for the silence
    assert values["vocals", "activity"] == 0.5
    assert [key for key in values if key[0] != "vocals"] == [(stem, "activity") for stem in STEMS if stem != "vocals"]


def test_songs_are_measured_once(tmp_path, monkeypatch):
    study = toys.study(tmp_path)
    first = music.survey(study)
    assert set(music.SOUND) < set(first["metric"]) and {"labelled", "unlabelled"} < set(first["corpus"])
    monkeypatch.setattr(music, "sound", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(music.survey(study), first)


def test_the_table_has_medians_of_each_corpus_and_stem():
    rows = [("a", "bass", 1.0), ("a", "bass", 2.0), ("a", "bass", 9.0), ("b", "bass", 5.0), ("a", "other", 7.0)]
    table = pd.DataFrame([{"corpus": c, "stem": s, "metric": "crest", "value": v} for c, s, v in rows])
    table = music.how_real(table)
    assert list(table.columns) == list(music.SOUND)
    assert table["crest"].to_dict() == {("bass", "a"): 2.0, ("bass", "b"): 5.0, ("other", "a"): 7.0}
