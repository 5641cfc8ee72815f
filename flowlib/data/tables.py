"""Tables of real numbers for density estimation, prepared as in Papamakarios et al. (2017, arXiv:1705.07057).

Rows that appear twice are kept once, or a test row would have been trained on. Columns are dropped that no density can
describe (labels and counts, columns in which one value has a tenth of the rows or more) or that repeat another
(correlation above .98). Where what is left was rounded, uniform noise as wide as the steps fills them: the likelihood
of rounded numbers under a density is unbounded. One row in ten is for testing, one in ten of the others for validation,
and the mean and deviation of the training rows standardise all three.
"""
from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from . import small
from .files import File, Source, fetch

UCI = "https://raw.githubusercontent.com/treforevans/uci_datasets/master/uci_datasets/{}/data.csv.gz"


class Table(NamedTuple):
    """Where a table is to be had, and the columns that are left out, with the reason beside each."""

    source: Source | None  # None: inside the package
    drop: tuple[int, ...] = ()


TABLES = {
    # active and reactive power, voltage, current, three sub-meters, minute of the day; the paper's two: reactive power
    # is often exactly zero, current is active power over voltage
    "power-small": Table(None, drop=(1, 3)),
    "higgs-small": Table(None, drop=(8, 12, 16, 20)),  # the b-tags of the four jets have three values each
    "wine": Table(None, drop=(10,)),  # the grade that tasters gave
    "protein": Table(Source({"protein.csv": File(
        3_707_040, "6ccb1a6bf7e7ba40febe2b8226779cb62e4ca2fa4d193bdec8538c6b5f991ec5")}, (UCI.format("protein"),)),
        drop=(4,)),  # column 0 again
    "parkinsons": Table(Source({"parkinsons.csv": File(
        1_165_778, "514813c9ae91ea070cb6eafcac612db990ea26cf631eb29e9457fbdd4a75f4bd")}, (UCI.format("parkinsons"),)),
        drop=(0, 1, 2, 6, 8, 10, 12, 14)),  # subject, age, sex; 4, 4, 9, 9 and 11 again
    "keggundirected": Table(Source({"keggundirected.csv": File(
        15_226_085, "8659e2c3a0acb334ab5859e7e7ce288974e152acf5f0d96e13ff8f8283e937e9")},
        (UCI.format("keggundirected"),)),
        drop=(0, 1, 2, 9, 10, 15, 22, 25, 17, 24)),  # counts and columns of one value; 13 and 21 again
    "bsds300-small": Table(Source({"bsds300_patches_small.npz": File(
        7_626_552, "f6c7e989ae5e5f30b206363d6f64b898a0ac1f9e7522c22481ae5bf0fc5d4b60")}, ())),
}


def read(name: str, split: str) -> tuple[np.ndarray, np.ndarray | None, None]:
    """x float32 (N, D), and the labels y (N,) of `higgs-small`: 1 where there is a Higgs boson."""
    if name == "bsds300-small":
        return patches(split), None, None
    rows, labels = raw(name)
    rows, first = np.unique(rows, axis=0, return_index=True)
    random = np.random.RandomState(0)  # NumPy promises that this stream stays the same in all versions
    order = random.permutation(len(rows))
    x = jittered(np.delete(rows, TABLES[name].drop, axis=1)[order], random)
    end = len(x) - len(x) // 10
    start = end - end // 10
    part = {"train": slice(0, start), "val": slice(start, end), "test": slice(end, None)}
    train = x[part["train"]]
    x = ((x[part[split]] - train.mean(0)) / train.std(0)).astype(np.float32)
    return x, None if labels is None else labels[first][order][part[split]], None


def jittered(x: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """x (N, D) with uniform noise, as wide in each column as its usual step: the median distance of neighbours."""
    steps = [np.median(np.diff(np.unique(column)).astype(np.float64)) for column in x.T]
    return x + steps * random.random_sample(x.shape)


def raw(name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """All rows of a table as they were published, float64 (N, columns), in their order; and the labels, if any."""
    source = TABLES[name].source
    if source is None:
        arrays = small.arrays(name)
        return arrays["columns"].T / arrays["per_unit"], arrays.get("labels")
    content, = fetch(name, source, list(source.files))
    return np.loadtxt(io.BytesIO(content), delimiter=","), None


def patches(split: str) -> np.ndarray:
    """float32 (N, 63): 8x8 patches of photographs as in the paper, (pixel + noise) / 256 less the patch's own mean; the
    last pixel, which follows from the others, is dropped. Nothing is standardised, so nats compare with the paper's."""
    source = TABLES["bsds300-small"].source
    assert source is not None
    content, = fetch("bsds300-small", source, list(source.files))
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        pixels = arrays[split]
    noise = np.random.RandomState(("train", "val", "test").index(split)).random_sample(pixels.shape)
    x = (pixels + noise) / 256
    return (x - x.mean(1, keepdims=True))[:, :-1].astype(np.float32)
