"""The report of a study, ``results/PROFILE/report.html``: one page in one file, with figures and sounds inside."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from lib.report import captions, conclusions, sentences
from lib.scoring import MEAN
from lib.store import provenance
from lib.store.files import atomic
from lib.store.tables import read_table

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=lambda name: "html" in name,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ANSWER, LISTENING = "gain", "05_listening"
"""The figure that answers the question, and the notebook whose players the page has."""
GLOSSARY = {
    "scratch": "Starts from random weights and learns from the labelled songs alone.",
    "pre-trained (sliced)": "Starts from MixIT's weights, with the output nearest to each stem on validation songs.",
    "pre-trained (body)": "Starts from MixIT's encoder and blocks, with new decoders for the stems.",
    "pre-trained (group)": "Starts from MixIT's weights, with a learned sum of its outputs for each stem.",
    "pre-trained, shuffled": "Starts from MixIT's weights permuted within each tensor: their scale alone.",
    "scratch, equal compute": "From scratch, with the arithmetic of pre-training spent on further supervised steps.",
    "scratch, until it stalls": "From scratch, with further steps until the validation loss stalls.",
    "pre-trained, until it stalls": "From MixIT's weights, with further steps until the validation loss stalls.",
}
"""The arms, each in a sentence."""
PLAYER = re.compile(r'<b>([^<]+)</b><br>([^<]*)<br>\s*<audio[^>]*? src="([^"]+)"')
"""Name, note and source of a player of `lib.listening.static`."""


def write(results: Path) -> Path:
    """Write ``report.html`` from the tables, figures and executed notebooks in ``results``; return its path."""
    record, tables = provenance.read(results), {path.stem for path in results.glob("tables/*.csv")}
    claim = read_table(results / "tables" / "claim.csv") if "claim" in tables else None
    page = TEMPLATES.get_template("page.html.jinja").render(
        name=record.get("profile", {}).get("name", results.name),
        facts=_facts(record),
        abstract=list(_abstract(results, record.get("profile", {}), tables)),
        answer=next(_figures(results, [ANSWER]), None),
        arms=None if claim is None else _arms(claim),
        claims=conclusions.shown(read_table(results / "tables" / "claims.csv")) if "claims" in tables else None,
        sections=list(_sections(results, record.get("files", {}))),
    )
    with atomic(results / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return results / "report.html"


def _facts(record: dict) -> str:
    machine, stages = record.get("machine", {}), record.get("stages", {})
    ends = [datetime.fromisoformat(stage["end"]) for stage in stages.values() if stage.get("end")]
    finished = f"{max(ends):%-d %B %Y}" if ends else "not finished"
    return " · ".join(filter(None, [finished, machine.get("cpu"), f"{machine.get('cores', '?')} cores"]))


def _abstract(results: Path, profile: dict, tables: set[str]) -> Iterator[str]:
    """What was done, what it shows, and what limits MixIT."""
    if not {"claim", "songs_worth"} <= tables:
        yield "There is no result yet."
        return
    claim = read_table(results / "tables" / "claim.csv")
    rows = sentences.answering(claim)
    size, stage = profile.get("model", {}).get("size", ""), profile.get("pretrain", {})
    budgets = sentences.labelled(rows["labeled_songs"].unique())
    yield (
        f"A band-split TF-Locoformer ({size}) is pre-trained without labels by mixture-invariant training (MixIT, "
        f"{stage.get('steps')} steps), fine-tuned with {budgets}, and compared with one trained from "
        f"scratch, in mean {rows['metric'].iloc[0]} over {sentences.counted(rows['n_songs'].max(), 'test song')}."
    )
    yield sentences.without_kind(captions.answer(claim, values=False))
    if "shares" in tables:
        yield captions.caption(results, "shares").finding


def _arms(claim: pd.DataFrame) -> dict:
    """Arms against arms by label budgets, in the primary metric, and what each arm is and took."""
    rows = claim[(claim["stem"] == MEAN) & (claim["metric"] == sentences.primary(claim))]
    rows = pd.concat([sentences.answering(claim), rows]).drop_duplicates()  # the answer first
    budgets, pairs = sorted(rows["labeled_songs"].unique()), rows.groupby(["method", "against"], sort=False)
    known = list(dict.fromkeys([*rows["against"], *rows["method"]]))
    names = dict(zip(known, sentences.without_kind("|".join(known)).split("|"), strict=True))
    return {
        "metric": sentences.primary(claim),
        "budgets": [sentences.counted(budget, "labelled song") for budget in budgets],
        "rows": [
            (names[method], names[against], [_cell(part[part["labeled_songs"] == budget]) for budget in budgets])
            for (method, against), part in pairs
        ],
        "glossary": {names[arm]: (GLOSSARY.get(arm, ""), captions.took(rows, arm)) for arm in known},
    }


def _cell(row: pd.DataFrame) -> tuple[str, str, str]:
    """Verdict, difference and interval of one row."""
    if row.empty:
        return "", "", ""
    row = row.iloc[0]
    word = {"helps": "better", "hurts": "worse"}.get(sentences.verdict(row), "undecided")
    return word, f"{row['difference']:+.2f} dB", f"{row['low']:+.2f} to {row['high']:+.2f}"


def _sections(results: Path, files: dict[str, dict]) -> Iterator[dict]:
    """Notebooks that show or wrote something, the most telling figure first; files of no notebook come last."""
    notebooks = {path.stem: path for path in results.glob("notebooks/*.ipynb")}
    owners = {name: record["notebook"] for name, record in files.items()}
    present = [
        path.relative_to(results) for pattern in ("figures/*.svg", "tables/*.csv") for path in results.glob(pattern)
    ]
    present = [path for path in present if "simulated" not in path.stem]  # shown in their notebook alone
    for name in sorted(
        {*notebooks, *(owners.get(str(path), "") for path in present)}, key=lambda name: (not name, name)
    ):
        own = sorted(path for path in present if owners.get(str(path), "") == name)
        drawn = [path.stem for path in own if path.suffix == ".svg" and path.stem != ANSWER]
        shown = {
            "figures": list(_figures(results, drawn)),
            "tables": [path for path in own if path.suffix == ".csv"],
            "players": list(_players(notebooks[name])) if name in notebooks and name == LISTENING else [],
        }
        title = _title(notebooks[name]) if name in notebooks else name or "Further"
        if any(shown.values()):
            yield {"name": name, "title": title, "executed": name in notebooks, **shown}


def _figures(results: Path, names: list[str]) -> Iterator[dict]:
    """Figures with their captions, in the order of `captions.CAPTIONS`."""
    order = list(captions.CAPTIONS)
    for name in sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)):
        path = results / "figures" / f"{name}.svg"
        if path.exists():
            yield {"name": name, "source": _data(path, "image/svg+xml"), **captions.caption(results, name)._asdict()}


def _title(notebook: Path) -> str:
    """The first heading of a notebook."""
    texts = ("".join(cell["source"]) for cell in _cells(notebook) if cell["cell_type"] == "markdown")
    return next((text.splitlines()[0][2:] for text in texts if text.startswith("# ")), notebook.stem)


def _players(notebook: Path) -> Iterator[dict]:
    """Per song of the first players in a notebook: the mixture, and one stem by every method."""
    outputs = (output for cell in _cells(notebook) for output in cell.get("outputs", ()))
    pages = ("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    for part in next((page for page in pages if "<audio" in page), "").split("<h3>")[1:]:
        shown = part.split("</details>")[0]
        stem = re.search(r"<summary><b>(\w+)</b>", shown)
        found = PLAYER.findall(shown)
        names = sentences.without_kind("|".join(name for name, *_ in found)).split("|")
        sounds = [(name, note, _sound(notebook, source)) for name, (_, note, source) in zip(names, found, strict=False)]
        yield {"song": part.split("</h3>")[0], "stem": stem[1] if stem else "", "sounds": sounds}


def _sound(notebook: Path, source: str) -> str:
    return source if source.startswith("data:") else _data(notebook.parent / source, "audio/ogg")


def _data(path: Path, kind: str) -> str:
    """A file as a URL that contains it."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text("utf-8"))["cells"]


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
