"""Figures of a study. Each is drawn from tables alone, and one method has one colour everywhere."""

from lib.plots.ablations import ablation
from lib.plots.listening import ratings
from lib.plots.music import correlation, levels, variety
from lib.plots.probes import before_after, correlation_table, ill_posed, outputs, probes, shares, within_songs
from lib.plots.style import COLORS, ORDER, drawn, intervals, per_song
from lib.plots.training import budgets, claim, claim_stems, gain, learning_curves, regime, scores, search, songs

__all__ = [
    "COLORS",
    "ORDER",
    "ablation",
    "before_after",
    "budgets",
    "claim",
    "claim_stems",
    "correlation",
    "correlation_table",
    "drawn",
    "gain",
    "ill_posed",
    "intervals",
    "learning_curves",
    "levels",
    "outputs",
    "per_song",
    "probes",
    "ratings",
    "regime",
    "scores",
    "search",
    "shares",
    "songs",
    "variety",
    "within_songs",
]
