"""The random numbers of a run are functions of its seed and of the step, whatever ran before."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

START, ORDER, STEP, VALIDATION, REPORT = range(5)  # streams of random numbers


def derive(*numbers: int) -> int:
    """A seed made of several numbers, far from those of their neighbours."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seed_all(seed: int, stream: int, step: int = 0, rank: int = 0, device: torch.device | None = None) -> None:
    """Put torch's generators where this step of this process finds them, whatever ran before: all of them, or those of
    the CPU and of one device."""
    number = derive(seed, stream, step, rank)
    if device is None:
        torch.manual_seed(number)
    else:
        torch.default_generator.manual_seed(number)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(number)


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Put the generators of the CPU and of this device back afterwards."""
    there = None if device.type == "cpu" else torch.get_device_module(device)
    here, state = torch.get_rng_state(), there and there.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(here)
        if there:
            there.set_rng_state(state)
