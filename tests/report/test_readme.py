"""README's numbers are made from tables, and only they. (That it is up to date is checked before anything lands.)"""

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
    text = readme.written(TEXT, tmp_path)
    assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter\n") and "old" not in text
    assert "| it helps | +0.30 dB | +0.10 to +0.50 | 0.012 | 24 songs | **supported** |" in text
    assert readme.written(text, tmp_path) == text
    claims(tmp_path, 0.4)
    assert "+0.40" in readme.written(text, tmp_path)


def test_unknown_numbers_are_refused():
    with pytest.raises(UserError, match="no numbers called 'nothing'"):
        readme.written(TEXT.replace("claims", "nothing"), ROOT)
