"""The cells of notebooks in one process, which imports once: ``python -m lib.pipeline.cells PROFILE [key=value ...]``.

``--notebooks NAME ...`` runs some instead of all, ``--silent`` leaves out cells that play sound. Nothing is shown, and
no executed notebook written: what counts are the tables and figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from lib import ROOT, UserError
from lib.pipeline.notebooks import paths
from lib.store.files import read_facts

AUDIO = "audio"
"""Tag of the cells that play sound: they need weights, and write no tables or figures."""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, or 1 where a cell fails: one line on standard output, with a traceback unless it is expected."""
    parser = argparse.ArgumentParser(prog="python -m lib.pipeline.cells", description="Run notebooks in one process.")
    parser.add_argument("profile")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--notebooks", nargs="+", metavar="NAME", default=[path.stem for path in paths()])
    parser.add_argument("--silent", action="store_true", help="leave out cells that play sound")
    call = parser.parse_args(arguments)
    shell = InteractiveShell.instance()
    for name in call.notebooks:
        print(f"{name} ...", file=sys.stderr)
        shell.reset()
        shell.user_module.__spec__ = None  # processes of its own look for it
        for source in cells(name, call.silent, f"profile, overrides = {call.profile!r}, {call.overrides!r}"):
            with capture_output(stderr=False) as shown:
                result = shell.run_cell(source)
            if error := result.error_before_exec or result.error_in_exec:
                expected = isinstance(error, UserError)
                sys.stderr.write("" if expected else shown.stdout)
                kind = "" if expected else f"{type(error).__name__}: "
                print(f"{name} failed: {kind}{' '.join(str(error).split())[:400]}")
                return 1
    return 0


def cells(name: str, silent: bool, parameters: str) -> list[str]:
    """The sources of a notebook's cells of code, ``parameters`` in place of its own."""
    found = []
    for cell in read_facts(ROOT / "notebooks" / f"{name}.ipynb", "cells")["cells"]:
        tags = cell["metadata"].get("tags", ())
        if cell["cell_type"] == "code" and not (silent and AUDIO in tags):
            found.append(parameters if "parameters" in tags else "".join(cell["source"]))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
