"""Tables: which arms are compared, and which music each level pre-trains on."""

import numpy as np

from lib import audio, results
from lib.profile import load
from lib.stages import Study


def test_the_long_arm_is_the_first_transfer_and_is_compared_with_scratch_as_long(tmp_path):
    changes = ["pretrain.steps=2", "finetune.steps=2", "pretrain.seeds=[0]", "finetune.average_best=1"]
    study = Study(load("smoke", [f"results={tmp_path}", *changes, "finetune.validate_every=1"]))
    long = study.supervised("long", 0, 1)
    more, stage = study.equivalent_steps, study.profile.finetune
    longer = {"finetune.steps": stage.steps + more, "finetune.decay_start": stage.decay_start + more}
    same_start = study.variant(longer).supervised_run("group", 0, 1)
    assert long == same_start and long.facts()["steps"] == stage.steps + more
    found = results.pairs(study)
    assert [pair for pair in found if "long" in pair] == [("long", "scratch"), ("long", "equal compute")]
    assert ("sliced", "equal compute") in found and len(found) == len(set(found))


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
