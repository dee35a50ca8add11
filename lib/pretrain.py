"""Stage 1: MixIT on unlabelled music (arXiv 2006.12701, with the recipe of arXiv 2505.07631)."""

from __future__ import annotations

from functools import partial

from lib.mixing import MixturesOfMixtures, validation_mixtures
from lib.model.separator import Separator
from lib.profile.fields import Compute, Pretrain
from lib.store.runs import Run
from lib.training import Task, fit, mean_loss, mixit


def pretrain(
    separator: Separator,
    training: MixturesOfMixtures,
    held_out: MixturesOfMixtures,
    stage: Pretrain,
    run: Run,
    seed: int,
    compute: Compute,
    workers: int,
) -> Separator:
    """Train ``separator``, as it comes, on mixtures of mixtures; validate on the first of those of ``held_out``.

    Returns the average of the checkpoints of lowest validation loss, which lies in the folder of ``run`` as well (see
    `lib.training.fit`).
    """
    loss = partial(mixit, assignment=stage.assignment)
    validation = validation_mixtures(stage.validation_moms, held_out)
    validate = partial(mean_loss, loss, batches=lambda: validation.split(stage.batch))
    task = Task(separator, training, loss, validate)
    return fit(task, stage, run, seed, compute, workers, f"MixIT pre-training, seed {seed}")
