"""``python -m benchmarks [CASE ...] [--json FILE]``: this project beside its peers, in one table."""

from __future__ import annotations

import argparse
import json
import os
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
    # as the profiles for CPUs train: a run a core, one thread each; libraries read this when they are imported
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # torch is imported here: processes that the corpus is made in import this file again
    from benchmarks.cases import CASES
    from benchmarks.timing import load, machine
    from lib.store.files import atomic
    from lib.store.provenance import code

    facts = machine()
    try:
        rows = saved_rows(call.json, facts) if call.json and call.json.exists() else []
    except ValueError as error:
        parser.error(str(error))
    print(facts, "\n")
    print(f"{'what':55} {'ours':>8} {'peer':>8}         {'ratio':>6} {'range':14} {'target':8} peer is")
    for name in call.cases or NAMES:
        about = {"case": name, "repeats": call.repeats, "load": load(), "commit": code()["commit"]}
        measured = [about | row for row in CASES[name](call.repeats)]
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
    peer, ratio = ("" if row[name] is None else f"{row[name]:.3g}" for name in ("peer", "ratio"))
    spread = "" if row["low"] is None else f"{row['low']:.3g} to {row['high']:.3g}"
    numbers = f"{row['ours']:8.3g} {peer:>8} {row['unit']:7} {ratio:>6} {spread:14}"
    return f"{row['what']:55} {numbers} {row['target']:8} {row['peer is']}"


if __name__ == "__main__":
    sys.exit(main())
