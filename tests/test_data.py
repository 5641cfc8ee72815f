"""`data.load` on the real sets; tests/test_data_files.py has downloads and damaged files."""

import io
import json
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
from flowlib.data import digits, files, full, make_small, small, tables

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


def test_every_shipped_file_has_a_source_a_licence_and_a_paper():
    index = json.loads((small.FOLDER / "index.json").read_text())
    assert {path.stem for path in small.FOLDER.glob("*.npz")} == set(index) == {
        *make_small.SMALL, *make_small.TABLES, *make_small.MOLECULES}
    for name, about in (make_small.SMALL | make_small.TABLES | make_small.MOLECULES).items():
        assert all(about[key] for key in ("source", "licence", "cite")) and index[name].items() >= about.items()


def test_small_sets_fit_into_the_package():
    assert sum(path.stat().st_size for path in small.FOLDER.iterdir()) < 5e6


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


@pytest.mark.parametrize("name, shape, labels", [("power-small", (71498, 6), None), ("higgs-small", (6075, 24), {0, 1}),
                                                 ("wine", (1102, 11), None)])
def test_shipped_tables(name, shape, labels):
    splits = {split: data.load(name, split) for split in data.SPLITS}
    x = splits["train"].x
    assert x.shape == shape and x.dtype == torch.float32 and x.is_contiguous() and splits["train"].levels is None
    assert x.mean(0).abs().max() < 1e-4 and (x.std(0) - 1).abs().max() < 1e-3  # of the training rows
    assert (splits["test"].x.mean(0).abs() < 0.5).all() and not splits["test"].x.mean(0).abs().max() < 1e-6
    sizes = [len(part.x) for part in splits.values()]
    n = sum(sizes)
    assert sizes == [n - n // 10 - (n - n // 10) // 10, (n - n // 10) // 10, n // 10]
    everything = torch.cat([part.x for part in splits.values()])
    assert min(len(column.unique()) / n for column in everything.T) > 0.98  # no value comes again and again
    if labels:
        assert all(set(part.y.tolist()) == labels and len(part.y) == len(part.x) for part in splits.values())
    else:
        assert all(part.y is None for part in splits.values())
    with pytest.raises(ValueError, match="have no levels"):
        data.load(name, levels=4)
    with pytest.raises(ValueError, match="only the images of a folder"):
        data.load(name, size=8)


def test_the_splits_of_tables_never_change():
    first = data.load("wine", "test").x[0, :4].tolist()
    assert first == pytest.approx([1.297, -1.1751, 1.099, -0.288], abs=1e-4)  # results depend on it


def test_noise_fills_the_steps_of_rounded_numbers_and_goes_no_further():
    rows = np.random.RandomState(1).randint(0, 50, (1000, 2)) * [1.0, 0.01]
    noise = tables.jittered(rows, np.random.RandomState(0)) - rows
    assert (noise >= 0).all() and (noise <= [1.0, 0.01]).all() and (noise.max(0) > [0.99, 0.0099]).all()


def test_raw_tables_are_as_published():
    rows, labels = tables.raw("power-small")
    assert rows.shape == (88273, 8) and labels is None
    assert rows[0].tolist() == pytest.approx([4.216, 0.418, 234.84, 18.4, 0, 1, 17, 17 * 60 + 24])  # UCI's first line
    rows, labels = tables.raw("higgs-small")
    assert rows.shape == (7500, 28) and labels.shape == (7500,)


def test_what_a_table_drops_is_what_its_rule_says():
    """Columns in which one value has a tenth of the rows, and the second of two that are correlated above .98."""
    for name in ("higgs-small", "wine"):
        rows = np.unique(tables.raw(name)[0], axis=0)
        shares = [np.unique(column, return_counts=True)[1].max() / len(rows) for column in rows.T]
        assert tuple(np.flatnonzero(np.array(shares) > 0.1)) == tables.TABLES[name].drop
        assert (np.triu(np.corrcoef(rows.T), 1) < 0.98).all()


@pytest.mark.parametrize("name, shape", [("protein", (35656, 9)), ("parkinsons", (4760, 13)),
                                         ("keggundirected", (15047, 18)), ("bsds300-small", (99900, 63))])
def test_tables_from_a_folder(name, shape, monkeypatch):
    monkeypatch.setitem(tables.TABLES, name, tables.TABLES[name]._replace(  # no download in a test
        source=tables.TABLES[name].source._replace(mirrors=())))
    try:
        x, y, levels = data.load(name)
    except data.DataError as error:
        assert f"into $FLOWLIB_DATA/{name}/" in str(error)
        pytest.skip(f"{name} is neither in the cache nor in $FLOWLIB_DATA")
    assert x.shape == shape and x.isfinite().all() and y is None and levels is None
    if name == "bsds300-small":
        assert x.abs().max() < 1 and len(data.load(name, "val").x) == 10_000
        gaussian = torch.distributions.MultivariateNormal(x.double().mean(0), torch.cov(x.double().T))
        assert gaussian.log_prob(data.load(name, "test").x.double()).mean().item() == pytest.approx(96.54, abs=0.02)
    else:
        assert x.mean(0).abs().max() < 1e-4 and (x.std(0) - 1).abs().max() < 1e-3


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
