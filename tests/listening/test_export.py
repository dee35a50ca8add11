"""Encoded sounds."""

import io

import numpy as np
import pytest
import soundfile

from lib.listening.export import encoded, vorbis

WAVE = 0.3 * np.sin(np.arange((1 << 21) + 5) / 50)[None].repeat(2, 0).astype(np.float32)


@pytest.mark.parametrize("encode", [vorbis, encoded], ids=["vorbis", "flac"])
@pytest.mark.parametrize("frames", [1, 70_000, (1 << 21) + 5])
def test_sounds_of_any_length_are_encoded_whole(encode, frames):
    """One write of 2^21 samples of Vorbis ends in a crash of libsndfile."""
    found, rate = soundfile.read(io.BytesIO(encode(WAVE[:, :frames], 44100)))
    assert (rate, found.shape) == (44100, (frames, 2))
    if frames > 1:
        assert np.corrcoef(found[-30_000:, 0], WAVE[0, :frames][-30_000:])[0, 1] > 0.8
