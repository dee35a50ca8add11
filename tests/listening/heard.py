"""Excerpts of noise that are listened to in tests."""

import numpy as np

from lib.listening.excerpt import REFERENCE, Excerpt

RATE = 16000
METHODS = ("quokka net", "wombat net")


def excerpts(songs: int = 2, seconds: float = 3.0) -> list[Excerpt]:
    """Songs of noise whose "methods" add noise of their own."""
    draw, found = np.random.default_rng(0), []
    for number in range(songs):
        stems = 0.05 * draw.standard_normal((4, 2, round(seconds * RATE))).astype(np.float32)
        versions = {REFERENCE: stems}
        for share, name in zip((0.3, 0.8), METHODS, strict=True):
            versions[name] = stems + share * 0.05 * draw.standard_normal(stems.shape).astype(np.float32)
        found.append(Excerpt(f"Song of platypus {number}", 1.0, RATE, stems.sum(0), versions))
    return found
