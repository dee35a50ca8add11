"""README's numbers are made from tables, and only they. (That it is up to date is checked before anything lands.)"""

import json

import pandas as pd
import pytest

from lib import ROOT, UserError
from lib.report import readme
from lib.store.tables import write_table

TEXT = "before\n<!-- numbers: claims mine -->\nold\n<!-- end -->\nafter\n"


def claims(folder, effect):
    facts = {"statement": "it helps", "effect": effect, "low": 0.1, "high": 0.5, "unit": "dB", "n": "24 songs"}
    table = pd.DataFrame([{**facts, "p": 0.004, "p_holm": 0.012, "verdict": "supported"}])
    write_table(folder / "mine" / "tables" / "claims.csv", table)


def test_every_block_of_readme_is_one_that_can_be_made():
    blocks = readme.BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
    assert blocks and {name for _, name, _, _ in blocks} <= set(readme.BLOCKS)
    assert all((ROOT / "results" / folder).is_dir() for _, _, folder, _ in blocks)


def test_a_block_is_made_anew_and_what_is_around_it_stays(tmp_path):
    claims(tmp_path, 0.3)
    text = readme.render(TEXT, tmp_path)
    assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter\n") and "old" not in text
    assert "| it helps | +0.30 dB | +0.10 to +0.50 | 0.012 | 24 songs | **supported** |" in text
    assert readme.render(text, tmp_path) == text
    claims(tmp_path, 0.4)
    assert "+0.40" in readme.render(text, tmp_path)


def test_unknown_numbers_are_refused():
    with pytest.raises(UserError, match="unknown numbers 'nothing'"):
        readme.render(TEXT.replace("claims", "nothing"), ROOT)


def test_speed_is_shown_with_the_range_of_its_ratios_and_the_load(tmp_path):
    facts = {"case": "demo", "what": "a step", "unit": "s", "peer is": "plain", "load": 1.5, "target": ""}
    rows = [facts | {"ours": 0.0512, "peer": 1.234, "ratio": 2.345, "low": 2.0, "high": 2.5}]
    rows += [facts | {"what": "music", "ours": 37.0, "peer": None, "ratio": None, "low": None, "high": None, "load": 3}]
    (tmp_path / "table.json").write_text(json.dumps({"machine": "an abacus, 1 thread", "rows": rows}))
    text = readme.speed(tmp_path)
    assert "| a step | 51 ms | plain: 1.23 s | 2.35 (2.00 to 2.50) |" in text
    assert "| music | 37 s |  |  |" in text
    assert text.endswith("(an abacus, 1 thread; load of the machine at the start of a case: 1.5 to 3.0)")
