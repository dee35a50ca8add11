"""One page with all that a study produced, ``results/PROFILE/report.html``: opens from disk, needs no network."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from lib.report import sentences
from lib.store import provenance
from lib.store.files import atomic
from lib.store.tables import read_table

SECTIONS = {
    "03_finetune": (
        "Does pre-training help?",
        "claims claim gain claim_stems budgets songs_worth scores songs finetune_curves real_song cost",
    ),
    "01_probes": (
        "What MixIT separates by itself, and what limits it",
        "probes outputs correlation_table correlation_means correlation_effects within_songs ill_posed shares",
    ),
    "02_pretrain": (
        "Pre-training, the choice of outputs, and of the regime",
        "pretrain_curves before_after search search_means regime",
    ),
    "04_ablations": ("What it depends on", "ablation_effects ablations"),
    "00_corpora": ("The music", "levels correlation variety corpora composition skipped_reasons skipped"),
    "05_listening": (
        "Listening",
        "listening listening_screening listening_means listening_tests listening_agreement listening_ratings "
        "listening_two_alternatives listening_simulated listening_simulated_screening listening_simulated_means "
        "listening_simulated_tests listening_simulated_agreement listening_simulated_ratings",
    ),
}
"""Per notebook: the title of its section, and the figures and tables of it in their order."""
ROWS = 40
CSS = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #fff; --line: #ddd; --soft: #666; --link: #0b5fa5 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --back: #16181b; --line: #3a3d42; --soft: #a0a4aa; --link: #7db8ec }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back) }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0.2rem }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line) }
a { color: var(--link) }
.soft, figcaption, caption { color: var(--soft); font-size: 0.9rem; text-align: left; white-space: nowrap }
.answer { font-size: 1.15rem; border-left: 4px solid #0072b2; padding-left: 1rem }
figure, .table { margin: 1.5rem 0 }
img { max-width: 100%; width: 45rem; background: #fff; border-radius: 4px; padding: 0.5rem; box-sizing: border-box }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th, td:first-child { text-align: left }
"""


def write(results: Path) -> Path:
    """Write ``report.html`` from the tables, figures and executed notebooks in ``results``; return its path."""
    tables = {path.stem: path for path in sorted((results / "tables").glob("*.csv"))}
    figures = {path.stem: path for path in sorted((results / "figures").glob("*.png"))}
    parts = [_head(results, tables)]
    for notebook, (title, names) in SECTIONS.items():
        known = names.split()
        # an axis of the ablations is the profile's to name
        known += [name for name in figures if notebook == "04_ablations" and name.startswith("ablation_")]
        shown = [part for name in dict.fromkeys(known) for part in _shown(results, name, figures, tables)]
        link = results / "notebooks" / f"{notebook}.ipynb"
        source = f"<p>Notebook: {_link(results, link, link.name)}</p>" if link.exists() else ""
        parts += [f"<h2>{html.escape(title)}</h2>{source}", *shown] if shown or source else []
    rest = [part for name in sorted({*figures, *tables}) for part in _shown(results, name, figures, tables)]
    parts += ["<h2>Further</h2>", *rest] if rest else []
    name = provenance.read(results).get("profile", {}).get("name", results.name)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(name)}: results</title><style>{CSS}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    with atomic(results / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return results / "report.html"


def _head(results: Path, tables: dict[str, Path]) -> str:
    facts = provenance.read(results)
    code, machine, stages = (facts.get(key, {}) for key in ("code", "machine", "stages"))
    commit = f"{(code.get('commit') or 'unknown')[:12]}{' with changes' if code.get('dirty') else ''}"
    ends = [stage["end"] for stage in stages.values() if stage.get("end")]
    name = facts.get("profile", {}).get("name", results.name)
    line = f"Profile {name} · commit {commit} · finished {max(ends, default='never')} · {machine.get('cpu', '')}, "
    line += f"{machine.get('cores', '?')} cores"
    answers = sentences.answer(read_table(tables["claim"])) if "claim" in tables else ["there is no claim.csv yet"]
    record = results / "provenance.json"
    return (
        f"<h1>Does MixIT pre-training help to separate music?</h1><p class='soft'>{html.escape(line)}"
        f"{' · ' + _link(results, record, 'provenance') if record.exists() else ''}</p>"
        + "".join(f"<p class='answer'>{html.escape(sentences.sentence(text))}</p>" for text in answers)
    )


def _link(results: Path, path: Path, text: str) -> str:
    return f'<a href="{quote(os.path.relpath(path, results))}">{html.escape(text)}</a>'


def _shown(results: Path, name: str, figures: dict[str, Path], tables: dict[str, Path]) -> Iterable[str]:
    """The figure and the table of a name, each once: they are taken out of what is left."""
    if figure := figures.pop(name, None):
        source, vector = quote(os.path.relpath(figure, results)), figure.with_suffix(".svg")
        link = f" ({_link(results, vector, 'SVG')})" if vector.exists() else ""
        title = html.escape(name.replace("_", " "))
        yield f'<figure><img src="{source}" alt="{title}"><figcaption>{title}{link}</figcaption></figure>'
    if table := tables.pop(name, None):
        frame = read_table(table)
        short, how = summary(frame)
        caption = f"{_link(results, table, table.name)}, {len(frame)} rows{how}"
        short = short.astype(object).where(short.notna(), "")
        body = short.to_html(index=False, border=0, float_format="{:.2f}".format)
        yield f'<div class="table">{body.replace(">", f"><caption>{caption}</caption>", 1)}</div>'


def summary(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A tidy table as means over songs and seeds, or learning curves at their last step; others as they are."""
    if "value" not in frame or frame.empty:
        return frame.head(ROWS), f", the first {ROWS} shown" if len(frame) > ROWS else ""
    how = ", means over songs and seeds shown"
    if "step" in frame:
        curve = [name for name in frame.columns if name not in ("step", "value")]
        last = frame.groupby(curve, dropna=False)["step"].transform("max")
        frame, how = frame[frame["step"] == last], ", the last step of each run shown, mean over seeds"
    across = "stem" if "stem" in frame else "metric"
    keys = [
        c
        for c in frame.columns
        if c not in ("song", "seed", "participant", "value", "step", across) and frame[c].notna().any()
    ]
    wide = frame.groupby([*keys, across], dropna=False, sort=False)["value"].mean().unstack(across)
    return wide.reset_index().rename_axis(columns=None), how


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
