"""Cuts the small samples from the full sets: `python -m flowlib.data.make_small [FOLDER]`.

Each split of a small set holds the first n images of each class of the same split of the full set, in file order. Every
run gives the same bytes (with one and the same zlib): no time, no user and no random choice enters them.
"""

import io
import json
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np

from . import full, small

SMALL = {  # images per class (of 10), where the images come from, under what terms, whom to cite
    "mnist-small": {
        "per_class": {"train": 200, "val": 20, "test": 50},
        "source": "MNIST, http://yann.lecun.com/exdb/mnist/",
        "licence": "CC BY-SA 3.0; copyright Yann LeCun and Corinna Cortes",
        "cite": "LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document recognition",
    },
    "fashion-mnist-small": {
        "per_class": {"train": 200, "val": 20, "test": 50},
        "source": "Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist",
        "licence": "MIT; copyright 2017 Zalando SE",
        "cite": "Xiao, Rasul, Vollgraf (2017), Fashion-MNIST: a novel image dataset, arXiv:1708.07747",
    },
    "cifar10-small": {
        "per_class": {"train": 50, "val": 5, "test": 25},
        "source": "CIFAR-10, https://www.cs.toronto.edu/~kriz/cifar.html",
        "licence": "none stated; the authors ask users to cite the report",
        "cite": "Krizhevsky (2009), Learning multiple layers of features from tiny images",
    },
}


def cut(name: str) -> dict[str, np.ndarray]:
    """The six arrays of one small set: x uint8 (N, C, H, W) and y uint8 (N,) of each split."""
    arrays = {}
    for split, n in SMALL[name]["per_class"].items():
        x, y, _ = full.read(name.removesuffix("-small"), split)
        rows = np.sort(np.concatenate([np.flatnonzero(y == label)[:n] for label in range(10)]))
        arrays |= {f"x_{split}": x[rows], f"y_{split}": y[rows]}
    return arrays


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """What `np.savez_compressed` writes, but without the time of writing and the maker's operating system."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, array in arrays.items():
            entry = zipfile.ZipInfo(f"{key}.npy")  # dated 1980-01-01
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(entry, member.getvalue(), compresslevel=9)
    return buffer.getvalue()


def main(folder: Path = small.FOLDER) -> None:
    """Write the three .npz and index.json into `folder`."""
    index = {}
    for name, about in SMALL.items():
        content = npz(cut(name))
        (folder / f"{name}.npz").write_bytes(content)
        index[name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)} | about
        print(f"{name}.npz: {len(content):,} bytes")
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
