"""What every notebook promises: nothing stored but its story, short cells, a start that says what it belongs to."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lib import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_the_story_has_six_parts():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05"]


@each
def test_stored_without_outputs_and_valid(path):
    nbformat.validate(json.loads(path.read_text("utf-8")))
    assert all(not cell.outputs and cell.execution_count is None for cell in cells(path, "code"))


@each
def test_the_profile_and_its_overrides_are_the_only_parameters(path):
    tagged = [cell.source for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == ['profile = "demo"\noverrides = []']
    assert cells(path, "code")[0].source == tagged[0]


@each
def test_cells_are_short_and_show_what_they_computed(path):
    for cell in cells(path, "code")[1:]:
        assert 1 <= len(cell.source.splitlines()) <= 15, cell.source


@each
def test_it_asks_tells_its_method_and_its_limits(path):
    prose = [cell.source for cell in cells(path, "markdown")]
    assert prose[0].startswith("# ") and "**Question.**" in prose[0] and "**Method.**" in prose[0]
    assert prose[-1].startswith("## Limitations\n")
    # numbers of a result belong to the tables: typed into prose, they outlive the run they came from
    assert not re.search(r"\d(\.\d+)? ?dB (above|below|better|worse)", "".join(prose))


PLACES = ("", "notebooks", "results/demo/notebooks", None)
FORKS = """
import os, sys
import IPython.display, matplotlib.figure, pandas, pydantic, scipy.signal, scipy.stats, torch, torchaudio
for place, code in {calls!r}:
    child = os.fork()
    if child == 0:
        os.chdir(place)
        exec(code)
        break
    assert os.waitpid(child, 0)[1] == 0, place
    print("=" * 9, flush=True)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """What the first two code cells of all notebooks show, by the place where they are opened.

    Each place has a process, a fork of one that has imported nothing of the project. Another `lib` is in the way.
    """
    folder = tmp_path_factory.mktemp("opened")
    other, calls = folder / "other" / "lib", []
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('another lib')")
    for place in PLACES:
        code = [f"sys.prefix = {str(ROOT / '.venv')!r}" if place is None else ""]
        code += [f"overrides_used = ['results={folder / 'none here'}']"]
        for path in NOTEBOOKS:
            parameters, start = (cell.source for cell in cells(path, "code")[:2])
            parameters = parameters.replace('"demo"', '"smoke"').replace("[]", "overrides_used")
            *lines, last = start.splitlines()
            code += [parameters, *lines, f"print({last}.data)"]
        calls.append((str(other if place is None else ROOT / place), "\n".join(code)))
    shown = subprocess.run(
        [sys.executable, "-"],
        input=FORKS.format(calls=calls),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(other.parent)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    assert not (folder / "none here").exists()
    return dict(zip(PLACES, shown.stdout.split("=" * 9), strict=False))


@pytest.mark.parametrize("place", PLACES)
def test_opened_without_a_run_it_says_which_command_makes_one(opened, place):
    """papermill starts in the project, JupyterLab beside a notebook or its executed copy."""
    assert opened[place].count("**Profile** `smoke`") == len(NOTEBOOKS)
    assert opened[place].count("`./run_all.sh smoke 'results=") == len(NOTEBOOKS)
