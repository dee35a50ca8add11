"""In a real browser: what is pressed is what sounds, in the right sample; answers outlive everything around them."""

import itertools

import numpy as np
import pytest

from tests import browser

pytestmark = pytest.mark.skipif(browser.MISSING is not None, reason=str(browser.MISSING))
RATE = 16000

SIGNALS = """
import numpy as np
noise = 0.1 * np.random.default_rng(0).standard_normal((3, 2, 8 * 16000)).clip(-4, 4)
signals = dict(zip(["first", "second", "third"], noise))
"""
PLAYER = """
from lib.listening.player import Player
Player(signals, 16000, notes={"second": "uSDR 3.1 dB"}, title="Three noises", start=2.0)
"""


def expected() -> np.ndarray:
    """The left channels [3, T] as 16-bit FLAC holds them."""
    namespace = {}
    exec(SIGNALS, namespace)
    return np.stack([np.round(wave[0] * 32768) / 32768 for wave in namespace["noise"]])


def lag(sound: np.ndarray, signal: np.ndarray) -> int:
    """Where in ``signal``, played round and round, ``sound`` starts."""
    spectrum = np.fft.rfft(signal) * np.conj(np.fft.rfft(sound, len(signal)))
    return int(np.fft.irfft(spectrum, len(signal)).argmax())


def explained(sound: np.ndarray, signal: np.ndarray, at: int) -> np.ndarray:
    """Whether each sample of ``sound`` is that of ``signal`` from sample ``at`` on, played round and round."""
    return np.abs(sound - signal[(at + np.arange(len(sound))) % len(signal)]) < 1e-4


def turns(heard: np.ndarray) -> list[tuple[int, int, int]]:
    """(signal, first sample, last sample) of what sounds one after the other, from [signals, T]; at least 100 each."""
    found = []
    for number, row in enumerate(heard):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
        found += [(first, stop - 1, number) for first, stop in edges.reshape(-1, 2) if stop - first >= 100]
    return [(number, int(first), int(last)) for first, last, number in sorted(found)]


def test_a_player_in_jupyterlab_switches_in_the_same_sample(tmp_path):
    browser.notebook(tmp_path / "player.ipynb", SIGNALS, PLAYER)
    with browser.jupyterlab(tmp_path) as address, browser.chromium(tmp_path / "chromium") as page:
        browser.run_all(page, address, "player.ipynb")
        player = page.locator(".listening[data-ready]")
        player.wait_for()
        page.screenshot(path=tmp_path / "player.png")
        player.get_by_role("button", name="Play").click()
        page.wait_for_function("window.captured.length > 200")
        clock = float(player.locator(".clock").inner_text().split()[0])
        assert clock > 2.0
        for key in ("2", "3", "1"):
            count = page.evaluate("window.captured.length")
            page.keyboard.press(key)
            page.wait_for_function(f"window.captured.length > {count} + 150")
        page.screenshot(path=tmp_path / "playing.png")
        page.keyboard.press(" ")
        page.wait_for_timeout(200)
        sound, first = browser.heard(page)
        pressed = [when for key, when in page.evaluate("window.pressed") if key in "123"]
    assert len(sound) > 3 * RATE
    signals = expected()
    at = lag(sound[:4000], signals[0])
    heard = np.stack([explained(sound, signal, at) for signal in signals])
    # one alignment explains every sample, all but the crossfades of three switches
    parts = turns(heard)
    assert [number for number, _, _ in parts] == [0, 1, 2, 0]
    fades = [after - before - 1 for (_, _, before), (_, after, _) in itertools.pairwise(parts)]
    assert max(fades) <= 0.011 * RATE
    ends = [first + before for _, _, before in parts[:-1]]
    print("seconds from key to crossfade:", [end / RATE - when for end, when in zip(ends, pressed, strict=True)])
