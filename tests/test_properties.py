"""Properties that hold for whatever comes in: hypothesis looks for what breaks them."""

import itertools

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import profile as profiles
from lib import separate
from lib.data import audio, folder
from lib.data.segments import audible_segments
from lib.losses import mixit_loss, stem_snr_loss
from lib.mixing import song_segments
from lib.transfer import Statistics, best_groups, choose_outputs, mean_snr, output_snr

RATE = 8000
# the same examples at every call; a shared machine may take its time
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=25, database=None,
                          suppress_health_check=list(HealthCheck))  # fmt: skip
settings.load_profile("suite")
seeds = st.integers(0, 2**31 - 1)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def separations(draw, most=14):
    """(estimates [1, N, 2, T], mixtures [1, 2, 2, T]) at any level; some outputs are silent, alike or negated."""
    sources, samples = draw(st.integers(2, most)), draw(st.integers(1, 40))
    estimates = noise(draw(seeds), 1, sources, 2, samples)
    factors = draw(st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-3, 30.0]), min_size=sources, max_size=sources))
    estimates = estimates * torch.tensor(factors, dtype=torch.float64).view(1, -1, 1, 1)
    if draw(st.booleans()):
        estimates[:, 0] = estimates[:, 1]
    mixtures = noise(draw(seeds), 1, 2, 2, samples)
    if draw(st.booleans()):
        first = noise(draw(seeds), sources).gt(0).to(mixtures)
        mixtures = torch.einsum("in,bnct->bict", torch.stack([first, 1 - first]), estimates) + 0.1 * mixtures
    if draw(st.booleans()):
        mixtures[:, draw(st.integers(0, 1)), draw(st.integers(0, 1))] = 0  # a silent channel
    return estimates, mixtures


def brute_force(estimates, mixtures):
    """The least MixIT loss over all 2^N sums of waveforms, each of which is formed."""
    energy = mixtures.square().sum(-1)
    first = torch.tensor(list(itertools.product((0.0, 1.0), repeat=estimates.shape[1])), dtype=torch.float64)
    sums = torch.einsum("ikn,bnct->kbict", torch.stack([first, 1 - first]), estimates)
    error = (mixtures - sums).square().sum(-1)
    losses = 10 * torch.log10(error + 1e-3 * energy + 1e-8) - 10 * torch.log10(energy + 1e-8)
    return losses.mean((1, 2, 3)).min()


@given(separations(most=9))
def test_exact_mixit_is_brute_force(pair):
    torch.testing.assert_close(mixit_loss(*pair)[0][0], brute_force(*pair), rtol=1e-7, atol=1e-6)


@settings(max_examples=3)
@given(separations(most=14).filter(lambda pair: pair[0].shape[1] >= 12))
def test_exact_mixit_is_brute_force_with_many_outputs(pair):
    torch.testing.assert_close(mixit_loss(*pair)[0][0], brute_force(*pair), rtol=1e-7, atol=1e-6)


@given(separations(), st.randoms(use_true_random=False), st.sampled_from(["exact", "least_squares"]))
def test_mixit_knows_no_order_of_outputs_and_takes_each_once(pair, random, rule):
    estimates, mixtures = pair
    order = random.sample(range(estimates.shape[1]), estimates.shape[1])
    loss, assignment = mixit_loss(estimates, mixtures, rule)
    again, _ = mixit_loss(estimates[:, order], mixtures, rule)
    if rule == "exact":
        torch.testing.assert_close(again, loss, rtol=1e-7, atol=1e-6)
    assert torch.equal(assignment.sum(1), torch.ones_like(assignment[:, 0]))
    assert loss <= mixit_loss(estimates, mixtures, "least_squares")[0] + 1e-6


@given(separations(), st.sampled_from([-1.0, 0.5, 100.0]))
def test_mixit_and_stem_loss_see_ratios_alone(pair, gain):
    estimates, mixtures = (100 * wave for wave in pair)  # far above the floor of 1e-8
    if not mixtures.square().sum(-1).all():
        return  # nothing is a ratio where there is silence
    torch.testing.assert_close(
        mixit_loss(gain * estimates, gain * mixtures)[0], mixit_loss(estimates, mixtures)[0], rtol=1e-4, atol=1e-4
    )
    stems, guesses = mixtures[:, :, :1], estimates[:, :2, :1]
    torch.testing.assert_close(
        stem_snr_loss(gain * guesses, gain * stems), stem_snr_loss(guesses, stems), rtol=1e-4, atol=1e-3
    )


@given(seeds, st.integers(4, 7), st.integers(1, 3))
def test_choices_of_outputs_are_the_best_there_are(seed, outputs, songs):
    found = [Statistics.of(noise(seed + i, outputs, 2, 60), noise(seed + i + 99, 4, 2, 60)) for i in range(songs)]
    scores = output_snr(found)
    together = [sum(scores[i, n] for i, n in enumerate(order)) for order in itertools.permutations(range(outputs), 4)]
    chosen = choose_outputs(found)
    assert len(set(chosen)) == 4
    assert sum(scores[i, n] for i, n in enumerate(chosen)) == pytest.approx(max(together))
    reached = np.diagonal(mean_snr(found, best_groups(found)))
    for bits in itertools.product((0.0, 1.0), repeat=outputs):
        assert (mean_snr(found, np.tile(bits, (4, 1)))[:, 0] <= reached + 1e-9).all()


class Identity(torch.nn.Module):
    """Gives its input as its only estimate, as a separator would."""

    n_fft, hop = 256, 64

    def forward(self, mixture):
        return mixture.unsqueeze(1)


@given(st.integers(1, 30_000), st.integers(1, 9000), st.data(), st.integers(1, 5))
def test_overlapping_windows_add_up_to_the_song(samples, window, data, batch):
    hop = data.draw(st.integers(max(1, window // 9), window))
    song = noise(samples, 2, samples).float()
    estimate = separate.separate(Identity(), song, window, hop, batch)
    torch.testing.assert_close(estimate[0], song, rtol=0, atol=1e-5)


def test_overlapping_windows_add_up_to_ten_minutes():
    song = noise(0, 2, 600 * RATE + 1).float()
    torch.testing.assert_close(separate.separate(Identity(), song, 12 * RATE, 6 * RATE, 8)[0], song, rtol=0, atol=1e-5)


@given(seeds, st.integers(1, 5000), st.sampled_from([8000, 16000, 22050, 44100, 48000]), st.data())
def test_resampling_in_blocks_is_resampling_and_comes_back(seed, samples, rate, data):
    new = data.draw(st.sampled_from([8000, 16000, 22050, 44100, 48000]))
    wave = noise(seed, 2, samples).numpy()
    cuts = sorted(data.draw(st.lists(st.integers(0, samples), max_size=4)))
    blocks = [block for block in np.split(wave, cuts, axis=1) if block.shape[1]]
    whole = audio.resample(wave, rate, new)
    got = np.concatenate(list(audio.resample_blocks(blocks, rate, new, whole.shape[1])), axis=1)
    np.testing.assert_allclose(got, whole, atol=1e-12)
    if new > rate:
        time = np.arange(samples) / rate
        tone = np.sin(2 * np.pi * 0.1 * rate * time) * np.hanning(samples)
        back = audio.resample(audio.resample(tone, rate, new), new, rate)[:samples]
        np.testing.assert_allclose(back, tone, atol=0.02)


@given(st.lists(st.booleans(), min_size=8, max_size=60), st.integers(1, 6), st.integers(1, 6))
def test_audible_segments_are_whole_in_the_song_and_sound(tmp_path_factory, sounding, length, hop):
    path = tmp_path_factory.mktemp("song")
    chunks = np.repeat(np.array(sounding, np.float32), RATE // 2)  # half a second each, as the rule looks at
    wave = 0.1 * chunks * np.sin(np.arange(len(chunks)))
    soundfile.write(path / "a.wav", np.stack([wave, wave], 1), RATE)
    (track,), _ = folder.read(path, path / "cache", 1, 0.1)
    found = audible_segments(track, length, hop)
    for start, seconds in found:
        inside = sounding[round(2 * start) : round(2 * (start + seconds))]
        assert start % hop == 0 and start + seconds <= track.seconds + 1e-9
        assert length - 0.5 <= seconds <= length and np.mean(inside) > 0.5
    wanted = [s for s in range(0, len(sounding), hop) if 2 * (s + length) <= len(sounding)
              and np.mean(sounding[2 * s : 2 * (s + length)]) > 0.5]  # fmt: skip
    assert set(wanted) <= {start for start, _ in found}


class Stems:
    """A song of known stems."""

    def __init__(self, wave):
        self.wave, self.seconds = wave, wave.shape[-1] / RATE

    def stems(self, start, seconds, rate):
        first, count = round(start * rate), round(seconds * rate)
        part = self.wave[..., first : first + count]
        return np.pad(part, ((0, 0), (0, 0), (0, count - part.shape[-1])))


@given(seeds, st.integers(1, 6 * RATE), st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_whole_segments_follow_each_other_without_gap(seed, samples, seconds):
    wave = noise(seed, 4, 2, samples).numpy()
    parts = [stems for _, stems in song_segments([Stems(wave)], seconds, RATE)]
    length = round(seconds * RATE)
    assert len(parts) == max(1, samples // length) and all(part.shape == (4, 2, length) for part in parts)
    joined = torch.cat(parts, -1).numpy()[..., :samples]
    np.testing.assert_array_equal(joined, wave[..., : joined.shape[-1]])


numbers = st.floats(1e-6, 0.9, allow_nan=False).map(lambda x: float(f"{x:.6g}"))


@given(st.fixed_dictionaries({
    "corpus": st.fixed_dictionaries({"unlabeled_fraction": numbers, "labeled": st.text("abcé /_-'#:", min_size=1)}),
    "pretrain": st.fixed_dictionaries({
        "steps": st.integers(1, 10**9), "learning_rate": numbers,
        "seeds": st.lists(st.integers(0, 99), min_size=1, unique=True),
    }),
    "compute": st.fixed_dictionaries({"jobs": st.integers(1, 64), "training": st.booleans()}),
}))  # fmt: skip
def test_profiles_come_back_as_they_were_written(tmp_path_factory, fields):
    import yaml

    path = tmp_path_factory.mktemp("profile") / "p.yaml"
    path.write_text(yaml.safe_dump(fields, allow_unicode=True), "utf-8")
    read = profiles.load(str(path))
    again = path.with_name("p2.yaml")
    content = {key: value for key, value in profiles.to_dict(read).items() if key not in ("name", "results")}
    again.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    back = profiles.to_dict(profiles.load(str(again)))
    assert {key: back[key] for key in content} == content
    assert list(content["pretrain"]["seeds"]) == fields["pretrain"]["seeds"]
    assert content["corpus"]["labeled"] == fields["corpus"]["labeled"]
