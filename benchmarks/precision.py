"""``python -m benchmarks.precision [residual]``: do loss curves in bfloat16 stay within the seed noise of float32?

Runs MixIT pre-training of size compact on the demo's music for 200 steps, three seeds, either precision (a quarter
of an hour on two cores; finished runs are kept), writes ``results/benchmarks/tables/precision.csv`` and draws it.

With ``residual``: should what the blocks add up be kept in float32 while their products are in bfloat16? A narrow model
as deep as the published medium (36 additions) learns from the same examples in float32, in bfloat16, and in bfloat16
with a float32 residual stream; ``tables/residual.csv``. Half an hour on a CPU that has no bfloat16.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from benchmarks.cases import SMALL_STEP, mixit_objective
from benchmarks.figures import FOLDER
from lib.arms import Pretraining
from lib.machine.devices import keep_freed_memory
from lib.machine.progress import bar
from lib.model.locoformer import BandGroup, Size
from lib.model.separator import Separator
from lib.profile.load import load
from lib.report.figures import drawn
from lib.store.tables import read_table, write_table
from lib.study import Study

SEEDS, STEPS, SMOOTH = (0, 1, 2), 200, 20
PRECISIONS = {"32-true": ("float32", "#7F7F7F"), "bf16-mixed": ("bfloat16", "#0072B2")}


def curves() -> pd.DataFrame:
    """Training loss of every run: precision, seed, step, loss in dB."""
    frames = []
    for seed in SEEDS:
        for precision in PRECISIONS:
            changes = [f"results={FOLDER / 'runs' / 'precision'}", f"compute.precision={precision}"]
            changes += [f"pretrain.seeds=[{seed}]", *SMALL_STEP]
            changes += [f"pretrain.steps={STEPS}", f"pretrain.decay_start={STEPS // 2}", "pretrain.decay_every=25"]
            changes += ["pretrain.validate_every=1", "pretrain.validation_moms=1"]  # the log keeps a row a validation
            run = Pretraining(Study(load("demo", changes)), seed).trained()
            log = read_table(run.folder / "log.csv")
            frames.append(log[["step", "loss"]].assign(precision=precision, seed=seed))
    return pd.concat(frames, ignore_index=True)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Smoothed curves as columns (precision, seed), a row per step."""
    wide = table.pivot(index="step", columns=["precision", "seed"], values="loss")
    return wide.rolling(SMOOTH, min_periods=SMOOTH).mean()


def draw(table: pd.DataFrame) -> None:
    """Left the curves; right |bfloat16 - float32| at equal seeds beside the spread of float32 between seeds."""
    wide = differences(table)
    gaps = np.abs(wide["bf16-mixed"] - wide["32-true"]).mean(axis=1)
    noise = wide["32-true"].std(axis=1, ddof=1)
    with drawn(FOLDER, "precision", ncols=2, figsize=(8.4, 3.4)) as (_, axes):
        left, right = axes[0]
        for precision, (name, color) in PRECISIONS.items():
            for seed in SEEDS:
                label = name if seed == SEEDS[0] else None
                left.plot(wide.index, wide[precision, seed], color=color, linewidth=1.2, label=label)
        left.set(title=f"MixIT loss, mean over {SMOOTH} steps, 3 seeds", xlabel="step", ylabel="dB")
        right.plot(wide.index, noise, color="#7F7F7F", label="float32: standard deviation between seeds")
        right.plot(wide.index, gaps, color="#0072B2", label="bfloat16 - float32 at the same seed, mean of 3")
        right.set(title="Difference of the curves", xlabel="step", ylabel="dB")
        right.set_ylim(0, 1.3 * max(noise.max(), gaps.max()))  # room for the legend
        for ax in (left, right):
            ax.legend(fontsize=8.5)


DEEP = Size(6, 16, 24, 2, 2, 2e-3)
"""As many blocks as the published medium, as narrow as tiny."""
RESIDUAL_STEPS, BATCH = 100, 2
STREAMS = {"float32": (False, False), "bfloat16": (True, False), "bfloat16, float32 residual": (True, True)}
"""Whether products are in bfloat16, and whether what the blocks add up is in float32 all the same."""


def residual() -> pd.DataFrame:
    """Training loss in dB of every stream, seed and step, on the same examples."""
    study = Study(load("demo", [f"results={FOLDER / 'runs' / 'precision'}", "pretrain.crop_seconds=1.0"]))
    keep_freed_memory()
    rows = []
    for seed in SEEDS:
        examples = Pretraining(study, seed).task().dataset
        for stream, (bf16, wide) in STREAMS.items():
            progress = bar(f"{stream}, seed {seed}", RESIDUAL_STEPS)
            for step, loss in enumerate(_losses(examples, seed, bf16, wide), 1):
                rows.append({"step": step, "loss": loss, "stream": stream, "seed": seed})
                progress(step)
    return pd.DataFrame(rows)


def _losses(examples: Dataset, seed: int, bf16: bool, wide: bool) -> Iterator[float]:
    """The losses of a training, one after the other."""
    torch.manual_seed(seed)
    separator = Separator(DEEP, 8, rate=16000, n_fft=512, hop=128, band_scale=4.0)
    optimiser = torch.optim.AdamW(separator.parameters(), 1e-3, weight_decay=1e-2, fused=True)
    encode = BandGroup.encode
    encoded = lambda group, spectrum: encode(group, spectrum).float() if wide else encode(group, spectrum)  # noqa: E731
    for step in range(RESIDUAL_STEPS):
        mixtures = torch.stack([examples[BATCH * step + number] for number in range(BATCH)])
        with patch.object(BandGroup, "encode", encoded), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = mixit_objective(separator, mixtures).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(separator.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
        yield loss.item()


def apart(table: pd.DataFrame) -> pd.DataFrame:
    """Of curves smoothed over `SMOOTH` steps, in dB: how far every stream is from float32 at equal seeds; and seeds."""
    wide = table.pivot(index="step", columns=["stream", "seed"], values="loss").rolling(SMOOTH).mean().dropna()
    rows = {stream: np.abs(wide[stream] - wide["float32"]).to_numpy().mean() for stream in list(STREAMS)[1:]}
    rows["float32, between seeds"] = wide["float32"].std(axis=1, ddof=1).mean()
    last = {stream: wide[stream].iloc[-1].mean() for stream in STREAMS}
    return pd.DataFrame({"apart": rows, "last": last})


def main() -> None:
    """Train what is missing, write the table, draw it."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["residual"]:
        write_table(FOLDER / "tables" / "residual.csv", table := residual())
        print(apart(table).round(3).to_string())
        return
    write_table(FOLDER / "tables" / "precision.csv", curves())
    draw(read_table(FOLDER / "tables" / "precision.csv"))


if __name__ == "__main__":
    main()
