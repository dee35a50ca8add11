"""Write the numbers of all README files from the committed tables: ``python -m lib.report.readme [--check]``.

The text between ``<!-- numbers: NAME FOLDER -->`` and ``<!-- end -->`` is one of `BLOCKS`, written from the tables and
runs in ``results/FOLDER``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from lib import ROOT, UserError
from lib.report import conclusions, sentences
from lib.scoring import MEAN, summarise
from lib.store.files import atomic
from lib.store.runs import Run
from lib.store.tables import read_table

FOLDERS = ("benchmarks", "cluster", "lib", "notebooks", "tests")
BLOCK = re.compile(r"(<!-- numbers: (\w+) ([\w/]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(results: Path, name: str) -> pd.DataFrame:
    return read_table(results / "tables" / f"{name}.csv")


def _primary(results: Path) -> str:
    return sentences.primary(_table(results, "claim"))


def answer(results: Path) -> str:
    """Differences in the primary metric with 95% intervals: a column per label budget, a row per pair of arms."""
    rows = sentences.answering(_table(results, "claim"))
    names = sentences.without_kind("|".join(rows["method"])).split("|")
    rows = rows.assign(method=names).rename(columns={"against": "compared with"})
    return _by_budget(rows, ["method", "compared with"], "test song")


def regime(results: Path) -> str:
    """Pre-trained minus scratch: one column per label budget, one row per length of pre-training."""
    rows = _table(results, "regime").rename(columns={"pretrain_steps": "steps of pre-training"})
    return _by_budget(rows, ["steps of pre-training"], "validation song")


def _by_budget(rows: pd.DataFrame, index: list[str], songs: str) -> str:
    """Differences with 95% intervals, one column per label budget."""
    numbers = [rows[name].map("{:+.2f}".format) for name in ("difference", "low", "high")]
    shown = numbers[0] + " (" + numbers[1] + " to " + numbers[2] + ")"
    budgets = [sentences.counted(count, "labelled song") for count in rows["labeled_songs"]]
    wide = rows.assign(shown=shown, budget=budgets).pivot_table("shown", index, "budget", "first", sort=False)
    n = f"{_counts(rows, songs, 'seed')}{_validating(rows)}"
    note = f"(difference in mean {rows['metric'].iloc[0]}, dB; in brackets: 95% interval, uncorrected; {n})"
    return f"{sentences.markdown_table(wide.reset_index())}\n\n{note}"


def _validating(rows: pd.DataFrame) -> str:
    """What budgets of labelled songs use beside their training songs, where ``rows`` say it."""
    counts = sorted(set(rows.get("validation_songs", ())))
    return f"; plus {', '.join(map('{:g}'.format, counts))} labelled validation songs" if counts else ""


def _counts(table: pd.DataFrame, songs: str, seeds: str) -> str:
    return f"{sentences.counted(table['n_songs'].max(), songs)}, {sentences.counted(table['n_seeds'].max(), seeds)}"


def claims(results: Path) -> str:
    """The table of claims."""
    table = conclusions.shown(_table(results, "claims"))
    return sentences.markdown_table(table.assign(verdict="**" + table["verdict"] + "**"))


def ablations(results: Path) -> str:
    """Gain over scratch at every level of every axis, and its difference from the base of the axis."""
    table = _table(results, "ablation_effects")
    gain = [_shown(*row) for row in table[["difference", "low", "high"]].itertuples(index=False)]
    gaps = [_shown(*row) for row in table[["from_base", "from_base_low", "from_base_high"]].itertuples(index=False)]
    from_base = [f"**{gap}**" if shown else gap for gap, shown in zip(gaps, sentences.differs(table), strict=True)]
    columns = {"axis": table["axis"].where(~table["axis"].duplicated(), ""), "level": table["level"]}
    counts = _counts(table, "test song", "seed")
    rows = pd.DataFrame(columns | {"above scratch": gain, "more than at the base": from_base})
    note = "bold: shown to differ from the base, with Holm's correction over the axis"
    return f"{sentences.markdown_table(rows)}\n\n(mean {_primary(results)} in dB; {counts}; {note})"


def shares(results: Path) -> str:
    """What definition and correlation close of the distance to the supervised model."""
    table = _table(results, "shares")
    columns = {"what": table["what"]}
    columns["closes (dB)"] = [_shown(*row) for row in table[["decibels", "low_db", "high_db"]].itertuples(index=False)]
    columns["share of the distance"] = table["share"].map("{:.0%}".format)
    columns["p (Holm)"] = table["p_holm"].map(sentences.p_short)
    return f"{sentences.markdown_table(pd.DataFrame(columns))}\n\n({_counts(table, 'test song', 'pre-training')})"


def _shown(value: float, low: float, high: float) -> str:
    """A difference with its interval, or "(base)"."""
    return "(base)" if pd.isna(value) else f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def scores(results: Path) -> str:
    """Primary metric and cSDR (dB) over the stems of the test songs, by method and label budget."""
    summary = summarise(_table(results, "scores"))
    summary = summary[(summary["stem"] == MEAN) & (summary["experiment"] == "test")]
    budgets = summary["labeled_songs"].astype("string").fillna("none").rename("labelled songs")
    means = summary.groupby(["method", budgets, "metric"], sort=False)["value"].mean().unstack("metric")
    shown = means[[_primary(results), "cSDR"]].map("{:.2f}".format).rename(columns="{} (dB)".format)
    note = _validating(_table(results, "claim")).removeprefix("; ")
    return f"{sentences.markdown_table(shown.reset_index())}\n\n({note})"


def records(results: Path) -> str:
    """Number and training time of the runs."""
    runs = [Run(path.parent).facts() for path in sorted((results / "runs").glob("*-*/done.json"))]
    hours = sum(run["seconds"] for run in runs) / 3600
    return f"{len(runs)} runs, {hours:.1f} core hours of training ({', '.join(sorted({run['cpu'] for run in runs}))})."


def _measured(name: str, results: Path) -> str:
    """The measurements in ``tables/NAME.csv`` of a benchmark."""
    rows = []
    for row in _table(results, name)[["what", "value", "unit", "low", "high"]].itertuples():
        digits = {"%": 1, "trials": 0}.get(row.unit, 2)
        spread = f" ({row.low:.{digits}f} to {row.high:.{digits}f})" if pd.notna(row.low) else ""
        rows.append((row.what, f"{row.value:.{digits}f} {row.unit}{spread}"))
    return sentences.markdown_table(pd.DataFrame(rows, columns=[name, "measured"]))


def sources(results: Path) -> str:
    """Pieces and hours by source, after the rules."""
    table = _table(results, "sources")
    table["hours"] = table["hours"].map("{:.2f}".format)
    return sentences.markdown_table(table.rename(columns={"left_out": "left out"}))


def how_real(results: Path) -> str:
    """Medians over songs of what the stems of every corpus sound like."""
    table = _table(results, "how_real")
    columns = {
        "stem": table["stem"].where(~table["stem"].duplicated(), ""),
        "music": table["corpus"] + ", " + table["songs"].map("{} songs".format),
        "level (dB)": table["level_db"].map("{:.1f}".format),
        "spectral centroid (Hz)": table["centroid"].map("{:.0f}".format),
        "crest (dB)": table["crest"].map("{:.1f}".format),
        "activity": table["activity"].map("{:.0%}".format),
    }
    return sentences.markdown_table(pd.DataFrame(columns))


def intervals(results: Path) -> str:
    """Coverage of the 95% intervals in `benchmarks.intervals`: one row per number of pre-trainings."""
    table = _table(results, "intervals")
    ranges = table.groupby(["pretrainings", "interval"])["coverage"].agg(["min", "max"])
    shown = ranges["min"].map("{:.1f}".format) + " to " + ranges["max"].map("{:.1f} %".format)
    wide = shown.unstack("interval")[["t interval", "bootstrap"]].reset_index()
    return sentences.markdown_table(wide.rename(columns={"pretrainings": "pre-trainings"}))


def speed(results: Path) -> str:
    """The medians of `benchmarks`, with the median and range of every ratio over rounds."""
    content = json.loads((results / "table.json").read_text("utf-8"))
    rows = [
        (row["what"], _quantity(row["ours"], row["unit"]), _peer(row), _ratio(row["ratio"], row["low"], row["high"]))
        for row in content["rows"]
    ]
    busy = [row["load"] for row in content["rows"] if row["load"] is not None]
    loads = f"; load of the machine at the start of a case: {min(busy):.1f} to {max(busy):.1f}" if busy else ""
    table = pd.DataFrame(rows, columns=["what", "this project", "peer", "ratio (range)"])
    return f"{sentences.markdown_table(table)}\n\n({content['machine']}{loads})"


def _peer(row: dict) -> str:
    return "" if row["peer"] is None else f"{row['peer is']}: {_quantity(row['peer'], row['unit'])}"


def _quantity(value: float, unit: str) -> str:
    return f"{1000 * value:.0f} ms" if unit == "s" and value < 0.1 else f"{float(f'{value:.3g}'):,.4g} {unit}".strip()


def _ratio(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    digits = 3 if value < 0.1 else 2 if value < 10 else 0
    spread = "" if low is None else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}{spread}"


BLOCKS: dict[str, Callable[[Path], str]] = {
    "answer": answer,
    "regime": regime,
    "claims": claims,
    "ablations": ablations,
    "shares": shares,
    "scores": scores,
    "records": records,
    "listening": partial(_measured, "listening"),
    "sources": sources,
    "how_real": how_real,
    "music": partial(_measured, "music"),
    "intervals": intervals,
    "speed": speed,
}


def files() -> list[Path]:
    """Every README of the project. Those beside the runs in ``results`` are model cards."""
    code = [path for folder in FOLDERS for path in (ROOT / folder).rglob("README.md")]
    return [path for path in (ROOT / "README.md", ROOT / "results" / "README.md", *sorted(code)) if path.exists()]


def render(text: str, results: Path) -> str:
    """``text`` with every block rewritten from ``results``. Raises: UserError."""

    def block(match: re.Match) -> str:
        start, name, folder, end = match.groups()
        if name not in BLOCKS:
            raise UserError(f"unknown numbers '{name}': use one of {', '.join(BLOCKS)}")
        try:
            return f"{start}{BLOCKS[name](results / folder)}\n{end}"
        except KeyError as error:
            raise UserError(
                f"numbers '{name}': {error} is missing in results/{folder}, which an earlier version wrote; rebuild it"
            ) from error

    return BLOCK.sub(block, text)


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 up to date or rewritten, 1 outdated with ``--check``, 2 wrong call or missing table."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m lib.report.readme [--check]", file=sys.stderr)
        return 2
    return max(_update(path, bool(arguments)) for path in files())


def _update(path: Path, check: bool) -> int:
    """The exit status of one file, which is rewritten unless this is a ``check``."""
    name, old = path.relative_to(ROOT), path.read_text("utf-8")
    try:
        new = render(old, ROOT / "results")
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    if new != old and check:
        print(f"{name} is out of date: run python -m lib.report.readme", file=sys.stderr)
    elif new != old:
        with atomic(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return int(new != old and check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
