"""The separator: a band-split TF-Locoformer between an STFT and its inverse, and its checkpoints."""

from lib.model.locoformer import SIZES, BandSplitTFLocoformer, Size, band_widths
from lib.model.published import load_published
from lib.model.separator import Separator

__all__ = ["SIZES", "BandSplitTFLocoformer", "Separator", "Size", "band_widths", "load_published"]
