"""Whole songs in windows, never whole in memory, and the command that does it to files.

``python -m lib.separate SONG... --checkpoint RUN_OR_FILE --out DIR`` writes ``DIR/SONG/{bass,drums,vocals,other}.wav``.
Of a folder every song is taken, ``DIR/WHERE/SONG/...`` by where it lies in there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lib import STEMS, UserError, one_line
from lib.data import audio
from lib.data.folder import music_files
from lib.machine import signals
from lib.machine.devices import keep_freed_memory, resolve_precision
from lib.model import checkpoints
from lib.profile.fields import PRECISIONS, Compute
from lib.store.files import fitted

VERSION = 1
"""Raise it when the same model gives other estimates of a song: scores are made again."""
Progress = bool | Callable[[int, int], None]


def separate(separator: nn.Module, mixture: Tensor, window: int, hop: int, batch: int = 1, **options) -> Tensor:
    """A song [C, T] -> its estimates [S, C, T] on the CPU; see `separate_blocks`, whose blocks these are."""
    return torch.cat(list(separate_blocks(separator, mixture, window, hop, batch, **options)), dim=-1)


def separate_blocks(
    separator: nn.Module,
    mixture: Tensor | audio.Song,
    window: int,
    hop: int,
    batch: int = 1,
    mixture_consistency: bool = False,
    bf16: bool = False,
    progress: Progress = False,
) -> Iterator[Tensor]:
    """Yield the estimates of a song [C, T] as consecutive blocks [S, C, n] on the CPU whose lengths add up to T.

    Windows of ``window`` samples every ``hop`` samples (the last one ends with the song) are separated, ``batch`` at
    a time, and averaged where they overlap (the published way: 12 s every 6 s). Every window is widened by half an FFT
    of its surroundings and to whole STFT hops, and trimmed again: the edge where the model's inverse STFT breaks down
    (see `lib.model.Separator`) then falls outside. ``mixture_consistency`` spreads what the estimates miss of the
    mixture equally over them. ``bf16`` runs the model's products in bfloat16.
    ``progress``: True for a bar, or a function of (windows done, windows).
    """
    total, margin = mixture.shape[-1], separator.n_fft // 2
    if not (0 < hop <= window and total):
        raise ValueError(f"cannot cut {total} samples into windows of {window} every {hop}")
    window = min(window, total)
    starts = [*range(0, total - window, hop), total - window]
    steps = list(itertools.pairwise([*starts, total]))  # a window's start and the next one's: what is final after it
    padded = math.ceil((window + 2 * margin) / separator.hop) * separator.hop
    waiting, weight = torch.zeros(()), torch.zeros(0)  # sums of earlier windows from the next window's start on
    with tqdm(total=len(starts), unit="window", disable=progress is not True, leave=False) as bar:
        for first in range(0, len(steps), batch):
            some = steps[first : first + batch]
            parts = torch.stack([_padded(mixture, start - margin, padded) for start, _ in some])
            estimates = _estimate(separator, parts, bf16)[..., margin : margin + window]
            for (start, following), estimate in zip(some, estimates, strict=True):
                overlap = len(weight)
                estimate, count = estimate.clone(), torch.ones(window)
                if overlap:
                    estimate[..., :overlap] += waiting
                    count[:overlap] += weight
                done = following - start
                block = estimate[..., :done] / count[:done]
                if mixture_consistency:
                    block += (torch.as_tensor(mixture[:, start:following]).cpu() - block.sum(0)) / len(block)
                yield block
                waiting, weight = estimate[..., done:], count[done:]
            bar.update(len(some))
            if callable(progress):
                progress(first + len(some), len(starts))


def _padded(mixture: Tensor | audio.Song, start: int, length: int) -> Tensor:
    """Samples [start, start + length) of the mixture, zero outside of it."""
    inside = torch.as_tensor(mixture[:, max(start, 0) : start + length])
    before = max(-start, 0)
    return nn.functional.pad(inside, (before, length - before - inside.shape[-1]))


def _estimate(separator: nn.Module, mixtures: Tensor, bf16: bool) -> Tensor:
    """One batch through the model in evaluation mode, in halves where a GPU's memory is too small for it."""
    device = next((parameter.device for parameter in separator.parameters()), mixtures.device)
    training = separator.training
    separator.eval()
    try:
        # never across a yield: both would leak into the caller
        with (
            contextlib.suppress(torch.OutOfMemoryError),
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        ):
            return separator(mixtures.to(device)).float().cpu()
    finally:
        separator.train(training)
    if len(mixtures) == 1:
        seconds = mixtures.shape[-1] / separator.rate
        raise UserError(f"GPU memory ran out with one window of {seconds:.3g} s: separate shorter windows")
    return torch.cat([_estimate(separator, half, bf16) for half in mixtures.chunk(2)])  # what did not fit is free here


def separate_file(
    separator: nn.Module,
    path: Path,
    folder: Path,
    window: float,
    hop: float,
    batch: int = 1,
    mixture_consistency: bool = False,
    bf16: bool = False,
) -> None:
    """Separate one audio file into ``folder``, one WAV a source at the file's own rate and length; seconds for windows.

    ``batch`` and ``bf16`` as in `separate_blocks`.
    All files of a song appear together at the end. Raises: UserError for a file that cannot be decoded.
    """
    names = STEMS if separator.sources == len(STEMS) else [f"output{i:02d}" for i in range(separator.sources)]
    with tempfile.TemporaryDirectory() as cache, contextlib.ExitStack() as stack:
        song = audio.Song(audio.seekable(path, cache), separator.rate)
        rate, frames = song.info.rate, song.info.frames
        made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        stack.callback(lambda: any(folder.iterdir()) or [parent.rmdir() for parent in made])
        writers = [stack.enter_context(audio.writer(folder / f"{name}.wav", rate, frames)) for name in names]
        samples = (round(seconds * separator.rate) for seconds in (window, hop))
        blocks = separate_blocks(separator, song, *samples, batch, bf16=bf16, progress=True)
        written = 0
        for block in audio.resample_blocks((block.numpy() for block in blocks), separator.rate, rate, frames):
            if mixture_consistency:  # at the song's own rate: what lies above the model's band belongs to the sum too
                block = block + (audio.read(song.path, written, block.shape[-1]) - block.sum(0)) / len(block)
            written += block.shape[-1]
            for put, wave in zip(writers, block, strict=True):
                put(wave)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, 1 if a song failed (each is listed with its reason), 2 for a bad call.

    After Ctrl-C or SIGTERM 130 or 143, of what was under way nothing is left.
    """
    parser = argparse.ArgumentParser(prog="python -m lib.separate", description="Separate songs into stems.")
    parser.add_argument("songs", nargs="+", type=Path, metavar="SONG", help="audio files, or folders of them")
    chosen = "a run folder, a .safetensors or a published .pth file (default: the model that comes with this project)"
    parser.add_argument("--checkpoint", default=checkpoints.FINETUNED, help=chosen)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets one folder a song")
    parser.add_argument("--window", type=float, default=12.0, help="seconds separated at once (default: 12)")
    parser.add_argument("--hop", type=float, help="seconds from window to window (default: half a window)")
    parser.add_argument("--batch", type=int, default=1, help="windows at once (default: 1)")
    parser.add_argument("--mixture-consistency", action="store_true", help="make the stems sum to the mixture")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bfloat16 where that is faster")
    call = parser.parse_args(arguments)
    hop = call.window / 2 if call.hop is None else call.hop
    if not (0.1 <= call.window < math.inf and 0.05 <= hop <= call.window and call.batch >= 1):
        parser.error("--window from 0.1 s, --hop from 0.05 s up to the window, --batch from 1")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if call.device == "auto" else call.device
    bf16 = resolve_precision(Compute(accelerator=device.partition(":")[0], precision=call.precision)) == "bf16-mixed"
    keep_freed_memory()
    try:
        separator = checkpoints.load(call.checkpoint).to(device).eval()
        made = not call.out.exists()
        call.out.mkdir(parents=True, exist_ok=True)
    except (UserError, OSError, RuntimeError, AssertionError) as error:
        parser.error(str(error).splitlines()[0])
    songs, failed = _targets(call.songs, call.out)
    options = (call.window, hop, call.batch, call.mixture_consistency, bf16)
    done, status = 0, 0
    try:
        for path, folder in songs.items():
            try:
                separate_file(separator, path, folder, *options)
                print(folder, flush=True)
                if (count := audio.channels(path)) > 2:
                    print(f"{one_line(str(path))}: {count} channels folded down to 2", file=sys.stderr)
            except Exception as error:  # whatever one song does, the others are separated
                if isinstance(error, signals.Stopped):
                    raise
                failed.append(f"{path}: {getattr(error, 'reason', '') or str(error) or type(error).__name__}")
            done += 1
    except (KeyboardInterrupt, signals.Stopped) as stop:
        name, status = ("Ctrl-C", 130) if isinstance(stop, KeyboardInterrupt) else (signals.stop_requested(), 143)
        failed.append(f"stopped by {name} after {done} of {len(songs)} songs: call again with the others")
    finally:
        if made and not any(call.out.iterdir()):
            call.out.rmdir()
    for reason in failed:
        print(f"failed: {one_line(reason)}", file=sys.stderr)
    return status or int(bool(failed))


def _targets(songs: Sequence[Path], out: Path) -> tuple[dict[Path, Path], list[str]]:
    """A folder in ``out`` for each song, none for two, and what is wrong with the folders among ``songs``."""
    names, failed, taken, targets, own_output = {}, [], {}, {}, os.path.realpath(out)
    for path in songs:
        files, unread = music_files(path) if os.path.isdir(path) else ([path], [])
        files = [file for file in files if file == path or not Path(os.path.realpath(file)).is_relative_to(own_output)]
        failed += [f"{item.path}: {item.reason}" for item in unread]
        failed += [] if files or unread else [f"{path}: no music in this folder"]
        for file in files:
            where = file.parent.relative_to(path) if file != path else Path()
            # "...wav" has the stem "..", which is no folder's name
            names.setdefault(file, str(where / (file.stem if file.stem.strip(".") else "song")))
    for file, name in names.items():
        taken.setdefault(name.casefold(), file)
    for file, name in names.items():
        number, own = 1, name
        while taken.setdefault(own.casefold(), file) != file:
            number += 1
            own = f"{name} ({number})"
        targets[file] = out / fitted(own)
    return targets, failed


if __name__ == "__main__":
    signals.listen()
    sys.exit(main())
