"""Mixture-invariant pre-training for music source separation: model, losses, data flow and scores of the study."""

STEMS = ("bass", "drums", "vocals", "other")
"""The four stems in the order that every array in this project uses."""


class UserError(Exception):
    """Something the caller can mend: one line that names the file or field, what is wrong and what to do."""
