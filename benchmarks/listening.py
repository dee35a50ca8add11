"""``python -m benchmarks.listening [CASE ...]``: players in Chromium, and how far blind tests can be trusted.

Writes ``results/benchmarks/tables/listening.csv``, from which a table in lib/listening/README.md is made. Cases:
switches (what reaches the loudspeaker is captured and compared with what the player holds), view (half a minute of six
signals), panels (simulated listeners, a minute or two), trials. The rows of other cases stay.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from benchmarks.figures import FOLDER
from lib.data.corpora import real_song
from lib.listening.blind import analysis, design, simulated
from lib.listening.player import Player
from lib.profile.fields import Design
from lib.store.tables import read_table, write_table
from tests import browser

RATE = 44100
SWITCHES, OPENINGS, PANELS = 30, 5, 500
GAP = 8.0
OPEN = """async () => {
  document.body.replaceChildren();
  await render();
  while (!([...document.querySelectorAll("canvas")].at(-1).width > 300)) await new Promise(requestAnimationFrame);
}"""
QUESTIONS, STEMS = ("target",), ("drums", "vocals")
TABLE = FOLDER / "tables" / "listening.csv"


@contextmanager
def opened(player: Player) -> Iterator:
    """A page that shows a player."""
    with tempfile.TemporaryDirectory() as folder, browser.chromium(Path(folder)) as context:
        page = context.pages[0]
        browser.mount(page, player)
        page.locator("[data-ready]").wait_for()
        yield page


def switches() -> list[dict]:
    """Six noises, switched by digit keys: from the key to the crossfade, the crossfade, and the alignment after it."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((6, 1, 30 * RATE)).clip(-4, 4)
    player = Player({f"noise {n + 1}": wave for n, wave in enumerate(noise)}, RATE)
    keys = [str(n % 5 + 2 if n % 2 else 1) for n in range(1, SWITCHES + 1)]
    with opened(player) as page:
        page.locator(".play").click()
        page.wait_for_function("window.captured.length > 300")
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(300)
        sound, first = browser.heard(page)
        pressed = [round(when * RATE) - first for _, when in page.evaluate("window.pressed")]
    signals = np.round(noise[:, 0] * 32768) / 32768
    at = browser.lag(sound[: RATE // 4], signals[0])
    parts = browser.turns(np.stack([browser.explained(sound, signal, at) for signal in signals]))
    assert [number + 1 for number, _, _ in parts] == [1, *map(int, keys)], "not what was pressed"
    lags = [browser.lag(sound[a : b + 1], signals[number]) - a for number, a, b in parts]
    waits = [(before + 1 - when) / RATE * 1e3 for (_, _, before), when in zip(parts, pressed, strict=False)]
    fades = [(after - before - 1) / RATE * 1e3 for (_, _, before), (_, after, _) in pairwise(parts)]
    apart = max(abs((lag - at + len(noise[0, 0]) // 2) % len(noise[0, 0]) - len(noise[0, 0]) // 2) for lag in lags)
    return [
        row("digit key to crossfade, on the audio clock: median (range) of 30", np.median(waits), "ms", waits),
        row("crossfade, longest", max(fades), "ms"),
        row("largest shift between signals, over all switches", apart / RATE * 1e3, "ms"),
    ]


def view() -> list[dict]:
    """Mixture, stems and accompaniment of the real song, 30 s at 44.1 kHz: bytes, and what drawing it takes."""
    with tempfile.TemporaryDirectory() as folder:
        song = real_song(Path(folder))
        stems = np.tile(song.stems(0.0, song.seconds, RATE), 30)[..., : 30 * RATE]
    signals = dict(zip(("bass", "drums", "vocals", "other"), stems, strict=True))
    player = Player({"mixture": stems.sum(0), **signals, "accompaniment": stems[[0, 1, 3]].sum(0)}, RATE)
    used = []
    with opened(player) as page:
        chromium = browser.below(os.getpid(), "chromium")
        for _ in range(OPENINGS):
            before = browser.cpu_seconds(chromium)
            page.evaluate(OPEN)
            used.append(browser.cpu_seconds(chromium) - before)
    return [
        row(
            "six stereo signals of 30 s at 44.1 kHz, as sent to the browser", sum(map(len, player.signals)) / 1e6, "MB"
        ),
        row("the same in a saved notebook", len(player.fallback()) / 1e6, "MB"),
        row(
            "processor time until it is decoded and drawn, all threads, median (and range) of 5",
            np.median(used),
            "s",
            used,
        ),
    ]


def planted(gap: float = 0.0, songs: int = 6) -> dict[tuple[str, str, str], float]:
    """Qualities by (song, stem, condition): the third method lies ``gap`` points above the other two."""
    draw, found = np.random.default_rng(7), {}
    for song in range(songs):
        for stem in STEMS:
            level = 50 + 10 * draw.standard_normal()
            points = {"first": level, "second": level, "third": level + gap}
            points |= {design.HIDDEN: 100.0, design.LOW_ANCHOR: 20.0, design.LEAKAGE: 35.0}
            found |= {(f"song {song}", stem, name): value for name, value in points.items()}
    return found


def compared(gap: float, listeners: int, seed: int) -> pd.DataFrame:
    """`lib.listening.analysis.tests` of a simulated panel's ratings of `planted` qualities."""
    return analysis.tests(simulated.ratings(QUESTIONS, planted(gap), listeners, seed))


def _mistaken(seed: int) -> bool:
    return bool((compared(0.0, 10, seed)["p_holm"] < 0.05).any())


def _found(seed: int) -> bool:
    table = compared(GAP, 10, seed)
    return bool((table.loc[table["against"] == "third", "p_holm"] < 0.05).all())


def panels() -> list[dict]:
    """Panels of 10 that find a difference where there is none, and one of 8 points where it is."""
    with ProcessPoolExecutor() as pool:
        wrong = sum(pool.map(_mistaken, range(PANELS), chunksize=10))
        right = sum(pool.map(_found, range(PANELS), chunksize=10))
    setting = f"{PANELS} simulated panels of 10 listeners, 6 songs, 2 stems"
    return [
        share(f"false positives: any of three equal methods differs ({setting})", wrong, PANELS),
        share(f"found: one method is {GAP:g} points above both others ({setting})", right, PANELS),
    ]


def trials() -> list[dict]:
    """What ABX asks for by default."""
    settings = Design(test="abx")
    count = design.trials_needed(settings)
    asked = f"{settings.detectable:.0%} right answers, level {settings.alpha:g}, power {settings.power:.0%}"
    needed = design.critical_count(count, settings.alpha)
    return [row(f"trials of ABX ({asked}); {needed} right ones are significant", count, "trials")]


def row(what: str, value: float, unit: str, spread: Sequence[float] = (np.nan,)) -> dict:
    return {"what": what, "value": float(value), "low": min(spread), "high": max(spread), "unit": unit}


def share(what: str, count: int, of: int) -> dict:
    """A share in percent with its 95% interval (Clopper and Pearson)."""
    interval = binomtest(int(count), of).proportion_ci(0.95)
    return row(what, 100 * count / of, "%", [100 * interval.low, 100 * interval.high])


CASES: dict[str, Callable[[], list[dict]]] = {"switches": switches, "view": view, "panels": panels, "trials": trials}


def main(names: Sequence[str]) -> int:
    """Exit status: 0 done, 2 an unknown case."""
    if unknown := [name for name in names if name not in CASES]:
        print(f"unknown case '{unknown[0]}': use {', '.join(CASES)}", file=sys.stderr)
        return 2
    for name in names or CASES:
        new = pd.DataFrame(CASES[name]()).assign(case=name)
        kept = read_table(TABLE) if TABLE.exists() else pd.DataFrame({"case": []})
        print(new.to_string(index=False), flush=True)
        table = pd.concat([kept[kept["case"] != name], new], ignore_index=True)
        order = table["case"].map(list(CASES).index)
        write_table(TABLE, table.loc[order.sort_values(kind="stable").index].reset_index(drop=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
