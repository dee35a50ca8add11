"""The whole study as a user calls it, on a few seconds of audio: everything is made once, and found again."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest

from lib import ROOT
from lib.model import checkpoints
from lib.pipeline import audit
from lib.pipeline.space import planned_bytes
from lib.profile.load import load
from lib.report import card
from lib.scoring import METRICS
from lib.store.files import read_facts
from lib.store.tables import COLUMNS, read_table

NOTEBOOKS = [path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
TABLES = {
    "scores": COLUMNS,
    "claim": ("experiment", "labeled_songs", "method", "against", "metric", "stem", "difference", "low", "high"),
    "claims": ("statement", "effect", "low", "high", "unit", "n", "verdict"),
    "songs_worth": ("labeled_songs", "method", "worth", "low", "high"),
    "search": (*COLUMNS, "learning_rate", "steps", "body_rate"),
    "regime": ("pretrain_steps", "labeled_songs", "difference", "low", "high", "n_songs", "n_seeds"),
    "probes": COLUMNS,
    "correlation": (*COLUMNS, "trained", "tested"),
    "correlation_means": ("trained", "tested", "method", "mean", "low", "high"),
    "shares": ("what", "decibels", "share", "low", "high"),
    "ablations": (*COLUMNS, "level", "base"),
    "unlabelled_music": ("axis", "level", "source", "songs", "hours"),
    "cost": ("stage", "method", "seed", "labeled_songs", "metric", "value"),
    "skipped": ("corpus", "file", "reason"),
    "skipped_reasons": ("corpus", "reason", "files"),
}
FIGURES = {
    *("claim", "scores", "real_song", "songs", "finetune_curves", "pretrain_curves", "before_after", "probes"),
    *("levels", "correlation", "variety", "ablations", "shares", "regime", "search"),
    *("claim_stems", "gain", "budgets", "correlation_table", "within_songs", "ill_posed"),
}


def study(results: Path) -> subprocess.CompletedProcess:
    call = [sys.executable, "-m", "lib.pipeline.notebooks", "smoke"]
    if results != ROOT / "results" / "smoke":  # else it is another call to the study's stamps
        call.append(f"results={results}")
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(filter(Path.is_file, folder.rglob("*")))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The results of a study: those that ``SMOKE_RESULTS`` names, which have just been made, or new ones."""
    if given := os.environ.get("SMOKE_RESULTS"):
        return ROOT / given
    folder = tmp_path_factory.mktemp("study") / "smoke"
    done = study(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_table_of_the_contract_is_there(results):
    for name, columns in TABLES.items():
        table = read_table(results / "tables" / f"{name}.csv")
        assert set(columns) <= set(table.columns), name
        assert len(table) or name.startswith("skipped")


def test_the_disk_that_was_planned_was_enough(results):
    written = sum(path.stat().st_size for path in results.rglob("*") if path.is_file())
    assert written < planned_bytes(load("smoke")) < 10 * written


def test_scores_hold_every_method_song_stem_and_metric(results):
    scores = read_table(results / "tables" / "scores.csv")
    controls = ("scratch, equal compute", "scratch, until it stalls", "pre-trained, until it stalls")
    methods = ("scratch", *controls, "pre-trained, shuffled", "pre-trained (group)", "pre-trained (sliced)")
    models = dict.fromkeys(methods, 2 * 2) | {
        "mixture": 1,
        "ideal ratio mask": 1,
    }
    counts = scores.groupby("method").size()
    assert counts.to_dict() == {method: models[method] * 3 * 4 * len(METRICS) for method in counts.index}
    assert set(counts.index) == set(models)
    assert set(scores.loc[scores["experiment"] == "real song", "song"]) == {"The Easton Ellises - Falcon 69"}


def test_music_that_is_not_there_is_left_out_of_its_axis(results):
    levels = read_table(results / "tables" / "ablations.csv").groupby("experiment")["level"].unique()
    assert list(levels["kind of music"]) == ["rendered", "half single stems"]
    assert list(levels["what is transferred"]) == ["nothing", "encoder", "all"]


def test_where_nothing_is_transferred_nothing_differs(results):
    effects = read_table(results / "tables" / "ablation_effects.csv").set_index("level")
    assert tuple(effects.loc["nothing", ["difference", "low", "high"]]) == (0, 0, 0)


def test_every_figure_is_there_twice(results):
    for name in FIGURES:
        assert (results / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (results / "figures" / f"{name}.svg").read_text("utf-8")


def test_executed_notebooks_name_profile_commit_and_runs(results):
    for name in NOTEBOOKS:
        book = nbformat.read(results / "notebooks" / name, as_version=4)
        assert not [o for cell in book.cells for o in cell.get("outputs", []) if o.output_type == "error"]
        text = json.dumps([cell.get("outputs", []) for cell in book.cells][:8])
        assert "**Profile** `smoke`" in text and "**commit**" in text
        assert name.startswith("00") or re.search(r"(pretrain|scratch|finetune)-[0-9a-f]{12}", text)


def test_the_report_is_one_file_with_figures_sounds_and_links_to_tables(results):
    page = (results / "report.html").read_text("utf-8")
    links = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert {f'id="{link[1:]}"' in page for link in links if link.startswith("#")} == {True}
    inside = {link for link in links if link.startswith("data:")}
    assert {link.partition(";")[0] for link in inside} == {"data:image/svg+xml", "data:audio/ogg"}
    assert len(inside) > len(FIGURES)
    beside = {unquote(link) for link in links - inside if not link.startswith("#")}
    tables = {f"tables/{path.name}" for path in (results / "tables").iterdir() if "simulated" not in path.stem}
    assert beside == tables | {f"notebooks/{name}" for name in NOTEBOOKS}
    claim = read_table(results / "tables" / "claim.csv")
    answer = claim[(claim["stem"] == "mean") & (claim["metric"] == "uSDR") & claim["against"].str.startswith("scratch")]
    answer = answer[answer["method"] == "pre-trained (group)"]
    assert len(answer) == 4  # two budgets, either scratch
    assert all(f"{value:+.2f} dB" in page for value in answer["difference"])


def test_every_notebook_opens_with_its_answer(results):
    for name in NOTEBOOKS[:5]:
        cells = nbformat.read(results / "notebooks" / name, as_version=4).cells
        shown = [output for cell in cells[:4] for output in cell.get("outputs", [])]
        assert any(output["data"].get("text/markdown", "").startswith("**Answer.** ") for output in shown), name
        bars = [output for cell in cells for output in cell.get("outputs", []) if "  0%|" in output.get("text", "")]
        assert not bars, name


def test_a_second_call_does_nothing(results):
    before = {kind: digests(results / kind) for kind in ("tables", "figures", "notebooks")}
    runs = {path: path.stat().st_mtime_ns for path in (results / "runs").glob("*-*/*")}
    again = study(results)
    assert again.returncode == 0
    assert again.stdout.count("unchanged") == len(NOTEBOOKS)
    assert {kind: digests(results / kind) for kind in before} == before
    assert {path: path.stat().st_mtime_ns for path in (results / "runs").glob("*-*/*")} == runs


def test_what_the_listening_notebook_lost_comes_out_the_same(results):
    """Tables and figures of the others are derived again below."""
    before = {kind: digests(results / kind) for kind in ("tables", "figures")}
    (results / "figures" / "listening_simulated.svg").unlink()
    assert study(results).stdout.count("unchanged") == len(NOTEBOOKS) - 1
    assert {kind: digests(results / kind) for kind in before} == before


def test_every_table_and_figure_is_what_the_runs_give(results):
    before = {kind: digests(results / kind) for kind in ("tables", "figures", "notebooks")}
    call, runs = [sys.executable, "-m", "lib.pipeline.audit", str(results)], results / "runs"
    audit.keep_records(results)
    runs.rename(results / "aside")  # records are enough
    try:
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    finally:
        (results / "aside").rename(runs)
        shutil.rmtree(results / "records")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert {kind: digests(results / kind) for kind in before} == before


def test_the_best_models_can_come_with_the_project(results, tmp_path, monkeypatch):
    for name in ("PRETRAINED", "FINETUNED"):
        monkeypatch.setattr(checkpoints, name, tmp_path / f"{name}.safetensors")
    assert card.main(["smoke", f"results={results}"]) == 0
    assert checkpoints.load(checkpoints.PRETRAINED).stem_matrix is None
    assert checkpoints.load(checkpoints.FINETUNED).sources == 4
    text = (tmp_path / "README.md").read_text()
    run = re.search(r"run `(finetune-\w+)` in float16", text)[1]
    losses = [read_facts(path)["best_validation_loss"] for path in (results / "runs").glob("finetune-*/done.json")]
    assert read_facts(results / "runs" / run / "done.json")["best_validation_loss"] < np.median(losses)
    assert "| vocals |" in text and "GPL-2.0" in text


def test_a_cell_names_its_runs(results, capsys):
    claim = read_table(results / "tables" / "claim.csv")
    row = claim[(claim["method"] == "pre-trained (sliced)") & (claim["against"] == "scratch")].index[0]
    assert audit.main([str(results), "--cell", f"tables/claim.csv:{row + 1}"]) == 0
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert told["notebook"].startswith("03_finetune") and told["profile"] == "smoke" and told["seeds"] == "0, 1"
    kinds = [run.split("-")[0] for run in told["runs"].split(", ")]
    assert sorted(kinds) == ["finetune", "finetune", "scratch", "scratch"]
    assert all((results / "runs" / run / "done.json").exists() for run in told["runs"].split(", "))
    for bad in ("tables/claim.csv:0", "tables/nothing.csv:1", "tables/claim.csv"):
        assert audit.main([str(results), "--cell", bad]) == 2


def test_an_edited_table_and_a_missing_run_are_found(results, capsys):
    table, run = results / "tables" / "claim.csv", next((results / "runs").glob("scratch-*"))
    whole, aside = table.read_bytes(), run.with_name("aside")
    table.write_bytes(whole.replace(b"1", b"2", 1))
    run.rename(aside)
    status = audit.main([str(results)])
    table.write_bytes(whole)
    aside.rename(run)
    said = capsys.readouterr().out
    assert status == 1
    assert "tables/claim.csv: not what 03_finetune wrote" in said and f"runs/{run.name}: missing" in said
