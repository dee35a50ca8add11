"""Tables: which music each level pre-trains on."""

import numpy as np

from lib import audio, results
from lib.profile import load
from lib.stages import Study


def test_music_of_every_level_is_counted_by_its_source(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 16000 * 6)).astype(np.float32)
    for name in ("one/a.wav", "one/deep/b.wav", "two/c.wav"):
        audio.write(tmp_path / "music" / name, noise, 16000)
    levels = ["{label: rendered}", f"{{label: folder, set: {{corpus.unlabeled: {tmp_path}/music}}}}"]
    levels.append(f"{{label: both, set: {{corpus.unlabeled: rendered + {tmp_path}/music}}}}")
    axes = f"ablations.axes=[{{name: music, base: rendered, levels: [{', '.join(levels)}]}}]"
    study = Study(load("smoke", [f"results={tmp_path / 'results'}", axes]))
    found = results.unlabelled_music(study).set_index(["level", "source"])["songs"].to_dict()
    rendered = found[("rendered", "rendered")]
    assert rendered == sum(song.split == "train" for song in study.unlabeled)
    assert found == {
        ("rendered", "rendered"): rendered,
        ("folder", "one"): 2,
        ("folder", "two"): 1,
        ("both", "rendered"): rendered,
        ("both", "one"): 2,
        ("both", "two"): 1,
    }
