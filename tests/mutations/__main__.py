"""Does the suite notice what is broken? ``python -m tests.mutations [NUMBER ...]``

Each entry of ``list.yaml`` replaces one place in ``lib``; the tests named beside it, then those of properties, run on a
copy of the project, and at least one of them must fail. They run in forks of this process, which has imported torch and
nothing of the project but this module.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LIST = yaml.safe_load((Path(__file__).parent / "list.yaml").read_text("utf-8"))
IMPORTED = ["hypothesis", "lightning_fabric", "pandas", "pytest", "scipy.signal", "scipy.stats", "torch"]


def caught(mutation: dict, copy: Path, log: Path) -> bool:
    """Whether a test fails with the line broken in ``copy``; the line is put back."""
    file = copy / "lib" / mutation["file"]
    whole = file.read_text("utf-8")
    if whole.count(mutation["old"]) != 1:
        raise SystemExit(f"{mutation['file']}: stands there {whole.count(mutation['old'])} times: {mutation['old']}")
    file.write_text(whole.replace(mutation["old"], mutation["new"]), "utf-8")
    try:
        return not passes(mutation["tests"].split(), copy, log)
    finally:
        file.write_text(whole, "utf-8")


def passes(names: list[str], copy: Path, log: Path) -> bool:
    """Whether the tests of these names and those of properties pass. Raises: SystemExit if they cannot be run."""
    tests = [f"tests/{name}.py" for name in dict.fromkeys([*names, "test_properties"])]
    process = multiprocessing.get_context("fork").Process(target=_run, args=(["-q", "-x", *tests], copy, log))
    process.start()
    process.join()
    if process.exitcode not in (0, 1):
        raise SystemExit(f"pytest ended with {process.exitcode}:\n{log.read_text('utf-8')[-3000:]}")
    return process.exitcode == 0


def _run(arguments: list[str], copy: Path, log: Path) -> None:
    """In a fork: pytest on the copy, whose modules are those that are imported."""
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(copy)
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True  # a file that changes twice within a second would be taken from there
    for name in [name for name in sys.modules if name.split(".")[0] in ("lib", "tests")]:
        del sys.modules[name]
    import pytest

    status = int(pytest.main(arguments))
    sys.stdout.flush()
    os._exit(status)


def main(numbers: list[int]) -> int:
    """Exit status: 0 all caught, 1 some were not."""
    chosen = [(i, LIST[i - 1]) for i in numbers or range(1, len(LIST) + 1)]
    missed = 0
    for name in IMPORTED:
        __import__(name)
    with tempfile.TemporaryDirectory() as temporary:
        copy, log = Path(temporary) / "project", Path(temporary) / "log"
        for folder in ("lib", "tests", "notebooks", "benchmarks"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in filter(Path.is_file, ROOT.iterdir()):
            shutil.copy(file, copy)
        if not passes(sorted({name for _, mutation in chosen for name in mutation["tests"].split()}), copy, log):
            raise SystemExit(f"the tests fail with nothing broken, fix that first:\n{log.read_text('utf-8')[-3000:]}")
        for number, mutation in chosen:
            found = caught(mutation, copy, log)
            missed += not found
            print(f"{number:2d} {'caught' if found else 'MISSED'}: {mutation['file']}: {mutation['new']!r}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main([int(argument) for argument in sys.argv[1:]]))
