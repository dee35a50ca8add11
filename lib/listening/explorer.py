"""Panels for live notebooks: compare the estimates of a song, separate a user's file."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython import get_ipython
from IPython.display import HTML

from lib import STEMS, UserError, one_line
from lib.listening import sources
from lib.listening.blind.analysis import Analysis
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.listening.player import Player
from lib.listening.static import decibels
from lib.study import Study

ALL_METHODS, ALL_STEMS = "all methods", "all stems"
NAME_LENGTH = 100
"""Maximum length of the name of an uploaded file."""


def is_live() -> bool:
    """Whether a user has this notebook open: front ends allow input, papermill and nbconvert do not; Voilà counts."""
    kernel = getattr(get_ipython(), "kernel", None)
    interactive = bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))
    return interactive or os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def chosen(
    excerpt: Excerpt, stem: str, method: str = ALL_METHODS, errors: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(signals [2, T], notes), by name: one stem by one method or all, or all stems by one method.

    The mixture precedes a single stem; with ``errors``, estimates minus reference follow.
    """
    reference = excerpt.versions.get(REFERENCE)
    if stem == ALL_STEMS:
        method = next(iter(excerpt.versions)) if method == ALL_METHODS else method
        parts = [(name, method, name) for name in STEMS]
        signals = {}
    else:
        names = [name for name in excerpt.versions if name == REFERENCE or method in (ALL_METHODS, name)]
        parts = [(name, name, stem) for name in sorted(names, key=lambda name: name != REFERENCE)]
        signals = {"mixture": excerpt.mixture}
    notes, differences = {}, {}
    for name, version, part in parts:
        at = STEMS.index(part)
        signals[name] = excerpt.versions[version][at]
        if version in excerpt.scores:
            notes[name] = f"uSDR {decibels(excerpt.scores[version][at])}"
        if errors and reference is not None and version != REFERENCE:
            differences[f"error of {name}"] = signals[name] - reference[at]
    return {**signals, **differences}, notes


def player(excerpt: Excerpt, stem: str, method: str = ALL_METHODS, errors: bool = False) -> Player:
    """The player of the `chosen` signals; all stems of a method start mixed."""
    signals, notes = chosen(excerpt, stem, method, errors)
    mixed = stem == ALL_STEMS and not errors
    return Player(signals, excerpt.rate, notes, f"{excerpt.song}, {stem}", excerpt.start, mixed=mixed)


class Explorer(widgets.VBox):
    """Panel: choose a song, a stem or all, a method or all, with or without error signals."""

    def __init__(self, excerpts: Sequence[Excerpt]):
        self._excerpts = {excerpt.song: excerpt for excerpt in excerpts}
        self.song = widgets.Dropdown(options=list(self._excerpts), description="song")
        self.stem = widgets.Dropdown(options=[*STEMS, ALL_STEMS], value="vocals", description="stem")
        self.method = widgets.Dropdown(options=[ALL_METHODS, *excerpts[0].versions], description="method")
        self.errors = widgets.Checkbox(description="errors (estimate minus reference)", indent=False)
        controls = (self.song, self.stem, self.method, self.errors)
        bar = widgets.HBox(controls, layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([bar, widgets.VBox()])
        for control in controls:
            control.observe(self._update, "value")
        self._update()

    def _update(self, *_) -> None:
        excerpt = self._excerpts[self.song.value]
        if (self.stem.value, self.method.value) == (ALL_STEMS, ALL_METHODS):
            self.method.value = next(iter(excerpt.versions))  # all stems of one method
            return
        old = self.children[1]
        new = player(excerpt, self.stem.value, self.method.value, self.errors.value)
        self.children = [self.children[0], new]
        old.close()


class OwnFile(widgets.VBox):
    """Panel: separate an uploaded file or one on the machine of the kernel; the stems can be downloaded."""

    def __init__(self, study: Study):
        self._study = study
        self.upload = widgets.FileUpload(accept="audio/*,video/*")
        self.path = widgets.Text(description="or a path", placeholder="for large files", layout={"width": "420px"})
        self.start = widgets.BoundedFloatText(0.0, min=0.0, max=1e6, description="from (s)")
        seconds = study.profile.listening.seconds
        self.seconds = widgets.BoundedFloatText(seconds, min=0.5, max=600.0, description="length (s)")
        self.button, self.bar = widgets.Button(description="Separate"), widgets.IntProgress()
        self.message, self.result = widgets.HTML(), widgets.VBox()
        self.button.on_click(self._separate)
        lines = ([self.upload, self.path], [self.start, self.seconds, self.button, self.bar])
        rows = [widgets.HBox(line, layout=widgets.Layout(flex_flow="row wrap")) for line in lines]
        super().__init__([*rows, self.message, self.result])

    def _progress(self, done: int, total: int) -> None:
        self.bar.max, self.bar.value = total, done

    def _separate(self, _) -> None:
        self.button.disabled, self.bar.value, self.message.value = True, 0, "loading the model ..."
        for old in self.result.children:
            old.close()
        self.result.children = ()
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(self.path.value.strip() or "no file chosen").expanduser()
                for upload in () if self.path.value.strip() else self.upload.value:
                    file = Path(folder) / (Path(upload["name"]).name[-NAME_LENGTH:].replace("\0", "") or "file")
                    file.write_bytes(upload["content"])
                excerpt = sources.own_file(self._study, file, self.start.value, self.seconds.value, self._progress)
            self.message.value = f"separated by <b>{html.escape(next(iter(excerpt.versions)))}</b>"
            signals = {**chosen(excerpt, ALL_STEMS)[0], "mixture": excerpt.mixture}
            self.result.children = [Player(signals, excerpt.rate, title=excerpt.song, start=excerpt.start)]
        except (UserError, OSError, RuntimeError) as error:
            self.message.value = html.escape(one_line(str(error)))
        finally:
            self.button.disabled = False


def analysis_tables(found: Analysis) -> HTML:
    """What an analysis says, and its tables."""
    parts = [f"<p>{html.escape('; '.join(found.said))}</p>"]
    for name, table in found.tables.items():
        parts.append(f"<h4>{name.replace('_', ' ')}</h4>{table.to_html(index=False, float_format='{:.3g}'.format)}")
    return HTML("".join(parts))
