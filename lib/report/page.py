"""The report of a study, ``results/PROFILE/report.html``: one page, without network."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader

from lib.report import sentences
from lib.store import provenance
from lib.store.files import atomic
from lib.store.tables import read_table

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
ROWS = 300
"""Maximum number of rows shown."""
P_VALUES = ("p", "p_holm", "from_base_p", "from_base_p_holm")


def write(results: Path) -> Path:
    """Write ``report.html`` from the tables, figures and executed notebooks in ``results``; return its path."""
    record, claim = provenance.read(results), results / "tables" / "claim.csv"
    answers = sentences.answer(read_table(claim)) if claim.exists() else ["there is no claim.csv yet"]
    page = TEMPLATES.get_template("page.html.jinja").render(
        name=record.get("profile", {}).get("name", results.name),
        facts=_facts(record),
        recorded=bool(record),
        answers=[sentences.sentence(text) for text in answers],
        claims=Path("tables/claims.csv") if (results / "tables" / "claims.csv").exists() else None,
        sections=list(_sections(results, record.get("files", {}))),
        table=lambda path: display_table(read_table(results / path)),
    )
    with atomic(results / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return results / "report.html"


def _facts(record: dict) -> str:
    code, machine, stages = (record.get(key, {}) for key in ("code", "machine", "stages"))
    commit = f"{(code.get('commit') or 'unknown')[:12]}{' with changes' if code.get('dirty') else ''}"
    ends = [datetime.fromisoformat(stage["end"]) for stage in stages.values() if stage.get("end")]
    finished = f"{max(ends):%-d %B %Y}" if ends else "never"
    return f"commit {commit} · finished: {finished} · {machine.get('cpu', '')}, {machine.get('cores', '?')} cores"


def _sections(results: Path, files: dict[str, dict]) -> Iterator[dict]:
    """Notebooks with their figures and tables, each figure before its table; files of no notebook last."""
    notebooks = {path.stem: path for path in results.glob("notebooks/*.ipynb")}
    paths = [path.relative_to(results) for path in (*results.glob("figures/*.png"), *results.glob("tables/*.csv"))]
    products = defaultdict(list)
    for path in sorted(paths, key=lambda path: (path.stem, path.suffix == ".csv")):
        products[files.get(path.as_posix(), {}).get("notebook", "")].append(path)
    for name in sorted({*notebooks, *products}, key=lambda name: (not name, name)):
        title = _title(notebooks[name]) if name in notebooks else name or "Further"
        yield {"name": name, "executed": name in notebooks, "title": title, "paths": products[name]}


def _title(notebook: Path) -> str:
    """The first heading of a notebook."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return next((text.splitlines()[0][2:] for text in texts if text.startswith("# ")), notebook.stem)


def display_table(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A table with formatted cells, and a note on what it shows."""
    short, note = summary(frame)
    constant = [name for name in short.select_dtypes("bool") if short[name].nunique() == 1]
    short = short.drop(columns=constant).convert_dtypes()
    texts = pd.DataFrame({name: [_cell(name, value) for value in short[name]] for name in short}, dtype=str)
    for low in [name for name in texts if name.endswith("low") and f"{name[:-3]}high" in texts]:
        interval = texts[low] + " to " + texts.pop(f"{low[:-3]}high")
        texts[low] = interval.where(texts[low] != "", "")
    texts = texts.rename(columns=lambda name: re.sub(r"low$", "95% interval", name).replace("_", " "))
    if "verdict" in texts:
        texts.insert(1, "verdict", texts.pop("verdict"))
    return texts, f"{len(frame)} rows{note}"


def _cell(name: str, value: object) -> str:
    """Three significant digits; conventional formats of p, learning rates and hashes."""
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if name == "learning_rate":
        return np.format_float_scientific(value, trim="-", exp_digits=1)
    if name in P_VALUES:
        return f"{value:.3f}" if value >= 0.001 else "< 0.001"
    if not isinstance(value, float):
        return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b", r"\1", str(value))
    digits = 2 - math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return f"{value:z.{min(max(digits, 0), 3)}f}"


def summary(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Means of a tidy table over songs and seeds, learning curves at their last step; other tables unchanged."""
    if "value" not in frame or frame.empty:
        return frame.head(ROWS), f", the first {ROWS} shown" if len(frame) > ROWS else ""
    how = ", means over songs and seeds shown"
    if "step" in frame:
        curve = [name for name in frame.columns if name not in ("step", "value")]
        last = frame.groupby(curve, dropna=False)["step"].transform("max")
        frame, how = frame[frame["step"] == last], ", the last step of each run shown, mean over seeds"
    across = "stem" if "stem" in frame else "metric"
    dropped = {"song", "seed", "participant", "value", "step", across}
    keys = [name for name in frame if name not in dropped and frame[name].notna().any()]
    wide = frame.groupby([*keys, across], dropna=False, sort=False)["value"].mean().unstack(across)
    return wide.reset_index().rename_axis(columns=None), how


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
