"""Training on several devices through PyTorch's own launcher.

`torchrun --nproc-per-node N -m trainer train RECIPE` starts N processes that differ in rank. All
draw the same batches and each computes its share of every batch; gradients and the statistics of
batch norm are those of the whole batch, so that the result is that of one process but for
rounding, dropout and SpecAugment. Rank 0 alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import TrainerError
from trainer.recipe import TrainSettings

_T = TypeVar("_T")
# Rank 0 may decode and degrade for hours while the others wait.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class World:
    """A process among those that train together; alone it is rank 0 of 1."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Which of a batch's rows are this process's."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def only_leader(self, action: Callable[[], _T]) -> _T:
        """Do something on rank 0, and give every rank its result, or its `TrainerError`."""
        if self.size == 1:
            return action()
        told: list[tuple[_T | None, str | None]] = [(None, None)]
        if self.leads:
            try:
                told = [(action(), None)]
            except TrainerError as error:
                told = [(None, str(error))]
        dist.broadcast_object_list(told, 0)
        result, fault = told[0]
        if fault is not None:
            raise TrainerError(fault)
        return result  # type: ignore[return-value]  # there is no fault, so the action returned it

    def leader_first(self, action: Callable[[], _T]) -> _T:
        """Do something on rank 0, then on the others, which find what it left in the cache."""
        if self.size == 1:
            return action()
        kept: list[_T] = []
        self.only_leader(lambda: kept.append(action()))
        return kept[0] if self.leads else action()

    def total(self, values: Tensor) -> Tensor:
        """Sum over the ranks, element by element."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


def choose_device(settings: TrainSettings, world: World) -> torch.device:
    """The device that the recipe asks for.

    Raises
    ------
    TrainerError
        it is not there, or cannot compute in the recipe's precision.
    """
    there = torch.cuda.is_available()
    name = settings.device
    if name.startswith("cuda") and not there:
        raise TrainerError(f"train.device: there is no {name} here; use auto or cpu.")
    if name == "auto":
        name = "cuda" if there else "cpu"
    if name == "cuda":
        name = f"cuda:{world.local_rank}"
    if name == "cpu" and settings.precision == "fp16":
        raise TrainerError("train.precision: fp16 needs a GPU; use bf16 or fp32.")
    return torch.device(name)


@contextmanager
def join() -> Iterator[World]:
    """The world that `torchrun` made, or this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield World(dist.get_rank(), size, local)
    finally:
        dist.destroy_process_group()


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are those of all ranks' rows, on any device."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's name for it
        pass

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, …], the same shape back."""
        if not self.training:
            normalised: Tensor = super().forward(x)
            return normalised
        values = x.float()
        over = [0, *range(2, x.dim())]
        count = torch.full((1,), values.numel() / values.shape[1], device=x.device)
        sums = torch.cat([values.sum(over), (values * values).sum(over), count])
        totals = all_reduce(sums)  # type: ignore[no-untyped-call]
        mean, square = (totals[:-1] / totals[-1]).chunk(2)
        variance = torch.clamp(square - mean * mean, min=0)
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                momentum = self.momentum if self.momentum is not None else 0.1
                unbiased = variance * (totals[-1] / torch.clamp(totals[-1] - 1, min=1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked += 1
        shape = (1, -1, *([1] * (x.dim() - 2)))
        scaled = (values - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        shaped: Tensor = scaled.to(x.dtype)
        return shaped


def share_batch_norm(module: nn.Module) -> None:
    """Put `SharedBatchNorm` in the place of every batch norm, with its weights and names."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            shared = SharedBatchNorm(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
            )
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.to(next(iter(child.state_dict().values())).device))
        else:
            share_batch_norm(child)


def parallel(module: nn.Module, world: World) -> nn.Module:
    """A module whose gradients are averaged over the ranks; as it is where there is but one."""
    if world.size == 1:
        return module
    return DistributedDataParallel(module, broadcast_buffers=False)
