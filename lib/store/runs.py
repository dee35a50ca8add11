"""Run folders: one per training, named by a hash over everything that can change its result."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from lib.store.files import atomic, read_facts, write_json
from lib.store.fingerprints import fingerprint, training_code
from lib.store.tables import read_table


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder ``runs/STAGE-HASH``; the run is finished if ``done.json`` exists.

    A finished run without weights is a record: its log and scores count, and it is retrained where weights are needed.
    """

    folder: Path
    identity: Mapping | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, results: Path | str, stage: str, identity: Mapping) -> Run:
        """The run with this ``identity``; nothing is written."""
        return cls(Path(results) / "runs" / f"{stage}-{fingerprint(identity)}", identity)

    def begin(self) -> Run:
        """Create the folder and ``identity.json``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "identity.json").exists():
            write_json(self.folder / "identity.json", self.identity)
        return self

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        return (self.folder / "done.json").exists()

    @property
    def weights(self) -> Path:
        """Path of the weights; absent in a record."""
        return self.folder / "model.safetensors"

    def reopen(self) -> None:
        """Mark the run unfinished, so that it is retrained, and remove partial weights; the caller holds its lock."""
        (self.folder / "done.json").unlink(missing_ok=True)
        for path in self.folder.glob(".*"):
            if path.suffix in (".ckpt", ".safetensors"):
                path.unlink()

    def finish(self, **facts: object) -> None:
        """Mark the run finished, with the facts for the tables (seconds, steps, ...) and the hash of the code."""
        write_json(self.folder / "done.json", {**facts, "code": training_code()})

    def facts(self) -> dict:
        """The record of `finish`. Raises: UserError if it cannot be read."""
        return read_facts(self.folder / "done.json", "weights", "steps", "seconds", "best_validation_loss")


LOG_FIELDS = ("step", "loss", "validation_loss", "learning_rate", "gradient_norm", "skipped", "seconds")


class Log:
    """``log.csv`` of a run: one row per step, after `close` one row per validation.

    Rows after ``step``, the checkpoint that the run resumes from, are dropped.
    """

    def __init__(self, path: Path, step: int):
        self.path = path
        rows = []
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                rows = [
                    row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= step
                ]
        with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        self.file = open(path, "a", newline="", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by fit)
        self.writer = csv.writer(self.file)

    def write(self, step, loss, validation, rate, norm, skipped, seconds) -> None:
        shown = "" if validation is None else f"{validation:.6f}"
        self.writer.writerow([step, f"{loss:.6f}", shown, f"{rate:.3e}", f"{norm:.4f}", skipped, f"{seconds:.2f}"])

    def close(self) -> None:
        """Reduce to one row per validation; loss and gradient norm are means over the steps since the previous one."""
        self.file.close()
        steps = read_table(self.path).astype(float)  # skipped steps have the loss "nan"
        validated = steps["step"].where(steps["validation_loss"].notna()).bfill()
        how = dict.fromkeys(steps, "last") | {"loss": "mean", "gradient_norm": "mean"}
        rows = steps.groupby(validated).agg(how).astype({"step": int, "skipped": int})
        with atomic(self.path) as temporary:
            rows.round(6).to_csv(temporary, index=False, lineterminator="\n")
