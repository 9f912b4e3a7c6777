"""The processes that train one model together, and the few things they tell each other."""

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.errors import KennelError, LostTouchError, UsageError

_GROUP = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
_UNSET = "start with torchrun, or unset {} to train in this process alone"
_REMEDY = _UNSET.format("WORLD_SIZE")
# gloo's words for a process that is gone.
_LOST_PEER = re.compile("Connection (closed|reset) by peer|Broken pipe")


@dataclass(frozen=True)
class Ranks:
    """This process: `rank` of `world`, `local_rank` on its machine, computing on `device`."""

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Give the sum of a float64 tensor over all processes."""
        if self.world > 1:
            values = values.to(self.device)  # NCCL reduces tensors on the GPU only
            dist.all_reduce(values)
        return values.cpu()

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor(float(flag))) > 0)

    def share_buffers(self, network: nn.Module) -> None:
        """Give every process the leading one's buffers, such as batch-normalization statistics."""
        if self.world > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


def _check_gpus() -> None:
    """A machine that is paid for its GPUs must not train on its CPUs without a word.

    SageMaker's toolkit counts them for a job, the user data of the EC2 trainer do on EC2.
    """
    gpus = os.environ.get("SM_NUM_GPUS") or os.environ.get("KENNEL_GPUS") or "0"
    if gpus != "0" and not torch.cuda.is_available():
        raise KennelError(
            f"this machine has GPUs ({gpus}), and torch {torch.__version__} cannot use them, so "
            "that it would train on the CPUs at the price of the GPUs: take an image whose torch "
            "is built for CUDA and for the machine's driver, or a machine without GPUs"
        )


def alone() -> Ranks:
    """Give the place of a process that trains by itself, on the first GPU if there is one.

    Raises:
        KennelError: torch cannot use the machine's GPUs.
    """
    _check_gpus()
    return Ranks(
        0, 1, 0, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    )


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the process group that torchrun announces, if it does, and leave it at the end.

    Raises:
        UsageError: SageMaker started several hosts without a process group: each would train a
            model of its own; or the environment speaks of a group that there is not.
        KennelError: The other processes cannot be reached, or torch cannot use the machine's GPUs.
    """
    world, local_rank = _announced()
    hosts = os.environ.get("SM_HOSTS", "[]").count('"') // 2
    if hosts > 1 and world == 1:
        raise UsageError(
            f"{hosts} hosts but no process group: each would train a model of its own; "
            "start the job with torchrun (SDK v3: Torchrun(); "
            "else the hyperparameter sagemaker_torch_distributed_enabled=true)"
        )
    if world == 1:
        yield alone()
        return
    _check_gpus()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    except (dist.DistError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise KennelError(
            f"cannot reach the other processes (WORLD_SIZE is {world}): {reason}; {_REMEDY}"
        ) from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local_rank, device)
        # Leaving while another rank still talks to this one crashes it at exit.
        dist.barrier()
    except RuntimeError as error:
        if not _LOST_PEER.search(str(error)):
            raise
        time.sleep(1)  # so that the other one is seen to have ended first
        raise LostTouchError("another process of this run has ended: it says why") from error
    finally:
        dist.destroy_process_group()


def _announced() -> tuple[int, int]:
    """Read what torchrun says of the group: its size, and this process's place on its machine.

    The shells of clusters and notebooks set some of it, empty or of another program.

    Raises:
        UsageError: It says of a group, but not all that it takes to join it.
    """
    given = {name: os.environ.get(name, "").strip() for name in (*_GROUP, "LOCAL_RANK")}
    numbers = {}
    for name in ("WORLD_SIZE", "RANK", "MASTER_PORT", "LOCAL_RANK"):
        if given[name] and not (given[name].isascii() and given[name].isdigit()):
            remedy = _REMEDY if given["WORLD_SIZE"] else _UNSET.format(name)
            raise UsageError(f"{name} is {given[name]!r} in the environment, no number: {remedy}")
        numbers[name] = int(given[name] or 0)
    world, rank = numbers["WORLD_SIZE"] or 1, numbers["RANK"]
    if world == 1:
        return 1, 0
    if lacking := [name for name in _GROUP if not given[name]]:
        raise UsageError(
            f"WORLD_SIZE is {world} in the environment, but {', '.join(lacking)} not set: {_REMEDY}"
        )
    if rank >= world:
        raise UsageError(f"RANK is {rank} of WORLD_SIZE {world} in the environment: {_REMEDY}")
    if not os.environ.get("TORCHELASTIC_RUN_ID"):
        _check_address(given["MASTER_ADDR"], given["MASTER_PORT"], world)
    return world, numbers["LOCAL_RANK"]


def _check_address(host: str, port: str, world: int) -> None:
    """Say what is waited for, since nobody knows whether others were started."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise UsageError(
            f"MASTER_ADDR is {host!r} in the environment: {error.strerror}; {_REMEDY}"
        ) from error
    sys.stderr.write(
        f"waiting for {world - 1} more processes, as WORLD_SIZE says, "
        f"to meet at {host} port {port} (MASTER_ADDR, MASTER_PORT); {_REMEDY}\n"
    )
