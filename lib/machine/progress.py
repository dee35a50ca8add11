"""Progress bars with rate and remaining time, for terminals and notebooks: text, which an executed notebook keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm

SHOWN = {"delay": 2.0, "mininterval": 0.1 if sys.stderr.isatty() else 5.0}
"""When any bar appears, since shorter work has none, and how often it is drawn, in s.

That is seldom where every drawing is kept: in notebooks and in the logs of a cluster.
"""


def bar(label: str, total: int | None, start: int = 0, unit: str = "step") -> Callable[..., None]:
    """A bar of ``total`` steps: a function of the steps done so far and the values shown beside it.

    The unit "B" is scaled to kB, MB, ...
    """
    progress = tqdm(desc=label, total=total, initial=start, unit=unit, unit_scale=unit == "B", **SHOWN)

    def update(done: int, **values: float | None) -> None:
        shown.update({name: f"{value:.2f}" for name, value in values.items() if value is not None})
        progress.set_postfix(shown, refresh=False)
        progress.update(done - progress.n)
        if done >= (total or float("inf")):
            progress.close()

    shown: dict[str, str] = {}
    return update
