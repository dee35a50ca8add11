"""Captions say what tables hold, and what they do not decide."""

import pandas as pd
import pytest

from lib.report import captions
from lib.store.tables import write_table

ROW = {"stem": "mean", "metric": "uSDR", "n_songs": 24, "n_seeds": 5, "n_origins": 5, "low": -0.1, "high": 0.6}
TOOK = {"steps": 480.0, "core_seconds": 1202.3, "petaflop": 0.01811}
TOOK |= {"against_steps": 480.0, "against_core_seconds": 125.2, "against_petaflop": 0.001378}
SHARE = {"p_holm": 0.006, "low_db": 0.09, "high_db": 0.34, "n_songs": 12, "n_seeds": 1}


def write_claim(folder, **facts):
    rows = pd.DataFrame({"labeled_songs": [1, 4], "difference": [0.38, 0.17], "p_holm": [0.001, 0.11]})
    rows = rows.assign(method="pre-trained (sliced)", against="scratch", **ROW, **facts)
    write_table(folder / "tables" / "claim.csv", rows)


def test_the_gain_is_told_by_budget_with_n_and_what_the_arms_took(tmp_path):
    write_claim(tmp_path, **TOOK)
    finding, drawn = captions.caption(tmp_path, "gain")
    assert finding == (
        "With the same number of supervised steps, pre-training helps with 1 labelled song (+0.38 dB, -0.10 to +0.60) "
        "and is undecided with 4 labelled songs (+0.17 dB, -0.10 to +0.60)."
    )
    assert "24 test songs, 5 seeds, 5 pre-trainings" in drawn
    assert "scratch 480 / 125 / 0.0014; pre-trained 480 / 1,202 / 0.018." in drawn


def test_a_claim_of_unknown_compute_says_nothing_of_it(tmp_path):
    write_claim(tmp_path)
    assert "PFLOP" not in captions.caption(tmp_path, "gain").drawn


@pytest.mark.parametrize(("pretrainings", "told"), [(3, "p = 0.006)"), (1, "p = 0.006: undecided)")])
def test_one_pre_training_decides_nothing(tmp_path, pretrainings, told):
    rows = [SHARE | {"what": what, "decibels": value, "n_origins": pretrainings}
            for what, value in (("definition", 0.2), ("whole distance", 1.8))]  # fmt: skip
    write_table(tmp_path / "tables" / "shares.csv", pd.DataFrame(rows))
    finding = captions.caption(tmp_path, "shares").finding
    assert finding.startswith("Of the 1.8 dB between") and f"close +0.20 dB (+0.09 to +0.34, {told}" in finding
    assert "correlation" not in finding


@pytest.mark.parametrize(
    ("budgets", "told"), [([4], ""), ([1, 4], "scores as scratch with 2.0 (95% interval 1.0 to 3.0)")]
)
def test_one_budget_measures_no_trade(tmp_path, budgets, told):
    facts = {
        "worth": 2.0,
        "low": 1.0,
        "high": 3.0,
        "at_end": False,
        "method": "pre-trained (sliced)",
        "against": "scratch",
    }
    write_table(tmp_path / "tables" / "songs_worth.csv", pd.DataFrame([{"labeled_songs": n, **facts} for n in budgets]))
    write_claim(tmp_path)
    finding = captions.caption(tmp_path, "budgets").finding
    assert finding.endswith(f"{told}.") if told else finding == ""


def test_a_figure_that_nobody_described_goes_by_its_name(tmp_path):
    assert captions.caption(tmp_path, "my_figure") == ("", "My figure.")
