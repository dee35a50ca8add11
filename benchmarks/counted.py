"""``python -m benchmarks.counted``: what a training step moves and holds on a GPU, counted without one.

On fake tensors, which have a device, a shape and a type but no values, the step of every published size runs as on a
GPU (bfloat16 by autocast, attention by the flash kernel, nothing compiled). Every operation counts as one kernel that
reads its inputs and writes its outputs once. ``results/benchmarks/tables/steps.csv`` receives, for each size, stage and
``recompute``, the memory that a step needs whatever its examples, what each example adds, and for `EXAMPLES` the bytes
and kernels; `lib.machine.memory` plans by it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from unittest.mock import patch

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.cases import CROP
from lib import training
from lib.machine import memory
from lib.model.separator import Separator
from lib.store.tables import write_table

GPU = torch.device("cuda", 0)
EXAMPLES = 8
"""Examples of the step whose bytes and kernels are counted: a part of the recipe's batch."""
PUBLISHED = ("small", "medium", "large")
STAGES = {"pretrain": (12, 2, training.mixit), "finetune": (4, 4, training.supervised)}
"""Sources, signals of an example, objective."""
BLOCK = 512
"""Bytes to which torch rounds what it allocates on a GPU."""
FREE = {"detach", "alias", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty"}
"""Operations that move nothing, beside views."""


class Count(TorchDispatchMode):
    """Counts within its context: ``kernels``, ``moved`` bytes, and ``peak`` bytes of all tensors alive at once."""

    def __init__(self):
        super().__init__()
        self.kernels = self.moved = self.peak = self._now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self._see(tensor.untyped_storage())
        name = operation._schema.name.removeprefix("aten::")
        if not operation.is_view and name not in FREE and isinstance(result, Tensor | tuple | list):
            self.kernels += 1
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._alive:
            self._alive[storage._cdata] = math.ceil(storage.nbytes() / BLOCK) * BLOCK
            self._now += self._alive[storage._cdata]
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, storage: int) -> None:
        self._now -= self._alive.pop(storage)


@contextlib.contextmanager
def imagined(bf16: bool = True) -> Iterator[None]:
    """Within, new tensors are fake, those on `GPU` are taken for a GPU's, and products run as a card would run them."""

    def flash(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p)[0]

    with contextlib.ExitStack() as stack:
        # autocast does nothing where there is no GPU
        stack.enter_context(patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False))
        stack.enter_context(patch.object(torch.cuda, "is_bf16_supported", lambda: True))
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", flash))
        stack.enter_context(FakeTensorMode())
        stack.enter_context(torch.autocast("cuda", torch.bfloat16, enabled=bf16))
        yield


def backward(loss: Tensor) -> None:
    """`Tensor.backward` by calling node after node from here: torch's own engine asks for a driver.

    Raises: AssertionError for a gradient on another device than its tensor.
    """
    root = loss.grad_fn
    waiting, gradients, ready = _consumers(root), defaultdict(dict), [root]
    gradients[root][0] = torch.ones_like(loss)
    del root
    # checkpoints ask for the number of the backward pass, to compute a block again once in it
    with torch.no_grad(), patch.object(torch._C, "_current_graph_task_id", lambda: 0):
        while ready:
            ready.sort(key=lambda node: node._sequence_nr())
            node = ready.pop()
            # a function of this project answers None for arguments after its tensors, which are no nodes
            for (following, place), gradient in zip(node.next_functions, _applied(node, gradients.pop(node, {}))):  # noqa: B905
                if following is None:
                    continue
                if gradient is not None:
                    gradient, present = _as_its_tensor(gradient, following, place), gradients[following]
                    present[place] = gradient if place not in present else present[place] + gradient
                waiting[following] -= 1
                if not waiting[following]:
                    del waiting[following]
                    ready.append(following)
            following = gradient = node = None  # with a node goes what it saved


def _consumers(root) -> Counter:
    """How many gradients each node of the graph waits for."""
    waiting, seen, queue = Counter(), {root}, [root]
    while queue:
        for node, _ in queue.pop().next_functions:
            if node is not None:
                waiting[node] += 1
                if node not in seen:
                    seen.add(node)
                    queue.append(node)
    return waiting


def _as_its_tensor(gradient: Tensor, node, place: int) -> Tensor:
    """A gradient summed to the shape, and cast to the type, of the tensor that it belongs to."""
    of = node._input_metadata[place]
    assert gradient.device == of.device, f"{node.name()}: a gradient on {gradient.device}, not {of.device}"
    gradient = gradient if gradient.shape == torch.Size(of.shape) else gradient.sum_to_size(of.shape)
    return gradient if gradient.dtype == of.dtype else gradient.to(of.dtype)


def _applied(node, gradients: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of a node's inputs from those of its outputs."""
    if hasattr(node, "variable"):
        weight = node.variable
        weight.grad = gradients[0] if weight.grad is None else weight.grad.add_(gradients[0])
        return ()
    if not gradients:
        return (None,) * len(node.next_functions)
    given = [gradients.pop(place, None) for place in range(len(node._input_metadata))]
    found = node.apply(*given) if hasattr(node, "apply") else node(*given)
    return found if isinstance(found, tuple) else (found,)


def step(size: str, stage: str, examples: int, recompute: bool = False) -> Count:
    """The counts of a step of ``examples`` crops of 6 s, forward and backward, after another part of its batch."""
    sources, signals, objective = STAGES[stage]
    with imagined():
        with GPU:
            separator, batch = Separator.from_size(size, sources), torch.empty(examples, signals, 2, CROP)
        separator.masker.recompute = recompute
        with Count() as count:
            weights = list(separator.parameters())
            kept = [[torch.zeros_like(weight) for _ in ("mean", "square")] for weight in weights]  # of AdamW
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
            before = count.kernels, count.moved
            backward(objective(separator, batch).mean())
            del kept
    count.kernels, count.moved = count.kernels - before[0], count.moved - before[1]
    return count


def row(size: str, stage: str, recompute: bool) -> dict:
    """A line of the table."""
    one, two = (step(size, stage, examples, recompute).peak / 2**30 for examples in (1, 2))
    whole = step(size, stage, EXAMPLES, recompute)
    return {
        **{"size": size, "stage": stage, "sources": STAGES[stage][0], "crop_seconds": CROP / 44100},
        **{"recompute": recompute, "fixed_gib": 2 * one - two, "example_gib": two - one},
        **{"examples": EXAMPLES, "peak_gib": whole.peak / 2**30, "moved_gb": whole.moved / 1e9},
        "kernels": whole.kernels,
    }


def main() -> None:
    """Write the table."""
    rows = [row(*one) for one in itertools.product(PUBLISHED, STAGES, (False, True))]
    write_table(memory.STEPS, pd.DataFrame(rows))
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4g}".format))


if __name__ == "__main__":
    main()
