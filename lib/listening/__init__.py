"""Listening: excerpts of songs as every method separates them, and the panels that play them in a notebook."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import HTML

from lib import STEMS, UserError, audio, scoring
from lib.corpora import Track
from lib.listening.players import REFERENCE, Excerpt, compare, page, row, stem_rows
from lib.results import claim_runs
from lib.runs import Run, code_fingerprint, fingerprint
from lib.separate import Song, separate
from lib.stages import SCORING_CODE, Study

__all__ = ["best_run", "browser", "compare", "excerpt", "is_live", "methods", "own", "own_panel", "show", "songs"]


def methods(study: Study) -> dict[str, Run]:
    """The run of each method with the first seed and the largest number of labelled songs."""
    settings = study.profile.finetune
    chosen = (settings.seeds[0], max(settings.labeled_songs))
    return {method: run for method, seed, count, run in claim_runs(study) if (seed, count) == chosen}


def best_run(study: Study) -> tuple[str, Run]:
    """(method, run) of the lowest validation loss, so that test songs have no say in the choice."""
    found = [(method, run) for method, _, _, run in claim_runs(study)]
    return min(found, key=lambda pair: pair[1].facts()["best_validation_loss"])


def songs(study: Study) -> list[Track]:
    """The first ``listening.songs`` test songs, and the real song."""
    return [*study.songs("test")[: study.profile.listening.songs], study.real_song]


def excerpt(study: Study, song: Track, start: float | None = None) -> Excerpt:
    """``listening.seconds`` of a song with stems (from its middle, or from ``start``) by every method of `methods`.

    The mixture is the sum of the stems, as everywhere in the scores. Models separate the excerpt alone; their
    estimates are kept in ``estimates/SONG/METHOD-HASH``.
    """
    front, seconds = study.profile.audio, min(study.profile.listening.seconds, song.seconds)
    latest = song.seconds - seconds
    start = latest / 2 if start is None else min(start, latest)
    stems = song.stems(start, seconds, front.rate)
    mixture = stems.sum(0)
    versions = {REFERENCE: stems}
    for method, run in methods(study).items():
        identity = [run.name, song.digest, start, seconds, study.profile.separate, code_fingerprint(*SCORING_CODE)]
        folder = study.results / "estimates" / song.name / f"{method}-{fingerprint(identity)}"
        versions[method] = _kept(folder, front.rate, lambda run=run: study.estimate(study.load(run), mixture))
    versions["ideal ratio mask"] = scoring.ideal_ratio_mask(mixture, stems, front.n_fft, front.hop)
    return Excerpt(song.name, start, front.rate, mixture, versions)


def _kept(folder: Path, rate: int, estimate: Callable[[], np.ndarray]) -> np.ndarray:
    """Estimates [4, 2, T] as WAV files of ``folder``, made if one is missing."""
    files = [folder / f"{stem}.wav" for stem in STEMS]
    if not all(file.exists() for file in files):
        for file, wave in zip(files, estimate(), strict=True):
            audio.write(file, wave, rate)
    return np.stack([audio.read(file) for file in files])


def own(study: Study, path: Path | str, start: float = 0.0, seconds: float | None = None, progress=False) -> Excerpt:
    """``seconds`` (by default ``listening.seconds``) of any audio file by the best model (`best_run`).

    ``progress``: see `lib.separate.separate_blocks`. Raises: UserError for a file that cannot be decoded, or ends
    before ``start``.
    """
    settings, rate = study.profile.separate, study.profile.audio.rate
    method, run = best_run(study)
    with tempfile.TemporaryDirectory() as cache:
        song = Song(audio.seekable(path, cache), rate)
        first = round(start * rate)
        if first >= song.shape[1]:
            raise UserError(f"{path}: ends after {song.shape[1] / rate:.1f} s; start before that")
        mixture = song[:, first : first + math.ceil((seconds or study.profile.listening.seconds) * rate)]
    windows = (round(seconds * rate) for seconds in (settings.window_seconds, settings.hop_seconds))
    options = {"mixture_consistency": settings.mixture_consistency, "progress": progress}
    estimates = separate(study.load(run), torch.from_numpy(mixture), *windows, settings.batch, **options)
    return Excerpt(Path(path).name, start, rate, mixture, {method: estimates.numpy()})


def show(*parts: str) -> HTML:
    """HTML as a notebook shows it."""
    return HTML("".join(parts))


def is_live() -> bool:
    """Whether someone sits at this notebook: papermill and nbconvert send ``allow_stdin`` false, front ends true."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel) and bool(kernel.get_parent().get("content", {}).get("allow_stdin"))


def browser(study: Study) -> widgets.Widget:
    """Panel: any song with stems that was held out, any stem, from any second on."""
    found = {song.name: song for song in (study.real_song, *study.songs("test"))}
    song = widgets.Dropdown(options=list(found), description="song")
    stem = widgets.Dropdown(options=STEMS, value="vocals", description="stem")
    start = widgets.FloatSlider(description="from second", continuous_update=False, readout_format=".1f")
    shown = widgets.HTML()
    known: dict[tuple[str, float], Excerpt] = {}

    def limit(*_) -> None:
        start.max = max(found[song.value].seconds - study.profile.listening.seconds, 0.0)

    def update(*_) -> None:
        key = (song.value, start.value)
        shown.value = f"separating {song.value} ..."
        try:
            known[key] = known.get(key) or excerpt(study, found[key[0]], key[1])
            mixture = row(known[key], "mixture", known[key].mixture)
            shown.value = mixture + stem_rows(known[key], stem.value)
        except UserError as error:
            shown.value = str(error)

    song.observe(limit, "value")
    for control in (song, stem, start):
        control.observe(update, "value")
    limit()
    update()
    return widgets.VBox([widgets.HBox([song, stem, start]), shown])


def own_panel(study: Study) -> widgets.Widget:
    """Panel: separate a file that is uploaded, or lies on the machine that runs the notebook."""
    upload = widgets.FileUpload(description="upload", accept="audio/*,video/*")
    path = widgets.Text(placeholder="or the path of a file (better for large ones)", layout={"width": "420px"})
    start = widgets.BoundedFloatText(0.0, min=0.0, max=1e6, description="from second")
    seconds = widgets.BoundedFloatText(study.profile.listening.seconds, min=0.5, max=60.0, description="seconds")
    button = widgets.Button(description="Separate", button_style="primary")
    bar = widgets.IntProgress(layout={"width": "420px"})
    shown = widgets.HTML()

    def progress(done: int, total: int) -> None:
        bar.max, bar.value = total, done

    def separate_it(_) -> None:
        button.disabled, bar.value, shown.value = True, 0, ""
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = _uploaded(upload.value[0], folder) if upload.value else Path(path.value.strip()).expanduser()
                shown.value = page(own(study, file, start.value, seconds.value, progress), STEMS)
        except UserError as error:
            shown.value = str(error)
        finally:
            button.disabled = False

    button.on_click(separate_it)
    return widgets.VBox([widgets.HBox([upload, path]), widgets.HBox([start, seconds]), widgets.HBox([button, bar]), shown])


def _uploaded(file: dict, folder: str) -> Path:
    path = Path(folder) / Path(file["name"]).name
    path.write_bytes(file["content"])
    return path
