"""How the tasks of a step of srun find one another, whatever the allocation around the step is and is called."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment


class SrunEnvironment(ClusterEnvironment):
    """The processes of this step: it may have fewer tasks, on fewer nodes, than its allocation, and run beside others.

    `lib.machine.distributed.world` decides by the same variables.
    """

    creates_processes_externally = True

    @staticmethod
    def detect() -> bool:
        return "SLURM_STEP_NUM_TASKS" in os.environ

    @property
    def main_address(self) -> str:
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        return os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))

    @property
    def main_port(self) -> int:
        job, step = (int(os.environ.get(f"SLURM_{name}", 0)) for name in ("JOB_ID", "STEP_ID"))
        return int(os.environ.setdefault("MASTER_PORT", str(15_000 + (job + 101 * step) % 10_000)))

    def world_size(self) -> int:
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def global_rank(self) -> int:
        return int(os.environ["SLURM_PROCID"])

    def local_rank(self) -> int:
        return int(os.environ["SLURM_LOCALID"])

    def node_rank(self) -> int:
        return self.global_rank() * int(os.environ["SLURM_STEP_NUM_NODES"]) // self.world_size()

    def set_world_size(self, size: int) -> None:
        """Srun has set it."""

    def set_global_rank(self, rank: int) -> None:
        """Srun has set it."""
