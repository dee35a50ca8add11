"""The driver: what is skipped, what is run again, what is written down; with notebooks that only pretend."""

import ast
import json
import os

import nbformat
import pytest

from lib import ROOT, UserError, profile
from lib.machine import kernels
from lib.pipeline import notebooks
from lib.report import page
from lib.store import provenance


def saved(path, source, **more):
    """Write a notebook of one cell."""
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "source": [source], **more}]}))


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A project of two notebooks; returns a function that runs the study and names the notebooks it executed."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "requirements.txt").touch()
    for name in ("00_first", "01_second"):
        saved(tmp_path / "notebooks" / f"{name}.ipynb", "1 + 1")
    results, executed = tmp_path / "results", []

    def execute(notebook, results, parameters):
        executed.append(notebook.stem)
        for file in (f"tables/{notebook.stem}.csv", "tables/shared.csv", f"notebooks/{notebook.stem}.ipynb", *run.more):
            (results / file).parent.mkdir(parents=True, exist_ok=True)
            (results / file).write_text(f"by {notebook.stem}")

    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "execute", execute)
    monkeypatch.setattr(page, "write", lambda results: (results / "report.html").touch())
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(provenance, "describe", lambda settings: {"profile": settings.name})
    monkeypatch.setattr(provenance, "lib_fingerprint", lambda: "the same")

    def run(*changes):
        executed.clear()
        settings = profile.override(profile.Profile("mine", str(results)), dict(changes))
        notebooks.run(settings, results, {})
        return list(executed)

    run.results, run.root, run.more = results, tmp_path, []
    return run


def test_a_second_call_does_nothing(stage):
    assert stage() == ["00_first", "01_second"]
    before = (stage.results / "provenance.json").stat().st_mtime_ns
    assert stage() == []
    assert (stage.results / "provenance.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("touched", "again"),
    [
        ("results/tables/00_first.csv", ["00_first", "01_second"]),
        ("results/tables/01_second.csv", ["01_second"]),
        ("results/notebooks/01_second.ipynb", ["01_second"]),
        ("results/tables/shared.csv", ["00_first", "01_second"]),
        ("notebooks/01_second.ipynb", ["01_second"]),
    ],
)
def test_what_changed_or_vanished_is_made_again_with_all_that_follows(stage, touched, again):
    stage()
    if touched.startswith("results"):
        (stage.root / touched).unlink()
    else:
        saved(stage.root / touched, "1 + 2")
    assert stage() == again
    assert stage() == []


def test_outputs_that_jupyterlab_saved_in_a_notebook_change_nothing(stage):
    stage()
    saved(stage.root / "notebooks" / "00_first.ipynb", "1 + 1", outputs=["2"], execution_count=7)
    assert stage() == []


def test_a_notebook_that_is_none_is_named(stage):
    (stage.root / "notebooks" / "00_first.ipynb").write_text("{}")
    with pytest.raises(UserError, match=r"00_first\.ipynb: cannot be read"):
        stage()


def test_a_changed_profile_runs_everything_and_a_lost_report_nothing(stage):
    stage()
    (stage.results / "report.html").unlink()
    assert stage() == [] and (stage.results / "report.html").exists()
    assert stage(("pretrain.steps", 3)) == ["00_first", "01_second"]


def test_the_blind_test_and_its_answers_concern_the_listening_notebook_alone(stage):
    saved(stage.root / "notebooks" / "05_listening.ipynb", "1 + 1")
    assert len(stage()) == 3
    assert stage(("listening.blind.songs", 3)) == ["05_listening"]
    answers = stage.results / "listening" / "mushra-1a2b3c" / "answers"
    answers.mkdir(parents=True)
    (answers / "CODE.jsonl").write_text("an answer")
    assert stage(("listening.blind.songs", 3)) == ["05_listening"]
    assert stage(("listening.blind.songs", 3)) == []


def test_overrides_that_replace_a_finished_study_say_so(stage, capsys):
    stage()
    assert "another finished study" not in capsys.readouterr().out
    settings = profile.Profile("mine", str(stage.results))
    notebooks.run(settings, stage.results, {"overrides": ["a=1"]})
    assert "another finished study" not in capsys.readouterr().out
    settings = profile.override(settings, {"pretrain.steps": 3})
    notebooks.run(settings, stage.results, {"overrides": ["pretrain.steps=3"]})
    assert "00_first, 01_second are replaced; results=FOLDER keeps it" in capsys.readouterr().out


def test_a_file_added_to_a_folder_of_music_is_noticed(stage, tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    assert len(stage(("corpus.unlabeled", str(music)))) == 2
    (music / "song.wav").touch()
    assert len(stage(("corpus.unlabeled", str(music)))) == 2
    assert stage(("corpus.unlabeled", str(music))) == []


def test_a_clock_that_was_set_back_hides_no_change(stage, tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    song = music / "song.wav"
    song.touch()
    stage(("corpus.unlabeled", str(music)))
    for path in tmp_path.rglob("*"):  # written when the clock was wrong
        os.utime(path, (4e9, 4e9))
    assert len(stage(("corpus.unlabeled", str(music)))) == 2  # the song may be another one
    assert stage(("corpus.unlabeled", str(music))) == []
    os.utime(song, (0, 0))
    table = stage.results / "tables" / "00_first.csv"
    assert len(stage(("corpus.unlabeled", str(music)))) == 2
    table.write_text("by somebody")
    os.utime(table, (0, 0))
    assert len(stage(("corpus.unlabeled", str(music)))) == 2


def test_a_figure_that_no_notebook_draws_any_more_goes(stage):
    stage.more = ["figures/old.svg", "figures/old.png", "figures/kept.svg"]
    stage()
    stage.more = ["figures/kept.svg"]
    saved(stage.root / "notebooks" / "00_first.ipynb", "1 + 2")
    stage()
    assert [path.name for path in (stage.results / "figures").iterdir()] == ["kept.svg"]


def test_what_a_kill_left_half_written_goes(stage):
    stage()
    left = [stage.results / name for name in (".a.json", "tables/.b.csv", "notebooks/.c.ipynb")]
    for path in left:
        path.touch()
    (stage.results / "tables" / "shared.csv").unlink()
    stage()
    assert not any(path.exists() for path in left)


def test_a_results_folder_has_one_user_at_a_time(tmp_path):
    with (
        notebooks.locked(tmp_path),
        pytest.raises(UserError, match=f"process {os.getpid()}"),
        notebooks.locked(tmp_path),
    ):
        pass
    with notebooks.locked(tmp_path):
        pass


def write_notebook(path, *cells):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in ("profile = None\noverrides = []", *cells)]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)


def test_a_kernel_leaves_nothing_in_the_project(tmp_path, monkeypatch):
    """Sockets in the working folder were taken by two studies that began in it at once."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    before = sorted(ROOT.iterdir())
    write_notebook(tmp_path / "00_look.ipynb", "from pathlib import Path", "sorted(map(str, Path('.').iterdir()))")
    with kernels.kernel_environment():
        notebooks.execute(tmp_path / "00_look.ipynb", tmp_path, {"profile": "x", "overrides": []})
    seen = nbformat.read(tmp_path / "notebooks/00_look.ipynb", 4).cells[-1].outputs[0]["data"]["text/plain"]
    assert [ROOT / name for name in ast.literal_eval(seen)] == before


def test_a_failing_notebook_is_one_line_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    write_notebook(tmp_path / "00_bad.ipynb", "from lib import UserError", "raise UserError('song.wav: is empty')")
    with kernels.kernel_environment(), pytest.raises(notebooks.NotebookError) as caught:
        notebooks.execute(tmp_path / "00_bad.ipynb", tmp_path, {"profile": "x", "overrides": ["a=1"]})
    assert str(caught.value).startswith("00_bad failed: song.wav: is empty (see ")
    kept = nbformat.read(tmp_path / "notebooks/00_bad.failed.ipynb", 4)
    assert any('overrides = ["a=1"]' in cell.source for cell in kept.cells)


@pytest.mark.parametrize(("number", "more"), [("SIGSEGV", ""), ("SIGKILL", ", most likely for lack of memory")])
def test_a_kernel_that_a_signal_ended_is_named_by_it(tmp_path, monkeypatch, number, more):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    write_notebook(tmp_path / "00_bad.ipynb", f"import os, signal\nos.kill(os.getpid(), signal.{number})")
    with kernels.kernel_environment(), pytest.raises(notebooks.NotebookError) as caught:
        notebooks.execute(tmp_path / "00_bad.ipynb", tmp_path, {"profile": "x", "overrides": []})
    assert str(caught.value) == f"00_bad failed: its process was ended by {number}{more}"
