"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries (UCI optical digits, CC BY 4.0)."""

import numpy as np

SIZES = {"train": 1297, "val": 200, "test": 300}


def read(name: str, split: str) -> tuple[np.ndarray, np.ndarray, int]:
    """x uint8 (N, 1, 8, 8) with 17 levels, and y. The split is a permutation whose seed never changes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"the data set {name!r} is part of scikit-learn: pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    # RandomState: NumPy promises that this stream stays the same in all versions, and does not for default_rng
    order = np.random.RandomState(0).permutation(len(labels))
    start = {"train": 0, "val": SIZES["train"], "test": SIZES["train"] + SIZES["val"]}[split]
    rows = order[start : start + SIZES[split]]
    return images[rows].astype(np.uint8).reshape(-1, 1, 8, 8), labels[rows], 17
