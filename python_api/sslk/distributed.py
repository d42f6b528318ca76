"""The processes of `torchrun`, each holding some of the rows, and sums over them; one alone needs no process group."""

from __future__ import annotations

import os

import torch
from torch import Tensor, distributed


def world() -> tuple[int, int]:
    """This process's rank and how many there are: of the process group, else as `torchrun` or Slurm's `srun` started
    them, else `(0, 1)`."""
    if _grouped():
        return distributed.get_rank(), distributed.get_world_size()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "SLURM_NTASKS" in os.environ:
        from pytorch_lightning.plugins.environments import SLURMEnvironment

        if SLURMEnvironment.detect():
            slurm = SLURMEnvironment()
            return slurm.global_rank(), slurm.world_size()
    return 0, 1


def join_processes() -> None:
    """Initialise the process group of the processes that were started together; Lightning then uses it."""
    rank, size = world()
    if size == 1 or distributed.is_initialized():
        return
    if "MASTER_ADDR" not in os.environ:
        from pytorch_lightning.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment()
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
        os.environ["LOCAL_RANK"] = str(slurm.local_rank())
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", rank=rank, world_size=size)


def wait_for_all() -> None:
    """Wait until every process of the group is here; at once where there is no group."""
    if _grouped():
        distributed.barrier()


def best_device() -> str:
    """The GPU of this process where there is one, else the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def require_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, the best one of this process where none is named.

    Raises:
        ValueError: no device is called so, or this machine has none of it.

    >>> require_device("cpu")
    device(type='cpu')
    >>> require_device("gpu")
    Traceback (most recent call last):
    ValueError: device must be cpu, or a GPU as torch names it (cuda, cuda:1), got 'gpu'.
    """
    try:
        device = torch.device(best_device() if name is None else name)
    except RuntimeError:
        raise ValueError(f"device must be cpu, or a GPU as torch names it (cuda, cuda:1), got {name!r}.") from None
    here = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        here += [f"{kind.type}:{index}" for index in range(torch.accelerator.device_count())] if kind is not None else []
    if device.type not in ("cpu", *(other.partition(":")[0] for other in here)) or (device.index and str(device) not in here):
        raise ValueError(f"device={str(name)!r} is not here: this machine has {', '.join(here)}.")
    return device


def all_sum(value: Tensor) -> Tensor:
    """The sum over all processes of the group, in place."""
    if _grouped():
        distributed.all_reduce(value)
    return value


def all_gather(value: Tensor) -> Tensor:
    """`[ranks, ...]`, the value of every process; shapes must be equal."""
    rank, size = (distributed.get_rank(), distributed.get_world_size()) if _grouped() else (0, 1)
    gathered = value.new_zeros(size, *value.shape)
    gathered[rank] = value
    return all_sum(gathered)


def first_row(rows: int, device: torch.device | None = None) -> tuple[int, int]:
    """Number of this process's first row, rows being numbered through by rank, and how many there are in all."""
    counts = all_gather(torch.tensor(rows, dtype=torch.int64, device=device)).tolist()
    return sum(counts[: distributed.get_rank() if _grouped() else 0]), sum(counts)


def _grouped() -> bool:
    return bool(distributed.is_available() and distributed.is_initialized())
