"""The random numbers of a run are functions of its seed and of the step, whatever ran before."""
from __future__ import annotations

import numpy as np
import torch

START, ORDER, STEP, VALIDATION, REPORT = range(5)  # streams of random numbers


def derive(*numbers: int) -> int:
    """A seed made of several numbers, far from those of their neighbours."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seed_all(seed: int, stream: int, step: int = 0, rank: int = 0) -> None:
    """Put torch's generators where this step of this process finds them, whatever ran before."""
    torch.manual_seed(derive(seed, stream, step, rank))
