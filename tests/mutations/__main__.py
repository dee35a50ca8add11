"""Does the suite notice what is broken? ``python -m tests.mutations [NUMBER ...]``

Each entry of ``list.yaml`` replaces one place in ``lib``; the tests named beside it, and those of properties, run on a
copy of the project, and at least one of them must fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LIST = yaml.safe_load((Path(__file__).parent / "list.yaml").read_text("utf-8"))


def caught(mutation: dict, copy: Path) -> bool:
    """Whether a test fails with the line broken in ``copy``; the line is put back."""
    file = copy / "lib" / mutation["file"]
    whole = file.read_text("utf-8")
    if whole.count(mutation["old"]) != 1:
        raise SystemExit(f"{mutation['file']}: stands there {whole.count(mutation['old'])} times: {mutation['old']}")
    file.write_text(whole.replace(mutation["old"], mutation["new"]), "utf-8")
    try:
        return not passes(mutation["tests"].split(), copy)
    finally:
        file.write_text(whole, "utf-8")


def passes(names: list[str], copy: Path) -> bool:
    """Whether the tests of these names and those of properties pass. Raises: SystemExit if they cannot be run."""
    tests = [f"tests/{name}.py" for name in names]
    call = [sys.executable, "-m", "pytest", "-q", "-x", *tests, "tests/test_properties.py"]
    done = subprocess.run(call, cwd=copy, env=os.environ, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.returncode == 0


def main(numbers: list[int]) -> int:
    """Exit status: 0 all caught, 1 some were not."""
    chosen = [(i, LIST[i - 1]) for i in numbers or range(1, len(LIST) + 1)]
    missed = 0
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "project"
        for folder in ("lib", "tests", "notebooks", "benchmarks"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in filter(Path.is_file, ROOT.iterdir()):
            shutil.copy(file, copy)
        if not passes(sorted({name for _, mutation in chosen for name in mutation["tests"].split()}), copy):
            raise SystemExit("the tests fail with nothing broken: fix that first")
        for number, mutation in chosen:
            found = caught(mutation, copy)
            missed += not found
            print(f"{number:2d} {'caught' if found else 'MISSED'}: {mutation['file']}: {mutation['new']!r}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main([int(argument) for argument in sys.argv[1:]]))
