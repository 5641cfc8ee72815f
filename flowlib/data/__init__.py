"""Real data sets: `load(name, split)` gives images as the bytes that they are, with labels and the number of levels;
tables as real numbers, molecules as graphs.

| name | what | train / val / test | where it comes from |
|---|---|---|---|
| `digits` | 1x8x8, 17 levels | 1,297 / 200 / 300 | inside scikit-learn |
| `mnist-small`, `fashion-mnist-small` | 1x28x28 | 2,000 / 200 / 500 | inside this package |
| `cifar10-small` | 3x32x32 | 500 / 50 / 250 | inside this package |
| `mnist`, `fashion-mnist` | 1x28x28 | 50,000 / 10,000 / 10,000 | `$FLOWLIB_DATA`, the user cache, or the network |
| `cifar10` | 3x32x32 | 45,000 / 5,000 / 10,000 | the same |
| the path of a folder | 3 x size x size | 8 : 1 : 1 | every picture below it |
| `power-small`, `higgs-small`, `wine` | D = 6, 24, 11 | 8 : 1 : 1 | inside this package |
| `protein`, `parkinsons`, `keggundirected` | D = 9, 13, 18 | 8 : 1 : 1 | `$FLOWLIB_DATA`, the cache, or the network |
| `qm9` | molecules of at most 9 atoms | 120,418 / 6,690 / 6,690 | inside this package |
| `zinc-small` | molecules of at most 38 atoms | 3,742 / 208 / 208 | inside this package |
| `bsds300-small` | D = 63 | 99,900 / 10,000 / 25,000 | `$FLOWLIB_DATA` or the cache: not to be distributed |

`train` and `val` never share an image: `val` is the end of the published training set, `test` the published test set
(`digits` has no published split; its own is a fixed permutation). Each split of a small set holds the first images of
each class of that split of the full set, so the small sets are class-balanced and no test image is ever trained on.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from . import digits, folder, full, graphs, small, tables
from .files import DataError

__all__ = ["Data", "DataError", "load"]

SPLITS = ("train", "val", "test")
READERS = {"digits": digits.read} | {name: small.read for name in small.NAMES} | {name: full.read for name in full.SETS}


class Data(NamedTuple):
    """One split of a data set; unpacks as `x, y, levels`.

    Attributes:
        x: Images, uint8 (N, C, H, W) with values 0..levels-1; of tables, float32 (N, D); of molecules, Graphs.
        y: Labels, int64 (N,), or None.
        levels: Number of values that a pixel can take, or None for tables and graphs.
    """

    x: Any
    y: torch.Tensor | None
    levels: int | None


def load(name: str, split: str = "train", *, levels: int | None = None, size: int | None = None) -> Data:
    """Load one split of a data set, on the CPU.

    Every file is checked against its SHA-256 before it is used. A full set is looked for in `$FLOWLIB_DATA/<name>/`,
    then in the user cache (`~/.cache/flowlib/<name>/` on Linux), and is downloaded into the cache where neither has it.
    A class without a network can share one cache: `python -m http.server` in it, and `FLOWLIB_MIRROR=http://host:8000`.

    Args:
        name: `digits`, `mnist-small`, `fashion-mnist-small`, `cifar10-small`, `mnist`, `fashion-mnist`, `cifar10`, one
            of the tables `power-small`, `higgs-small`, `wine`, `protein`, `parkinsons`, `keggundirected`,
            `bsds300-small` (how they are prepared: `flowlib.data.tables`), of the molecules `qm9`, `zinc-small` (as
            graphs: `flowlib.discrete.molecules`), or the path of a folder of AVIF, BMP, GIF,
            JPEG, JPEG 2000, PNG, PPM, TIFF or WebP images, of whatever depth in 8-bit colours, over white where they
            are transparent. Other files are named in a warning and skipped.
        split: `train`, `val` or `test`; disjoint.
        levels: Quantise the pixels to fewer levels: 32 for the 5-bit images of the Glow paper. None keeps them all.
        size: Height and width to which the images of a folder are cropped and resized, at most 4096; None: 32.

    Returns:
        The images, their labels and the number of levels; or the rows of a table, float32 (N, D), and None for the
        levels; or [Graphs](#flowlib.Graphs) and twice None.

    Raises:
        ValueError: For an unknown name or split, the message lists the known ones; for more levels than there are,
            levels of a table or of graphs, or a size where there is no folder.
        DataError: For a corrupt file (named, with what is wrong), where there is neither file nor network, and for a
            folder without images.
        ImportError: Where a set needs a package that is not installed; the message says which.

    Example:
        >>> from flowlib import data
        >>> data.load("mnist-small", "test").x.shape
        torch.Size([500, 1, 28, 28])
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if size is not None and (name in READERS or name in tables.TABLES or name in graphs.SETS):
        raise ValueError(f"the data of {name!r} have their size; only the images of a folder are resized")
    if name in READERS:
        x, y, own = READERS[name](name, split)
    elif name in graphs.SETS:
        if levels is not None:
            raise ValueError(f"{name!r} holds graphs, which have no levels")
        return Data(graphs.read(name, split), None, None)
    elif name in tables.TABLES:
        x, y, own = tables.read(name, split)
    elif name and Path(name).is_dir():  # the path "" would be the current folder
        x, y, own = folder.read(Path(name), split, 32 if size is None else size)
    else:
        raise ValueError(f"unknown data set {name!r}, and no folder of that name; known: "
                         f"{', '.join([*READERS, *tables.TABLES, *graphs.SETS])}")
    # np.array copies: the readers return views into larger, read-only buffers
    x = torch.from_numpy(np.array(x, order="C"))
    y = None if y is None else torch.from_numpy(np.array(y, np.int64))
    if levels is None:
        return Data(x, y, own)
    if own is None:
        raise ValueError(f"{name!r} is a table of real numbers, which have no levels")
    if not 2 <= levels <= own:
        raise ValueError(f"{name!r} has {own} levels, which can become 2 to {own}, not {levels}")
    return Data((x.int() * levels // own).to(x.dtype), y, levels)
