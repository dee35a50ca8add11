"""From N outputs to four stems: optimal choices, and slices that are bit-equal."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.model.separator import Separator
from lib.scoring import usdr
from lib.transfer import (
    Statistics,
    best_groups,
    choose_outputs,
    group_outputs,
    is_body,
    most_frequent_outputs,
    output_snr,
    partly_new,
    segment_statistics,
    shuffled,
    slice_outputs,
    song_statistics,
    transfer,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(groups, seed=0, level=0.1):
    """Stems [4, 2, T] and outputs [N, 2, T] of which ``groups`` [4, N] sum to the stems, up to noise."""
    groups = torch.as_tensor(groups).float()
    outputs = noise(groups.shape[1], 2, 800, seed=seed)
    stems = torch.einsum("sn,nct->sct", groups, outputs) + level * noise(4, 2, 800, seed=seed + 1)
    return stems, outputs


def test_snr_is_usdr_of_the_sum():
    stems, outputs = planted(np.eye(4, 6))
    subsets = np.array([[1, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0]], float)
    found = Statistics.of(outputs, stems).snr(subsets)
    for column, subset in enumerate(subsets):
        estimate = torch.einsum("n,nct->ct", torch.tensor(subset).float(), outputs).expand(4, -1, -1)
        np.testing.assert_allclose(found[:, column], usdr(stems.numpy(), estimate.numpy()), atol=1e-4)


def test_statistics_of_segments_add_up_to_the_song():
    stems, outputs = planted(np.eye(4, 6))
    whole = Statistics.of(outputs, stems)
    halves = Statistics.of(outputs[..., :300], stems[..., :300]) + Statistics.of(outputs[..., 300:], stems[..., 300:])
    np.testing.assert_allclose(halves.snr(np.eye(6)), whole.snr(np.eye(6)), rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_choice_is_the_best_of_all_without_collisions(seed):
    statistics = [Statistics.of(noise(6, 2, 100, seed=seed), noise(4, 2, 100, seed=seed + 50))]
    scores = output_snr(statistics)
    best = max(itertools.permutations(range(6), 4), key=lambda p: sum(scores[i, n] for i, n in enumerate(p)))
    assert choose_outputs(statistics) == list(best)


def test_choice_follows_the_planted_outputs():
    order = [4, 0, 5, 2]
    stems, outputs = planted(np.eye(6)[order])
    assert choose_outputs([Statistics.of(outputs, stems)]) == order


def test_one_output_that_fits_two_stems_is_given_once():
    stems, outputs = planted(np.eye(4, 6))
    stems[1] = stems[0] + 0.2 * noise(2, 800, seed=9)
    chosen = choose_outputs([Statistics.of(outputs, stems)])
    assert len(set(chosen)) == 4


def test_silent_stems_do_not_vote():
    stems, outputs = planted(np.eye(4, 6))
    wrong = stems.clone()
    wrong[2] = 0
    moved = outputs[[0, 1, 3, 2, 4, 5]]
    statistics = [Statistics.of(outputs, stems), *[Statistics.of(moved, wrong)] * 3]
    assert np.isfinite(output_snr(statistics)).all()
    assert np.isnan(Statistics.of(moved, wrong).snr(np.eye(6))[2]).all()
    assert output_snr(statistics)[2] == pytest.approx(output_snr(statistics[:1])[2])


def test_groups_are_the_planted_subsets():
    groups = np.array([[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]], float)
    stems, outputs = planted(groups)
    np.testing.assert_array_equal(best_groups([Statistics.of(outputs, stems)]), groups)


def test_groups_go_by_songs_so_that_faint_passages_do_not_outvote_the_loud_one():
    class Song:
        """Stem 0 leads in the first second; then stem 1, with stem 0 40 dB under it."""

        seconds = 10.0

        def stems(self, start, seconds, rate):
            levels = [3.0, 0.0, 0.0, 0.0] if start == 0 else [0.01, 1.0, 0.0, 0.0]
            return noise(4, 2, round(seconds * rate), seed=int(start)).numpy() * np.float32(levels)[:, None, None]

    class Gate(torch.nn.Module):
        """Output 0 is the mixture where that is loud, and leaks a tenth of it elsewhere; output 1 is the rest."""

        window, rate = torch.zeros(1), 8000

        def forward(self, mixture):
            first = mixture if mixture.square().mean() > 4 else 0.1 * mixture
            return torch.stack([first, mixture - first], dim=1)

    groups = best_groups([song_statistics(Gate(), Song(), 1.0)])
    np.testing.assert_array_equal(groups[:2], [[1, 0], [0, 1]])


def test_sliced_model_is_bit_equal(tiny):
    wave = noise(2, 2, 64 * 50)
    with torch.inference_mode():
        assert torch.equal(slice_outputs(tiny, [3, 0, 4, 1])(wave), tiny(wave)[:, [3, 0, 4, 1]])
    assert tiny.sources == 5


def test_sliced_model_is_bit_equal_at_the_published_size():
    separator = Separator.from_size("small", 6, dropout=0.0).eval()
    wave = noise(1, 2, 512 * 24)
    with torch.inference_mode():
        assert torch.equal(slice_outputs(separator, [5, 2])(wave), separator(wave)[:, [5, 2]])


def test_grouped_model_sums_its_outputs_and_learns_the_matrix(tiny):
    groups = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]], float)
    grouped, wave = group_outputs(tiny, groups), noise(1, 2, 64 * 30)
    with torch.inference_mode():
        expected = torch.einsum("sn,bnct->bsct", torch.tensor(groups).float(), tiny(wave))
        torch.testing.assert_close(grouped(wave), expected, rtol=1e-4, atol=1e-6)
    grouped(wave).sum().backward()
    assert grouped.stem_matrix.grad.abs().sum() > 0


def test_new_decoders_keep_encoder_and_blocks(tiny):
    fresh = partly_new(tiny, 1, is_body)
    old, new = tiny.state_dict(), fresh.state_dict()
    kept = [name for name in new if ".blocks." in name or ".encoder" in name]
    assert all(torch.equal(old[name], new[name]) for name in kept)
    assert fresh.sources == 4
    assert any(name not in kept and name in old and not torch.equal(old[name], new[name]) for name in new)


def test_the_separator_is_given_the_sum_of_the_stems(tiny):
    stems = noise(4, 2, 64 * 20)
    song = SimpleNamespace(seconds=64 * 20 / tiny.rate, stems=lambda *_: stems.numpy())
    with torch.inference_mode():
        expected = Statistics.of(tiny(stems.sum(0, keepdim=True))[0], stems)
    np.testing.assert_array_equal(segment_statistics(tiny, song, song.seconds)[0].gram, expected.gram)


def test_the_most_frequent_output_may_be_shared_and_counts_segments_not_decibels():
    """Two quiet wins outvote one loud one; where two stems win the same output in turn, both keep it."""
    clear, outputs = planted(np.eye(6)[[0, 1, 2, 3]])
    swapped = clear[[1, 0, 2, 3]]
    often = [Statistics.of(outputs, clear)] + 2 * [Statistics.of(outputs, swapped)]
    assert most_frequent_outputs(often) == [1, 0, 2, 3]
    shared = clear.clone()
    shared[1] = 0  # stem 1 is silent: it does not vote, and takes output 0 in the only segment where it sounds
    moved = torch.stack([clear[1], clear[0], clear[2], clear[3]])
    votes = 3 * [Statistics.of(outputs, shared)] + [Statistics.of(outputs, moved)]
    assert most_frequent_outputs(votes)[:2] == [0, 0]


@pytest.mark.parametrize("how", ["body", "sliced", "group", "frequent", "random", "blocks", "encoder"])
def test_every_transfer_gives_four_stems_and_depends_on_its_seed_alone(tiny, how):
    segments = [[Statistics.of(noise(5, 2, 100, seed=seed), noise(4, 2, 100, seed=seed + 9))] for seed in range(3)]
    one, two, other = (transfer(tiny, how, lambda: segments, seed).state_dict() for seed in (0, 0, 1))
    assert transfer(tiny, how, lambda: segments, 0).sources == 4
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = any(not torch.equal(one[name], other[name]) for name in one)
    assert drawn == (how in ("random", "body", "blocks", "encoder"))


def test_the_encoder_alone_is_kept(tiny):
    old, new = tiny.state_dict(), transfer(tiny, "encoder", list, 1)
    same = {name for name, value in new.state_dict().items() if name in old and torch.equal(value, old[name])}
    trained = {name for name, _ in new.named_parameters() if new.state_dict()[name].unique().numel() > 1}
    assert trained & same == {name for name in trained if ".encoder" in name}


def test_shuffled_weights_keep_their_values_and_lose_their_order(tiny):
    grouped = group_outputs(tiny, np.eye(4, 5))
    permuted = shuffled(grouped, 0)
    moved = 0
    for (name, old), new in zip(grouped.named_parameters(), permuted.parameters(), strict=True):
        torch.testing.assert_close(old.flatten().sort().values, new.flatten().sort().values, rtol=0, atol=0)
        moved += not torch.equal(old, new)
        assert name != "stem_matrix" or torch.equal(old, new)
    assert moved > 10
    wave = noise(1, 2, 64 * 30)
    assert not torch.allclose(permuted(wave), grouped(wave), atol=1e-3)


def test_a_shuffle_depends_on_its_seed_alone(tiny):
    first, again, other = (shuffled(tiny, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
