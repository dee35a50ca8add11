"""``python -m tests.cells PROFILE [key=value ...]``: the cells of all notebooks in one process, which imports once."""

import json
import sys

from IPython.core.interactiveshell import InteractiveShell

from lib import ROOT


def main(profile: str, *overrides: str) -> None:
    """Raises what a cell raises."""
    shell = InteractiveShell.instance()
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        print(path.stem, flush=True)
        shell.reset()
        shell.user_module.__spec__ = None  # processes of its own look for it
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            source = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            if "parameters" in cell["metadata"].get("tags", ()):
                source = f"profile, overrides = {profile!r}, {list(overrides)!r}"
            shell.run_cell(source).raise_error()


if __name__ == "__main__":
    main(*sys.argv[1:])
