"""Is every number traceable? ``python -m lib.pipeline.audit results/PROFILE [--cell tables/NAME.csv:ROW]``

The audit compares all tables and figures of a study with their recorded hashes, then derives them again, in a temporary
folder, from the records of the runs alone: it executes the notebooks without training and without the cells tagged
``audio``, and the files must be identical. Of the listening notebook it compares the hashes alone. ``--keep-records``
copies the records to ``results/PROFILE/records``, which replaces missing runs in an audit, but not in a study.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import yaml

from lib import ROOT, UserError
from lib.experiments import power, protocol
from lib.machine import kernels
from lib.machine.processes import ended
from lib.pipeline import notebooks
from lib.store import provenance
from lib.store.fingerprints import training_code
from lib.store.runs import Run
from lib.store.tables import read_table

RECORDS, KEPT = ("*.json", "*.csv"), "records"


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 all files derive from their runs, 1 some do not (one line each), 2 wrong call."""
    parser = argparse.ArgumentParser(prog="python -m lib.pipeline.audit", description="Is every number traceable?")
    parser.add_argument("results", type=Path, help="results/PROFILE")
    parser.add_argument("--cell", metavar="FILE:ROW", help="print the provenance of one table row, from 1")
    parser.add_argument("--keep-records", action="store_true", help="copy the records of the runs, for a commit")
    options = parser.parse_args(arguments)
    try:
        facts = provenance.read(options.results)
        _check(options.results, facts)
        if options.keep_records:
            keep_records(options.results)
        if options.cell:
            print("\n".join(f"{name}: {value}" for name, value in cell(options.results, options.cell).items()))
            return 0
        if others := other_code(options.results):
            print(f"note: {others}", file=sys.stderr)
        problems = [*altered(options.results, facts), *missing_runs(options.results)]
        problems = problems or [*underived(options.results, facts)]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(problems) or f"{len(facts['files'])} tables and figures derive from their runs")
    return 1 if problems else 0


def _check(results: Path, facts: dict) -> None:
    """Raises: UserError if ``facts`` is not the provenance of a study."""
    if not isinstance(facts.get("files"), dict):
        raise UserError(f"{results}: no provenance.json with files: run the study first")
    files, profile = facts["files"], facts.get("profile")
    whole = all(isinstance(facts.get(key), dict) for key in ("profile", "stages", "code", "corpora"))
    whole &= all(isinstance(record, dict) and {"notebook", "sha256"} <= set(record) for record in files.values())
    inside = all(".." not in Path(name).parts and not Path(name).is_absolute() for name in files)
    if not (whole and inside and Path(str(profile.get("name"))).name == profile.get("name")):
        raise UserError(f"{results}: provenance.json was not written by a study: run the study again")


def altered(results: Path, facts: dict) -> Iterator[str]:
    """Tables and figures that differ from their recorded hashes."""
    for name, record in facts["files"].items():
        path = results / name
        if not path.is_file():
            yield f"{name}: missing, written by {record['notebook']}"
        elif _sha256(path) != record["sha256"]:
            yield f"{name}: not what {record['notebook']} wrote: edited or replaced"
    present = [*(results / "tables").glob("*.*"), *(results / "figures").glob("*.svg")]
    unknown = sorted({str(path.relative_to(results)) for path in present} - {*facts["files"], power.TABLE})
    yield from (f"{name}: written by no notebook" for name in unknown)


def missing_runs(results: Path) -> Iterator[str]:
    """Runs in ``tables/runs.csv`` that are missing or have other weights."""
    for name, weights in read_table(results / "tables" / "runs.csv")[["run", "weights"]].drop_duplicates().values:
        run = next((run for run in (Run(results / kind / name) for kind in ("runs", KEPT)) if run.finished), None)
        if run is None:
            yield f"runs/{name}: missing, but the tables use it"
        elif run.facts()["weights"] != weights:
            yield f"runs/{name}: not the weights that the tables use"


def other_code(results: Path) -> str:
    """A note on runs trained by another version of the code, or ""; their records still count."""
    runs = [Run(path.parent) for kind in ("runs", KEPT) for path in (results / kind).glob("*-*/done.json")]
    others = sum(run.facts().get("code") != training_code() for run in runs)
    note = f"{others} of {len(runs)} runs: trained by another version of the code; results=FOLDER retrains"
    return note if others else ""


def underived(results: Path, facts: dict) -> Iterator[str]:
    """Tables and figures that do not derive from the records of the runs."""
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "results"
        _gather(results, target)
        profile = Path(temporary) / f"{facts['profile']['name']}.yaml"
        fields = {key: value for key, value in facts["profile"].items() if key not in ("name", "results")}
        profile.write_text(yaml.safe_dump(fields), encoding="utf-8")
        names = sorted(_writers(facts) - {notebooks.LISTENING})
        overrides = [f"results={target}", "compute.training=false", "compute.jobs=1"]
        call = [sys.executable, "-m", "lib.pipeline.cells", str(profile), *overrides, "--silent", "--notebooks", *names]
        with kernels.kernel_environment():
            done = subprocess.run(call, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            yield done.stdout.strip() or f"the process of the notebooks {ended(done.returncode)}"
            return
        derived = {name: record for name, record in facts["files"].items() if record["notebook"] != notebooks.LISTENING}
        for name, record in derived.items():
            if not (target / name).is_file():
                yield f"{name}: {record['notebook']} no longer writes it"
            elif _sha256(target / name) != record["sha256"]:
                yield f"{name}: differs from what its runs give"


def cell(results: Path, where: str) -> dict[str, object]:
    """Provenance of a table row: file, notebook, values, commit, profile, corpora, seeds and runs."""
    name, _, row = where.rpartition(":")
    facts = provenance.read(results)
    if name not in facts["files"] or not row.isdecimal():
        raise UserError(f"--cell {where}: give a table and a row, as tables/claim.csv:1")
    table = read_table(results / name)
    if not 1 <= int(row) <= len(table):
        raise UserError(f"--cell {where}: {name} has rows 1 to {len(table)}")
    values, notebook = table.iloc[int(row) - 1], facts["files"][name]["notebook"]
    named = read_table(results / "tables" / "runs.csv")
    contributing = _contributing_runs(named[named["notebook"] == notebook], values)
    return {
        "file": name,
        "sha256": facts["files"][name]["sha256"],
        "notebook": f"{notebook}, ended {facts['stages'].get(notebook, {}).get('end')}",
        "row": ", ".join(f"{key} {value}" for key, value in values.dropna().items()),
        "commit": f"{facts['code']['commit']}{' with changes' if facts['code']['dirty'] else ''}",
        "profile": facts["profile"]["name"],
        "corpora": ", ".join(f"{key} {value}" for key, value in facts["corpora"].items()),
        "seeds": ", ".join(str(seed) for seed in sorted(contributing["seed"].dropna().unique())),
        "runs": ", ".join(contributing["run"].drop_duplicates()) or "none: no trained model contributes",
    }


def _writers(facts: dict) -> set[str]:
    return {record["notebook"] for record in facts["files"].values()}


def _contributing_runs(runs: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """The runs of a notebook behind a row: those of its methods, seed, label budget and fold, where it has any."""
    axis = row.get("axis", row.get("experiment")) if "level" in row else None
    methods = {row[key] for key in ("method", "against") if key in row}
    named = {f"{axis}, {row['level']}: {method}" for method in methods} if axis else methods
    chosen = runs[runs["method"].isin(named)] if named & set(runs["method"]) else runs
    for key in {"seed", "labeled_songs", "fold"} & set(chosen):
        if key in row and pd.notna(row[key]):
            chosen = chosen[chosen[key].isna() | (chosen[key] == row[key])]
    return chosen


def keep_records(results: Path) -> None:
    """Replace ``records`` by the records of the runs."""
    new, kept = results / f"{KEPT}.new", results / KEPT
    shutil.rmtree(new, ignore_errors=True)
    _copy_records(results / "runs", new)
    shutil.rmtree(kept, ignore_errors=True)
    new.rename(kept)


def _gather(results: Path, target: Path) -> None:
    """Copy the records of the runs and the protocol, and link the corpora."""
    for kind in (KEPT, "runs"):
        _copy_records(results / kind, target / "runs")
    if (results / protocol.FILE).is_file():
        shutil.copyfile(results / protocol.FILE, target / protocol.FILE)
    with contextlib.suppress(FileExistsError):
        (results / "corpora").mkdir(parents=True)
    (target / "corpora").symlink_to((results / "corpora").resolve(), target_is_directory=True)


def _copy_records(runs: Path, target: Path) -> None:
    """Copy the JSON and CSV files of the runs, without stamps and museval files, which no table uses."""
    target.mkdir(parents=True, exist_ok=True)
    for path in (path for kind in RECORDS for path in runs.rglob(kind)):
        name = path.relative_to(runs)
        if not {"stamps", "museval"} & set(name.parts):
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
