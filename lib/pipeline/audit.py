"""Is every number traceable? ``python -m lib.pipeline.audit results/PROFILE [--cell tables/NAME.csv:ROW]``

All tables and figures of a study are compared with the hashes that were recorded when they were written, then made
anew, in another folder, from the records of the runs alone: the notebooks are executed without training and without
the cells tagged ``audio``, and what they write must be the same bytes. ``--keep-records`` copies those records to
``results/PROFILE/records``, which stands in for runs that are not there; unlike them it spares no study any training.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
import pandas as pd
import yaml

from lib import ROOT, UserError
from lib.machine import kernels
from lib.pipeline import notebooks
from lib.store import provenance
from lib.store.files import atomic
from lib.store.fingerprints import training_code
from lib.store.runs import Run
from lib.store.tables import read_table

AUDIO = "audio"
"""Tag of the cells that play sound: they need weights, and write no table and no figure."""
RECORDS, KEPT = ("*.json", "*.csv"), "records"
LISTENING = "05_listening"
"""The notebook that stands on what models separate, not on records: its files are compared with their hashes alone."""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 everything is as it was derived, 1 something is not (a line each), 2 wrong call."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.pipeline.audit", description="Where do these results come from?"
    )
    parser.add_argument("results", type=Path, help="results/PROFILE")
    parser.add_argument("--cell", metavar="FILE:ROW", help="where one row of a table comes from; rows count from 1")
    parser.add_argument("--keep-records", action="store_true", help="copy the runs' records, to be committed")
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
    print("\n".join(problems) or f"{len(facts['files'])} tables and figures are what their runs give")
    return 1 if problems else 0


def _check(results: Path, facts: dict) -> None:
    """Raises: UserError if the record is not one that a study wrote."""
    if not isinstance(facts.get("files"), dict):
        raise UserError(f"{results}: no provenance.json that names files: run the study there first")
    files, profile = facts["files"], facts.get("profile")
    whole = all(isinstance(facts.get(key), dict) for key in ("profile", "stages", "code", "corpora"))
    whole &= all(isinstance(record, dict) and {"notebook", "sha256"} <= set(record) for record in files.values())
    inside = all(".." not in Path(name).parts and not Path(name).is_absolute() for name in files)
    if not (whole and inside and Path(str(profile.get("name"))).name == profile.get("name")):
        raise UserError(f"{results}: provenance.json was not written by a study: run it there again")


def altered(results: Path, facts: dict) -> Iterator[str]:
    """Tables and figures that are not what their notebook wrote."""
    for name, record in facts["files"].items():
        path = results / name
        if not path.is_file():
            yield f"{name}: written by {record['notebook']}, and gone"
        elif _sha256(path) != record["sha256"]:
            yield f"{name}: not what {record['notebook']} wrote: edited, or made by something else"
    present = [*(results / "tables").glob("*.*"), *(results / "figures").glob("*.svg")]
    strange = sorted({str(path.relative_to(results)) for path in present} - set(facts["files"]))
    yield from (f"{name}: written by no notebook" for name in strange)


def missing_runs(results: Path) -> Iterator[str]:
    """Runs that ``tables/runs.csv`` names and that are not there, or were trained to other weights."""
    for name, weights in read_table(results / "tables" / "runs.csv")[["run", "weights"]].drop_duplicates().values:
        run = next((run for run in (Run(results / kind / name) for kind in ("runs", KEPT)) if run.finished), None)
        if run is None:
            yield f"runs/{name}: missing, and the tables stand on it"
        elif run.facts()["weights"] != weights:
            yield f"runs/{name}: has other weights than the tables stand on"


def other_code(results: Path) -> str:
    """What is to be said of runs that other code trained than that which is here: their records count all the same."""
    runs = [Run(path.parent) for kind in ("runs", KEPT) for path in (results / kind).glob("*-*/done.json")]
    others = sum(run.facts().get("code") != training_code() for run in runs)
    return f"{others} of {len(runs)} runs were trained by other code than is here (results=FOLDER trains anew)" * (
        others > 0
    )


def underived(results: Path, facts: dict) -> Iterator[str]:
    """Tables and figures that the records of the runs do not give."""
    with tempfile.TemporaryDirectory() as temporary:
        anew = Path(temporary) / "results"
        _gather(results, anew)
        profile = Path(temporary) / f"{facts['profile']['name']}.yaml"
        fields = {key: value for key, value in facts["profile"].items() if key not in ("name", "results")}
        profile.write_text(yaml.safe_dump(fields), encoding="utf-8")
        overrides = [f"results={anew}", "compute.training=false", "compute.jobs=1"]
        with kernels.kernel_environment():
            for notebook in sorted(ROOT / "notebooks" / f"{name}.ipynb" for name in _writers(facts) - {LISTENING}):
                quiet = Path(temporary) / notebook.name
                _without_audio(notebook, quiet)
                print(f"{notebook.stem} ...", file=sys.stderr)
                try:
                    notebooks.execute(quiet, anew, {"profile": str(profile), "overrides": overrides})
                except notebooks.NotebookError as error:
                    yield str(error)
                    return
        derived = {name: record for name, record in facts["files"].items() if record["notebook"] != LISTENING}
        for name, record in derived.items():
            if not (anew / name).is_file():
                yield f"{name}: {record['notebook']} does not write it any more"
            elif _sha256(anew / name) != record["sha256"]:
                yield f"{name}: the runs give something else"


def cell(results: Path, where: str) -> dict[str, object]:
    """Where a row of a table comes from: file, notebook, its values, runs, commit, profile, corpora and seeds."""
    name, _, row = where.rpartition(":")
    facts = provenance.read(results)
    if name not in facts["files"] or not row.isdecimal():
        raise UserError(f"--cell {where}: give a table and a row of it, as tables/claim.csv:1")
    table = read_table(results / name)
    if not 1 <= int(row) <= len(table):
        raise UserError(f"--cell {where}: {name} has rows 1 to {len(table)}")
    values, notebook = table.iloc[int(row) - 1], facts["files"][name]["notebook"]
    named = read_table(results / "tables" / "runs.csv")
    fathers = _contributing_runs(named[named["notebook"] == notebook], values)
    return {
        "file": name,
        "sha256": facts["files"][name]["sha256"],
        "notebook": f"{notebook}, ended {facts['stages'].get(notebook, {}).get('end')}",
        "row": ", ".join(f"{key} {value}" for key, value in values.dropna().items()),
        "commit": f"{facts['code']['commit']}{' with changes' if facts['code']['dirty'] else ''}",
        "profile": facts["profile"]["name"],
        "corpora": ", ".join(f"{key} {value}" for key, value in facts["corpora"].items()),
        "seeds": ", ".join(str(seed) for seed in sorted(fathers["seed"].dropna().unique())),
        "runs": ", ".join(fathers["run"].drop_duplicates()) or "none: no trained model is in it",
    }


def _writers(facts: dict) -> set[str]:
    return {record["notebook"] for record in facts["files"].values()}


def _contributing_runs(runs: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """The runs of a notebook that a row stands on: those of its methods, seed and label budget, where it has any."""
    axis = row.get("axis", row.get("experiment")) if "level" in row else None
    methods = {row[key] for key in ("method", "against") if key in row}
    named = {f"{axis}, {row['level']}: {method}" for method in methods} if axis else methods
    chosen = runs[runs["method"].isin(named)] if named & set(runs["method"]) else runs
    for key in {"seed", "labeled_songs", "fold"} & set(chosen):
        if key in row and pd.notna(row[key]):
            chosen = chosen[chosen[key].isna() | (chosen[key] == row[key])]
    return chosen


def keep_records(results: Path) -> None:
    """Copy the records of the runs to ``records``, in place of what is there."""
    new, kept = results / f"{KEPT}.new", results / KEPT
    shutil.rmtree(new, ignore_errors=True)
    _copy_records(results / "runs", new)
    shutil.rmtree(kept, ignore_errors=True)
    new.rename(kept)


def _gather(results: Path, anew: Path) -> None:
    """The records of the runs, without weights, and the corpora by a link."""
    for kind in (KEPT, "runs"):
        _copy_records(results / kind, anew / "runs")
    with contextlib.suppress(FileExistsError):
        (results / "corpora").mkdir(parents=True)
    (anew / "corpora").symlink_to((results / "corpora").resolve(), target_is_directory=True)


def _copy_records(runs: Path, target: Path) -> None:
    """What tables are made from; museval's files are for others to read."""
    target.mkdir(parents=True, exist_ok=True)
    for path in (path for kind in RECORDS for path in runs.rglob(kind)):
        name = path.relative_to(runs)
        if not {"stamps", "museval"} & set(name.parts):
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _without_audio(notebook: Path, target: Path) -> None:
    content = nbformat.read(notebook, as_version=4)
    content.cells = [part for part in content.cells if AUDIO not in part.metadata.get("tags", [])]
    with atomic(target) as temporary:
        nbformat.write(content, temporary)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
