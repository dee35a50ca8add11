"""``python -m benchmarks.figures``: where a step's time goes and how cost grows, as tables and figures.

Writes ``results/benchmarks/tables/{step_profile,growth}.csv`` and the figures drawn from them.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from matplotlib.ticker import LogLocator
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import demo_separator, mixit_side, noise, precisions, step_sides
from benchmarks.plain import mixit_by_pairs
from benchmarks.timing import medians
from lib import ROOT
from lib.losses import mixit_loss
from lib.machine.devices import keep_freed_memory
from lib.model.separator import Separator
from lib.report.figures import drawn
from lib.store.tables import read_table, write_table

FOLDER = ROOT / "results" / "benchmarks"
SIDES = {
    **{"plain, float32": "#7F7F7F", "ours, float32": "#0072B2"},
    **{"plain, bf16 autocast": "#D55E00", "ours, bf16 autocast": "#56B4E9"},
}
OPERATIONS = {  # the first whose key is part of the operator's name
    "attention kernel, softmax": ("scaled_dot_product", "softmax"),
    "convolutions": ("conv",),
    "matrix products": ("mm", "linear", "einsum", "matmul"),
    "Fourier transforms, overlap-add": ("fft", "unfold_backward", "stft", "col2im"),
    "random numbers": ("bernoulli", "random", "dropout"),
    "copies": ("copy", "cat", "fill", "zero", "clone", "contiguous"),
    "everything else": ("",),
}


def sides(separator: Separator, mixtures: torch.Tensor) -> dict[str, Callable[[], None]]:
    """`benchmarks.cases.step_sides` in all precisions of this machine."""
    return {
        f"{side}, {precision}": call
        for precision, bf16 in precisions().items()
        for side, call in step_sides(separator, mixtures, bf16).items()
    }


def kind_of(name: str) -> str:
    """The group of `OPERATIONS` that a profiler's event belongs to."""
    return next(kind for kind, parts in OPERATIONS.items() if any(part in name for part in parts))


def step_profile() -> pd.DataFrame:
    """Seconds of one step of the compact model by kind of operation: side, kind, seconds."""
    rows = []
    keep_freed_memory()
    for name, call in sides(*demo_separator()).items():
        call()
        call()
        with profile(activities=[ProfilerActivity.CPU]) as record:
            for _ in range(3):
                call()
        for event in record.key_averages():
            rows.append({"side": name, "kind": kind_of(event.key), "seconds": event.self_cpu_time_total / 3e6})
    return pd.DataFrame(rows).groupby(["side", "kind"], as_index=False, sort=False).sum()


def growth(repeats: int = 5) -> pd.DataFrame:
    """Seconds against size, tidy: what, size, side, seconds."""
    rows = []
    separator, mixtures = demo_separator()
    for batch in (1, 2, 4, 8, 16):
        some = sides(separator, mixtures[:1].expand(batch, -1, -1, -1).clone())
        seconds = mixtures.shape[-1] / separator.rate * batch
        rows += [("step", seconds, side, value) for side, value in medians(some, repeats).items()]
    for sources in (4, 6, 8, 10, 12):
        losses = {"ours, float32": mixit_side(mixit_loss, sources), "all pairs": mixit_side(mixit_by_pairs, sources)}
        times = medians(losses, 3)
        rows += [("mixit", sources, side, value) for side, value in times.items()]
    for size in ("tiny", "compact", "small"):
        model = Separator.from_size(size, 12)
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        some = sides(model, noise(1, 2, 2, 88064))
        rows += [("parameters", millions, side, value) for side, value in medians(some, 3).items()]
    return pd.DataFrame(rows, columns=["what", "size", "side", "seconds"])


def draw_step_profile(table: pd.DataFrame) -> None:
    """Stacked bars: one step of each side by kind of operation."""
    colors = ("#E69F00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#BBBBBB")
    with drawn(FOLDER, "step_profile", figsize=(7.2, 3.2)) as (_, axes):
        ax, wide = axes[0, 0], table.pivot(index="side", columns="kind", values="seconds").fillna(0)
        wide = wide.loc[[side for side in reversed(SIDES) if side in wide.index], list(OPERATIONS)]
        left = wide.iloc[:, 0] * 0
        for kind, color in zip(OPERATIONS, colors, strict=True):
            ax.barh(wide.index, wide[kind], left=left, color=color, label=kind, edgecolor="white", linewidth=0.5)
            left = left + wide[kind]
        for position, total in enumerate(left):
            ax.text(total, position, f" {total:.2f} s", va="center")
        ax.set(
            xlabel="seconds of one training step (compact model, 6 mixtures of 2 s, one core)",
            xlim=(0, 1.15 * left.max()),
        )
        ax.grid(axis="x")
        ax.grid(axis="y", visible=False)
        ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0), fontsize=8.5)


def draw_growth(table: pd.DataFrame) -> None:
    """Three panels on logarithmic axes: time of a step against audio and parameters, of the loss against outputs."""
    panels = {
        "step": ("A training step of the compact model", "seconds of audio in the batch"),
        "parameters": ("A step of 2 s, N = 12", "million parameters (tiny, compact, small)"),
        "mixit": ("Exact MixIT, 6 s", "outputs N"),
    }
    with drawn(FOLDER, "growth", ncols=3, figsize=(10.0, 3.4)) as (_, axes):
        for ax, (what, (title, label)) in zip(axes[0], panels.items(), strict=True):
            for side, part in table[table["what"] == what].groupby("side", sort=False):
                color = SIDES.get(side, "#CC79A7")
                ax.plot(part["size"], part["seconds"], "o-", color=color, markersize=4, label=side)
            ax.set(title=title, xlabel=label, ylabel="seconds", xscale="log", yscale="log")
            ax.set_xticks(sorted(set(table.loc[table["what"] == what, "size"])))
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:.2g}")
            ax.minorticks_off()
            ax.legend(fontsize=8.5)


def main() -> None:
    """Measure what is not there yet, and draw."""
    for name, measure, draw in (("step_profile", step_profile, draw_step_profile), ("growth", growth, draw_growth)):
        path = FOLDER / "tables" / f"{name}.csv"
        if not path.exists():
            write_table(path, measure())
        draw(read_table(path))


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)  # as `benchmarks` does
    main()
