"""Listening: excerpts, players and blind tests. Names are imported when they are used: some of them import torch."""

from __future__ import annotations

import importlib

_HOMES = {
    "blind.prepare": ["write_study"],
    "blind.widget": ["BlindTest"],
    "explorer": ["Explorer", "OwnFile", "analysis_tables", "is_live"],
    "groups": ["Groups", "snr_table"],
    "player": ["Player"],
    "sources": ["clearest", "excerpts", "methods", "origin_note"]
    + ["own_file", "plays_examples", "separated_excerpt", "unsupervised"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
