"""Real data sets: `load(name, split)` gives images as the bytes that they are, with labels and the number of levels.

| name | images | train / val / test | where it comes from |
|---|---|---|---|
| `digits` | 1x8x8, 17 levels | 1,297 / 200 / 300 | inside scikit-learn |
| `mnist-small`, `fashion-mnist-small` | 1x28x28 | 2,000 / 200 / 500 | inside this package |
| `cifar10-small` | 3x32x32 | 500 / 50 / 250 | inside this package |
| `mnist`, `fashion-mnist` | 1x28x28 | 50,000 / 10,000 / 10,000 | `$FLOWLIB_DATA`, the user cache, or the network |
| `cifar10` | 3x32x32 | 45,000 / 5,000 / 10,000 | the same |

`train` and `val` never share an image: `val` is the end of the published training set, `test` the published test set
(`digits` has no published split; its own is a fixed permutation). Each split of a small set holds the first images of
each class of that split of the full set, so the small sets are class-balanced and no test image is ever trained on.
"""

from typing import NamedTuple

import numpy as np
import torch

from . import digits, full, small
from .files import DataError

__all__ = ["Data", "DataError", "load"]

SPLITS = ("train", "val", "test")
READERS = {"digits": digits.read} | {name: small.read for name in small.NAMES} | {name: full.read for name in full.SETS}


class Data(NamedTuple):
    """One split of a data set; unpacks as `x, y, levels`.

    Attributes:
        x: Images, uint8 (N, C, H, W) with values 0..levels-1; for sets of vectors, float (N, D).
        y: Labels, int64 (N,), or None.
        levels: Number of values that a pixel can take, or None for vectors.
    """

    x: torch.Tensor
    y: torch.Tensor | None
    levels: int | None


def load(name: str, split: str = "train") -> Data:
    """Load one split of a data set, on the CPU.

    Every file is checked against its SHA-256 before it is used. A full set is looked for in `$FLOWLIB_DATA/<name>/`,
    then in the user cache (`~/.cache/flowlib/<name>/` on Linux), and is downloaded into the cache where neither has it.
    A class without a network can share one cache: `python -m http.server` in it, and `FLOWLIB_MIRROR=http://host:8000`.

    Args:
        name: `digits`, `mnist-small`, `fashion-mnist-small`, `cifar10-small`, `mnist`, `fashion-mnist` or `cifar10`.
        split: `train`, `val` or `test`; disjoint.

    Returns:
        The images, their labels and the number of levels.

    Raises:
        ValueError: For an unknown name or split; the message lists the known ones.
        DataError: For a corrupt file (named, with what is wrong), and where there is neither file nor network.
        ImportError: Where a set needs a package that is not installed; the message says which.

    Example:
        >>> from flowlib import data
        >>> data.load("mnist-small", "test").x.shape
        torch.Size([500, 1, 28, 28])
    """
    if name not in READERS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(READERS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    x, y, levels = READERS[name](name, split)
    # np.array copies: the readers return views into larger, read-only buffers
    return Data(torch.from_numpy(np.array(x, order="C")), torch.from_numpy(np.array(y, np.int64)), levels)
