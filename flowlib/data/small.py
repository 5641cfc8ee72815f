"""The small real sets inside the package, made by `make_small.py`; sources and licences are in small/README.md."""

import io
import json
from hashlib import sha256
from pathlib import Path

import numpy as np

from .files import DataError

FOLDER = Path(__file__).with_name("small")
NAMES = ("mnist-small", "fashion-mnist-small", "cifar10-small")


def read(name: str, split: str) -> tuple[np.ndarray, np.ndarray, int]:
    """x uint8 (N, C, H, W) with 256 levels, and y."""
    content = arrays(name)
    return content[f"x_{split}"], content[f"y_{split}"], 256


def arrays(name: str) -> dict[str, np.ndarray]:
    """The verified arrays of one file, by name."""
    try:
        digest = json.loads((FOLDER / "index.json").read_text())[name]["sha256"]
        content = (FOLDER / f"{name}.npz").read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: install flowlib again") from error
    if sha256(content).hexdigest() != digest:
        raise DataError(f"{FOLDER / name}.npz is corrupt (its SHA-256 is wrong): install flowlib again")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)
