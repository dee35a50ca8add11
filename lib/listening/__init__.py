"""Listening: excerpts of songs as every method separates them, and two panels for notebooks that are opened live."""

from __future__ import annotations

import html
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from IPython import get_ipython

from lib import STEMS, UserError, audio, evaluation, scoring
from lib.corpora import Track
from lib.listening.players import REFERENCE, Excerpt, page, row, rows
from lib.outputs import Statistics, best_groups
from lib.results import claim_runs
from lib.runs import Run, code_fingerprint, fingerprint
from lib.separate import Progress, Song
from lib.stages import Study


def methods(study: Study) -> list[tuple[str, int, int, Run]]:
    """(method, seed, labelled songs, run) of each method with the first seed and the most labelled songs."""
    chosen = (study.profile.finetune.seeds[0], max(study.profile.finetune.labeled_songs))
    return [found for found in claim_runs(study) if found[1:3] == chosen]


def excerpt(study: Study, song: Track) -> Excerpt:
    """``listening.seconds`` from the middle of a song with stems, by every method and the oracle mask.

    The mixture is the sum of the stems, as in the scores. The models hear the excerpt alone; their estimates are kept
    in ``estimates/SONG/METHOD-HASH``.
    """
    front, seconds = study.profile.audio, min(study.profile.listening.seconds, song.seconds)
    start = math.floor((song.seconds - seconds) * 5) / 10
    stems = song.stems(start, seconds, front.rate)
    mixture, versions = stems.sum(0), {REFERENCE: stems}
    for method, _, _, run in methods(study):
        identity = [
            run.name,
            song.digest,
            start,
            seconds,
            study.profile.separate,
            code_fingerprint(*evaluation.SCORING_CODE),
        ]
        folder = study.results / "estimates" / song.name / f"{method}-{fingerprint(identity)}"
        versions[method] = _kept(
            folder, front.rate, lambda run=run: evaluation.estimate(study, study.load(run), mixture)
        )
    versions["ideal ratio mask"] = scoring.ideal_ratio_mask(mixture, stems, front.n_fft, front.hop)
    return Excerpt(song.name, start, front.rate, mixture, versions)


def clearest(study: Study, song: Track) -> Excerpt:
    """The same seconds as in `excerpt`, by the first pre-trained model alone: per stem its nearest output, and group.

    Nearest with the stems known, as no one could choose them.
    """
    rate, seconds = study.profile.audio.rate, min(study.profile.listening.seconds, song.seconds)
    stems = song.stems(math.floor((song.seconds - seconds) * 5) / 10, seconds, rate)
    outputs = evaluation.estimate(study, study.load(study.pretrain()), stems.sum(0))
    statistics = Statistics.of(torch.from_numpy(outputs), torch.from_numpy(stems))
    single = np.eye(len(outputs))[np.nan_to_num(statistics.snr(np.eye(len(outputs)))).argmax(1)]
    versions = {"nearest output": single, "nearest group": best_groups([statistics])}
    sums = {name: np.tensordot(chosen, outputs, 1).astype(np.float32) for name, chosen in versions.items()}
    return Excerpt(song.name, 0.0, rate, stems.sum(0), {REFERENCE: stems, **sums})


def _kept(folder: Path, rate: int, estimate: Callable[[], np.ndarray]) -> np.ndarray:
    """Estimates [4, 2, T], from the WAV files in ``folder`` once they have been made."""
    files = [folder / f"{stem}.wav" for stem in STEMS]
    if not all(file.exists() for file in files):
        for file, wave in zip(files, estimate(), strict=True):
            audio.write(file, wave, rate)
    return np.stack([audio.read(file) for file in files])


def own(study: Study, path: Path | str, start: float, seconds: float, progress: Progress = False) -> Excerpt:
    """``seconds`` from ``start`` of any audio file, by the model with the lowest validation loss of all.

    ``progress`` as in `lib.separate.separate_blocks`. Raises: UserError if the file cannot be decoded or is shorter.
    """
    rate = study.profile.audio.rate
    runs = [(method, run) for method, _, _, run in claim_runs(study)]
    method, run = min(runs, key=lambda pair: pair[1].facts()["best_validation_loss"])
    with tempfile.TemporaryDirectory() as cache:
        song = Song(audio.seekable(path, cache), rate)
        mixture = song[:, round(start * rate) : round((start + seconds) * rate)]
    if not mixture.shape[1]:
        raise UserError(f"{Path(path).name}: ends after {song.shape[1] / rate:.1f} s; start before that")
    estimates = evaluation.estimate(study, study.load(run), mixture, progress)
    return Excerpt(Path(path).name, start, rate, mixture, {method: estimates})


def is_live() -> bool:
    """Whether someone sits at this notebook: front ends allow input, papermill and nbconvert do not."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))


def browser(study: Study) -> widgets.Widget:
    """Panel: every test song and the real song, every stem."""
    found = {song.name: song for _, song in evaluation.songs(study, "test")}
    song, stem = (widgets.Dropdown(options=list(names)) for names in (found, STEMS))
    shown = widgets.HTML()

    def update(*_) -> None:
        shown.value = f"separating {html.escape(song.value)} ..."
        heard = excerpt(study, found[song.value])
        shown.value = row(heard, "mixture", heard.mixture) + rows(heard, stem.value)

    for control in (song, stem):
        control.observe(update, "value")
    update()
    return widgets.VBox([widgets.HBox([song, stem]), shown])


def own_panel(study: Study) -> widgets.Widget:
    """Panel: separate a file that is uploaded, or that lies on the machine the notebook runs on."""
    upload, button = widgets.FileUpload(accept="audio/*,video/*"), widgets.Button(description="Separate")
    path = widgets.Text(placeholder="or the path of a file, better for large ones", layout={"width": "420px"})
    start = widgets.BoundedFloatText(0.0, min=0.0, max=1e6, description="from (s)")
    seconds = widgets.BoundedFloatText(study.profile.listening.seconds, min=0.5, max=60.0, description="length (s)")
    bar, shown = widgets.IntProgress(), widgets.HTML()

    def progress(done: int, total: int) -> None:
        bar.max, bar.value = total, done

    def separate_it(_) -> None:
        button.disabled, bar.value, shown.value = True, 0, ""
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(path.value.strip() or "no file chosen").expanduser()
                for sent in () if path.value.strip() else upload.value:
                    file = Path(folder) / Path(sent["name"]).name
                    file.write_bytes(sent["content"])
                shown.value = page(own(study, file, start.value, seconds.value, progress), STEMS)
        except UserError as error:
            shown.value = html.escape(str(error))
        finally:
            button.disabled = False

    button.on_click(separate_it)
    lines = ([upload, path], [start, seconds, button, bar])
    return widgets.VBox([*(widgets.HBox(line) for line in lines), shown])
