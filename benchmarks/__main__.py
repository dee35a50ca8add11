"""``python -m benchmarks [CASE ...] [--json FILE]``: this project beside its peers, in one table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

NAMES = ("demo", "small", "medium", "mixit", "scores", "separation", "crops", "collection", "corpus")


def main() -> int:
    """Measure, print, save; the file is written after every case, so that a later one's failure loses nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this project beside its peers.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also save the table there, keeping its other cases")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats whose median counts (default: 5)")
    call = parser.parse_args()
    unknown = sorted(set(call.cases) - set(NAMES))
    if unknown or call.repeats < 1:
        parser.error(f"unknown case {unknown[0]}: use {', '.join(NAMES)}" if unknown else "--repeats from 1")
    # torch is imported here: processes that the corpus is made in import this file again
    from benchmarks.cases import CASES
    from benchmarks.timing import machine
    from lib.store.files import atomic

    facts = machine()
    try:
        rows = saved_rows(call.json, facts) if call.json and call.json.exists() else []
    except ValueError as error:
        parser.error(str(error))
    print(facts, "\n")
    print(f"{'what':50} {'ours':>9} {'peer':>9}      {'ratio':>7}  {'target':8} peer is")
    for name in call.cases or NAMES:
        measured = [{"case": name, "repeats": call.repeats, **row} for row in CASES[name](call.repeats)]
        print(*map(line, measured), sep="\n", flush=True)
        rows = sorted([row for row in rows if row["case"] != name] + measured, key=lambda row: NAMES.index(row["case"]))
        if call.json:
            content = {"machine": facts, "rows": rows}
            with atomic(call.json) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return 0


def saved_rows(file: Path, facts: str) -> list[dict]:
    """Rows that a table of this machine holds. Raises: ValueError if the file is anything else, which it stays."""
    try:
        content = json.loads(file.read_text("utf-8"))
        measured_on, rows = content["machine"], content["rows"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: not a table of these benchmarks; name another file") from None
    if measured_on != facts:
        raise ValueError(f"{file}: a table of another machine ({measured_on}); name another file")
    return rows


def line(row: dict) -> str:
    """A row of the table as text."""
    peer = " " * 9 if row["peer"] is None else f"{row['peer']:9.4g}"
    ratio = " " * 8 if row["ratio"] is None else f"{row['ratio']:8.3g}"
    return f"{row['what']:50} {row['ours']:9.4g} {peer} {row['unit']:4} {ratio}  {row['target']:8} {row['peer is']}"


if __name__ == "__main__":
    sys.exit(main())
