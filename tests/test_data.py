"""`data.load` on the real sets; tests/test_data_files.py has downloads and damaged files."""

import io
import os
import subprocess
import sys
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from flowlib import data
from flowlib.data import digits, files, full, make_small, small

SMALL = sorted(small.NAMES)


@pytest.mark.parametrize("name", ["digits", *SMALL])
def test_shipped_sets(name):
    splits = {split: data.load(name, split) for split in data.SPLITS}
    seen = set()
    for x, y, levels in splits.values():
        assert x.dtype == torch.uint8 and x.ndim == 4 and x.is_contiguous()
        assert y.dtype == torch.int64 and y.shape == x.shape[:1] and set(y.tolist()) == set(range(10))
        assert x.max() == levels - 1
        images = {image.numpy().tobytes() for image in x}
        assert not seen & images  # no image of one split is in another
        seen |= images
    assert data.load(name).x.equal(splits["train"].x)  # train is the default


def test_digits_split_is_complete_and_fixed():
    parts = [data.load("digits", split) for split in data.SPLITS]
    assert [len(part.x) for part in parts] == list(digits.SIZES.values())
    from sklearn.datasets import load_digits

    everything = np.unique(load_digits().images.reshape(-1, 64), axis=0)
    assert np.array_equal(np.unique(torch.cat([part.x for part in parts]).flatten(1).numpy(), axis=0), everything)
    digest = sha256(b"".join(part.x.numpy().tobytes() for part in parts)).hexdigest()
    assert digest == "22ccb51d1417f8119764af32a91d6d7351b6b6f703ee31920487dcfdf6a4e72a"  # results depend on it


@pytest.mark.parametrize("name", SMALL)
def test_small_sets_are_what_their_index_says(name):
    shipped = (small.FOLDER / f"{name}.npz").read_bytes()
    with np.load(io.BytesIO(shipped), allow_pickle=False) as arrays:
        arrays = dict(arrays)
    for split, n in make_small.SMALL[name]["per_class"].items():
        assert np.bincount(arrays[f"y_{split}"]).tolist() == [n] * 10
        assert len(data.load(name, split).x) == 10 * n
    if "zlib-ng" not in zlib.ZLIB_RUNTIME_VERSION:  # which compresses otherwise
        assert make_small.npz(arrays) == shipped


def test_small_sets_fit_into_the_package():
    assert sum(path.stat().st_size for path in small.FOLDER.iterdir()) < 4e6


@pytest.mark.parametrize("change", ["flipped", "cut", "missing"])
def test_damaged_small_set_is_refused_and_named(change, tmp_path, monkeypatch):
    content = bytearray((small.FOLDER / "mnist-small.npz").read_bytes())
    content[1000] ^= 1
    (tmp_path / "index.json").write_bytes((small.FOLDER / "index.json").read_bytes())
    if change != "missing":
        (tmp_path / "mnist-small.npz").write_bytes(content if change == "flipped" else content[:-1])
    monkeypatch.setattr(small, "FOLDER", tmp_path)
    with pytest.raises(data.DataError, match="mnist-small.npz is .*install"):
        data.load("mnist-small")


@pytest.mark.parametrize("name, first", [
    ("mnist", {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]}),
    ("fashion-mnist", {"train": [9, 0, 0, 3, 0], "test": [9, 2, 1, 1, 6]}),
    ("cifar10", {"train": [6, 9, 9, 4, 1], "test": [3, 8, 8, 0, 6]}),
])  # fmt: skip
def test_full_sets(name, first, monkeypatch):
    folders = [files.cache() / name, Path(os.environ.get("FLOWLIB_DATA", "/nowhere")) / name]
    if not any(folder.is_dir() for folder in folders):
        pytest.skip(f"{name} is neither in the cache nor in $FLOWLIB_DATA")
    monkeypatch.setitem(full.SETS, name, full.SETS[name]._replace(mirrors=()))  # no download in a test
    splits = {split: data.load(name, split) for split in data.SPLITS}
    published = {"train": torch.cat([splits["train"].y, splits["val"].y]), "test": splits["test"].y}
    assert {split: y[:5].tolist() for split, y in published.items()} == first
    assert {split: len(y) for split, y in published.items()} == {"train": 50_000 if name == "cifar10" else 60_000,
                                                                 "test": 10_000}  # fmt: skip
    assert len(splits["val"].x) == full.VAL[name]
    shape = (3, 32, 32) if name == "cifar10" else (1, 28, 28)
    assert all(part.x.shape == (len(part.y), *shape) for part in splits.values())
    if name != "mnist":  # which is not balanced
        assert published["test"].bincount().tolist() == [1000] * 10
    shipped = dict(np.load(small.FOLDER / f"{name}-small.npz", allow_pickle=False))
    cut = make_small.cut(f"{name}-small")
    assert all(np.array_equal(cut.pop(key), array) for key, array in shipped.items()) and not cut


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="'minst'.*digits.*mnist-small.*cifar10"):
        data.load("minst")
    with pytest.raises(ValueError, match="'valid'; known: train, val, test"):
        data.load("digits", "valid")


def test_import_needs_only_torch_and_numpy():
    code = "import sys, flowlib.data; print({'sklearn', 'scipy', 'pooch', 'requests'} & set(sys.modules) or 'none')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "none\n"


@pytest.mark.parametrize("name, module, install", [
    ("digits", "sklearn.datasets", "pip install scikit-learn"), ("mnist", "pooch", "pip install pooch tqdm"),
])  # fmt: skip
def test_missing_package_is_named(name, module, install, monkeypatch):
    monkeypatch.delenv("FLOWLIB_DATA", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=install):
        data.load(name)
