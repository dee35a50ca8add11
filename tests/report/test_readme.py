"""Numbers in README files are made from tables, and only they. (That they are up to date is checked before anything
lands.) What README says of files, folders and notebooks is there."""

import json
import re

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


def test_every_block_is_one_that_can_be_made():
    blocks = [block for path in readme.files() for block in readme.BLOCK.findall(path.read_text("utf-8"))]
    assert {name for _, name, _, _ in blocks} == set(readme.BLOCKS)
    assert all((ROOT / "results" / folder).is_dir() for _, _, folder, _ in blocks)
    assert all(path.read_text("utf-8").count("<!--") == 2 * len(readme.BLOCK.findall(path.read_text("utf-8")))
               for path in readme.files())  # fmt: skip


def test_readme_is_short_and_its_tree_is_the_tree():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 110 and len(text.split()) <= 1000
    named = set(re.findall(r"^  (\w+(?:\.py|/)) ", text, re.M))
    there = {path.name + "/" * path.is_dir() for path in (ROOT / "lib").iterdir() if not path.name.startswith("__")}
    assert named == there
    notebooks = set(re.findall(r"\(notebooks/(\w+\.ipynb)\)", text))
    assert notebooks == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("path", readme.files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", path.read_text("utf-8")):
        file, _, anchor = "".join(target).partition("#")
        if not file.startswith("http"):
            target = path.parent / file if file else path
            assert target.exists(), file
            assert not anchor or anchor in anchors(target.read_text("utf-8")), anchor


def anchors(text):
    """What a forge calls the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_all_files_are_written_or_checked_and_one_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    paths = [tmp_path / "README.md", tmp_path / "results" / "README.md", tmp_path / "lib" / "data" / "README.md"]
    for path, name in zip(paths, ("claims", "nothing", "claims"), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXT.replace("claims", name))
    card = tmp_path / "results" / "mine" / "README.md"
    claims(tmp_path / "results", 0.3)
    card.write_text(TEXT)
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    assert readme.main(["--check"]) == 2 and "+0.30" not in paths[0].read_text()
    assert {line.split(":")[0] for line in capsys.readouterr().err.splitlines()} == {
        "README.md is out of date", "results/README.md", "lib/data/README.md is out of date"
    }  # fmt: skip
    assert readme.main([]) == 2 and all("+0.30" in path.read_text() for path in paths[::2])
    assert card.read_text() == TEXT and paths[1].read_text() == TEXT.replace("claims", "nothing")
    paths[1].unlink()
    assert readme.main(["--check"]) == 0
    paths[0].write_text(TEXT)
    assert readme.main(["--check"]) == 1


def test_a_table_of_an_earlier_version_is_answered_by_one_line(tmp_path):
    claims(tmp_path, 0.3)
    path = tmp_path / "mine" / "tables" / "claims.csv"
    write_table(path, pd.read_csv(path).drop(columns="p_holm"))
    with pytest.raises(UserError, match="numbers 'claims': 'p_holm' is missing in results/mine") as caught:
        readme.render(TEXT, tmp_path)
    assert "\n" not in str(caught.value)


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
