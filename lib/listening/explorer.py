"""Panels for notebooks that are opened live: compare what the methods made of a song, separate a file of one's own."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML

from lib import STEMS, UserError, one_line
from lib.listening import sources
from lib.listening.blind.analysis import Analysis
from lib.listening.blind.simulated import SIMULATED
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.listening.player import Player
from lib.listening.static import decibels
from lib.study import Study

ALL_METHODS, ALL_STEMS = "all methods", "all stems"
MOST_OF_NAME = 100
"""Characters that are kept of the name of a file that is uploaded."""


def is_live() -> bool:
    """Whether someone sits at this notebook: front ends allow input, papermill and nbconvert do not; Voilà is asked."""
    kernel = getattr(get_ipython(), "kernel", None)
    asked = bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))
    return asked or os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def chosen(
    excerpt: Excerpt, stem: str, method: str = ALL_METHODS, errors: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(signals [2, T] by name, notes by name) of one stem by every method or one, or of all stems by one.

    One stem stands between the mixture and its errors, estimate minus reference, if these are asked for.
    """
    known = excerpt.versions.get(REFERENCE)
    if stem == ALL_STEMS:
        method = next(iter(excerpt.versions)) if method == ALL_METHODS else method
        parts = [(name, method, name) for name in STEMS]
        signals = {}
    else:
        names = [name for name in excerpt.versions if name == REFERENCE or method in (ALL_METHODS, name)]
        parts = [(name, name, stem) for name in sorted(names, key=lambda name: name != REFERENCE)]
        signals = {"mixture": excerpt.mixture}
    notes, wrong = {}, {}
    for name, version, part in parts:
        at = STEMS.index(part)
        signals[name] = excerpt.versions[version][at]
        if version in excerpt.scores:
            notes[name] = f"uSDR {decibels(excerpt.scores[version][at])}"
        if errors and known is not None and version != REFERENCE:
            wrong[f"error of {name}"] = signals[name] - known[at]
    return {**signals, **wrong}, notes


def player(excerpt: Excerpt, stem: str, method: str = ALL_METHODS, errors: bool = False) -> Player:
    """The player of what `chosen` gives; all stems of a method start mixed."""
    signals, notes = chosen(excerpt, stem, method, errors)
    mixed = stem == ALL_STEMS and not errors
    return Player(signals, excerpt.rate, notes, f"{excerpt.song}, {stem}", excerpt.start, mixed=mixed)


class Explorer(widgets.VBox):
    """Panel: choose a song, a stem (or all of them), a method (or all), with or without error signals."""

    def __init__(self, heard: Sequence[Excerpt]):
        self._heard = {excerpt.song: excerpt for excerpt in heard}
        self.song = widgets.Dropdown(options=list(self._heard), description="song")
        self.stem = widgets.Dropdown(options=[*STEMS, ALL_STEMS], value="vocals", description="stem")
        self.method = widgets.Dropdown(options=[ALL_METHODS, *heard[0].versions], description="method")
        self.errors = widgets.Checkbox(description="errors (estimate minus reference)", indent=False)
        controls = (self.song, self.stem, self.method, self.errors)
        bar = widgets.HBox(controls, layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([bar, widgets.VBox()])
        for control in controls:
            control.observe(self._update, "value")
        self._update()

    def _update(self, *_) -> None:
        excerpt = self._heard[self.song.value]
        if (self.stem.value, self.method.value) == (ALL_STEMS, ALL_METHODS):
            self.method.value = next(iter(excerpt.versions))  # all stems are those of one method: say of which
            return
        old = self.children[1]
        new = player(excerpt, self.stem.value, self.method.value, self.errors.value)
        self.children = [self.children[0], new]
        old.close()


class OwnFile(widgets.VBox):
    """Panel: separate a file that is uploaded, or that lies on the machine the notebook runs on; stems to download."""

    def __init__(self, study: Study):
        self._study = study
        self.upload = widgets.FileUpload(accept="audio/*,video/*")
        self.path = widgets.Text(description="or a path", placeholder="for large files", layout={"width": "420px"})
        self.start = widgets.BoundedFloatText(0.0, min=0.0, max=1e6, description="from (s)")
        seconds = study.profile.listening.seconds
        self.seconds = widgets.BoundedFloatText(seconds, min=0.5, max=600.0, description="length (s)")
        self.button, self.bar = widgets.Button(description="Separate"), widgets.IntProgress()
        self.said, self.shown = widgets.HTML(), widgets.VBox()
        self.button.on_click(self._separate)
        lines = ([self.upload, self.path], [self.start, self.seconds, self.button, self.bar])
        rows = [widgets.HBox(line, layout=widgets.Layout(flex_flow="row wrap")) for line in lines]
        super().__init__([*rows, self.said, self.shown])

    def _progress(self, done: int, total: int) -> None:
        self.bar.max, self.bar.value = total, done

    def _separate(self, _) -> None:
        self.button.disabled, self.bar.value, self.said.value = True, 0, "loading the model ..."
        for old in self.shown.children:
            old.close()
        self.shown.children = ()
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(self.path.value.strip() or "no file chosen").expanduser()
                for sent in () if self.path.value.strip() else self.upload.value:
                    file = Path(folder) / (Path(sent["name"]).name[-MOST_OF_NAME:].replace("\0", "") or "file")
                    file.write_bytes(sent["content"])
                heard = sources.own_file(self._study, file, self.start.value, self.seconds.value, self._progress)
            self.said.value = f"separated by <b>{html.escape(next(iter(heard.versions)))}</b>"
            signals = {**chosen(heard, ALL_STEMS)[0], "mixture": heard.mixture}
            self.shown.children = [Player(signals, heard.rate, title=heard.song, start=heard.start)]
        except (UserError, OSError, RuntimeError) as error:
            self.said.value = html.escape(one_line(str(error)))
        finally:
            self.button.disabled = False


def analysis_tables(found: Analysis | pd.DataFrame | None) -> HTML:
    """The tables of a blind test's analysis, one below the other, with what each of them holds."""
    if found is None:
        return HTML("<p>Nobody has taken this test yet.</p>")
    if isinstance(found, pd.DataFrame):
        return HTML(found.to_html(index=False, float_format="{:.3g}".format))
    means = found.means.pivot(index=["question", "condition"], columns="stem", values=["mean", "low", "high"])
    titles = {
        "Screening": found.screening,
        "Mean rating over stems, with its 95% interval": means.xs("mean", level="stem", axis=1).reset_index(),
        "Paired differences of methods": found.tests,
        "Rank correlation of ratings and uSDR": found.agreement,
    }
    simulated = "SIMULATED: " if found.ratings[SIMULATED].any() else ""
    parts = [
        f"<h4>{simulated}{title}</h4>{table.to_html(index=False, float_format='{:.3g}'.format)}"
        for title, table in titles.items()
    ]
    return HTML("".join(parts))
