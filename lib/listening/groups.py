"""Why MixIT's outputs are no stems, in one's own hands: sort them into groups, hear the sums, see their SNR."""

from __future__ import annotations

from collections.abc import Sequence

import anywidget
import numpy as np
import pandas as pd
import torch
import traitlets

from lib import STEMS
from lib.listening.export import encoded
from lib.listening.frontend import CSS, module
from lib.listening.player import scaled
from lib.transfer import Statistics, best_groups


class Groups(anywidget.AnyWidget):
    """Toggle ``outputs`` [N, 2, T] of an unsupervised model into four groups, whose sums play in sync.

    The SNR of every group against every one of ``stems`` [4, 2, T] follows at once, from inner products; the best
    subset of outputs for each stem (`lib.transfer.best_groups`) can be revealed.
    """

    _esm = module("groups.js")
    _css = CSS
    rate = traitlets.Int().tag(sync=True)
    stems = traitlets.List(traitlets.Unicode()).tag(sync=True)
    signals = traitlets.List(traitlets.Bytes()).tag(sync=True)
    products = traitlets.Dict().tag(sync=True)
    best = traitlets.List().tag(sync=True)

    def __init__(self, outputs: np.ndarray, stems: np.ndarray, rate: int):
        statistics = Statistics.of(torch.from_numpy(outputs), torch.from_numpy(stems))
        waves = scaled({str(n): wave for n, wave in enumerate([*outputs, *stems])})
        super().__init__(
            rate=rate,
            stems=list(STEMS),
            signals=[encoded(wave, rate) for wave in waves],
            products={name: getattr(statistics, name).tolist() for name in ("gram", "cross", "energy")},
            best=best_groups([statistics]).astype(int).tolist(),
        )

    def __repr__(self) -> str:
        return "Groups()"  # not the state, which includes the sounds


def snr_table(outputs: np.ndarray, stems: np.ndarray) -> pd.DataFrame:
    """SNR in dB of every stem against each of ``outputs`` [N, 2, T] alone, and against the best group of them."""
    statistics = Statistics.of(torch.from_numpy(outputs), torch.from_numpy(stems))
    best = best_groups([statistics])
    columns = [*(f"output {n + 1}" for n in range(len(outputs))), "best group", "its outputs"]
    rows: list[Sequence] = []
    for at, stem in enumerate(statistics.snr(np.eye(len(outputs)))):
        members = ", ".join(str(n + 1) for n in np.flatnonzero(best[at]))
        rows.append([*stem, statistics.snr(best)[at, at], members])
    return pd.DataFrame(rows, index=STEMS, columns=columns)
