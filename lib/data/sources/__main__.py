"""Fetch music by name: ``python -m lib.data.sources debian [--to data]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from lib import ROOT, UserError
from lib.data.sources import SOURCES
from lib.machine import signals


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.data.sources", description=__doc__.split(":")[0])
    parser.add_argument("source", nargs="+", choices=SOURCES)
    parser.add_argument("--to", type=Path, default=ROOT / "data", help="the folder of all sources (default: data)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode (default: 2)")
    asked = parser.parse_args()
    for name in asked.source:
        root = asked.to / name
        SOURCES[name].provide(root, True, asked.workers)
        print(summary(root))


def summary(root: Path) -> str:
    """Pieces, hours and reasons in the table of a source."""
    table = pd.read_csv(root / "pieces.csv", keep_default_na=False)
    out = table["left_out"] != ""
    hours = pd.to_numeric(table["seconds"][~out]).sum() / 3600
    return f"{root}: {len(table) - out.sum()} pieces, {hours:.1f} h; {out.sum()} left out (see pieces.csv)"


if __name__ == "__main__":
    signals.listen()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except signals.Stopped:
        sys.exit(f"stopped by {signals.stop_requested()}: the same call resumes")
