"""Mixture-invariant pre-training for music source separation: model, losses, data flow and scores of the study."""

import os
import sys

# Set-up puts ffmpeg and ffprobe beside the interpreter; a kernel started without activation would not find them.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.join(sys.prefix, "bin")])

STEMS = ("bass", "drums", "vocals", "other")
"""The four stems in the order that every array in this project uses."""


class UserError(Exception):
    """Something the caller can mend: one line that names the file or field, what is wrong and what to do."""
