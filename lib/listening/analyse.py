"""Analyse the answers to blind tests: ``python -m lib.listening.analyse FOLDER``.

FOLDER is that of a design, or one with several in it. Tables and, of MUSHRA, a figure come into ``FOLDER/analysis``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lib import UserError
from lib.listening.blind import analysis, figures
from lib.store.tables import write_table


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 done, however few answers there are, 2 no design, or damaged answers."""
    parser = argparse.ArgumentParser(prog="python -m lib.listening.analyse", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder with design.json, or a folder of such folders")
    call = parser.parse_args(arguments)
    try:
        for folder in designs(call.folder):
            found = analysis.of_folder(folder)
            for name, table in found.tables.items():
                write_table(folder / "analysis" / f"{name}.csv", table)
                print(f"\n{name}\n{table.to_string(index=False, float_format='{:.3g}'.format)}")
            if len(found.ratings):
                figures.ratings(folder / "analysis", found.ratings, found.tables["means"])
            print("\n" + "; ".join(found.said))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def designs(folder: Path) -> list[Path]:
    """The folders of designs in ``folder``, or itself. Raises: UserError if there is none."""
    places = ("design.json", "*/design.json") if os.path.isdir(folder) else ()
    found = [path.parent for place in places for path in sorted(folder.glob(place))]
    if not found:
        raise UserError(f"{folder}: holds no design.json, nor does a folder in it: name the one that serve printed")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
