"""Progress of long calls: one bar with rate and remaining time, the same in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Callable

from tqdm import tqdm


def bar(label: str, total: int | None, start: int = 0, unit: str = "step") -> Callable[..., None]:
    """A bar of ``total`` steps; call it with the steps done so far and the values to show beside it.

    Bytes (``unit`` "B") are shown as kB, MB, ...
    """
    progress = tqdm(desc=label, total=total, initial=start, unit=unit, unit_scale=unit == "B")

    def update(done: int, **values: float | None) -> None:
        shown.update({name: f"{value:.2f}" for name, value in values.items() if value is not None})
        progress.set_postfix(shown, refresh=False)
        progress.update(done - progress.n)
        if done >= (total or float("inf")):
            progress.close()

    shown: dict[str, str] = {}
    return update
