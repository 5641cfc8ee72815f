"""The device and the processes of one training, as accelerate finds them; the program around it is left as it was."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["joint_sum", "launched_precision", "on_all_processes", "processes"]


@contextmanager
def processes(cpu: bool) -> Iterator[Any]:
    """accelerate's `PartialState` (device, process_index, num_processes), chosen anew, whatever was chosen before.

    accelerate keeps one choice for the whole program: it is set aside meanwhile, and put back. Only what a launcher has
    joined stays joined: processes that first met here, and accelerate's record of them, serve the rest of the job.

    Args:
        cpu: Use the CPU even where there is a GPU.

    Raises:
        ImportError: accelerate is not installed.
    """
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError("training needs three more packages: pip install accelerate safetensors tqdm") from error
    choice, threads = PartialState._shared_state, torch.get_num_threads()
    before = dict(choice)
    choice.clear()
    try:
        # Without a GPU, torchrun's processes have to be told that they belong together, or each would train alone.
        yield PartialState(cpu=cpu or not torch.accelerator.is_available())
    finally:
        if before or not torch.distributed.is_initialized():
            choice.clear()
            choice.update(before)
        torch.set_num_threads(threads)  # which accelerate sets where several processes share the CPUs


def launched_precision() -> str | None:
    """The precision that `accelerate launch` was told: "bf16", or None.

    Raises:
        ValueError: Another one.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked not in ("no", "bf16"):
        raise ValueError(f"the launcher asks for {asked}: log-densities need the range of bf16")
    return None if asked == "no" else asked


def on_all_processes(module: nn.Module, here: Any) -> nn.Module:
    """The module with the weights of process 0, whose backward pass averages the gradients over all processes."""
    if here.num_processes == 1:
        return module
    return nn.parallel.DistributedDataParallel(module, None if here.device.type == "cpu" else [here.device])


def joint_sum(values: Tensor, here: Any) -> Tensor:
    """The sum over all processes."""
    if here.num_processes > 1:
        torch.distributed.all_reduce(values)
    return values
