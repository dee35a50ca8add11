"""Schedules over other numbers of steps."""

from lib.profile.fields import Optimisation


def test_a_stretched_schedule_keeps_its_shape_and_its_warm_up():
    stage = Optimisation(steps=200, warmup_steps=20, decay_start=100, decay_every=25, validate_every=25)
    longer = stage.stretched(1000)
    assert (longer.steps, longer.warmup_steps) == (1000, 20)
    assert (longer.decay_start, longer.decay_every, longer.validate_every) == (500, 125, 125)
    assert stage.stretched(200) == stage
    assert stage.stretched(2).decay_every == 1
