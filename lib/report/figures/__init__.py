"""Figures of a study. Each is drawn from tables alone, and one method has one colour everywhere."""

from lib.report.figures.ablations import ablations
from lib.report.figures.claim import budgets, claim, claim_stems, gain, learning_curves, scores, songs
from lib.report.figures.music import correlation, levels, variety
from lib.report.figures.probes import before_after, correlation_table, ill_posed, probes, shares, within_songs
from lib.report.figures.search import regime, search
from lib.report.figures.style import COLORS, ORDER, drawn, intervals, per_song
