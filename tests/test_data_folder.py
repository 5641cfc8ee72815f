"""A folder of pictures as a data set: what is read, what is named and skipped, and what goes into which split."""
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from flowlib import data

WAYS = {"png": "RGB", "jpg": "RGB", "gif": "P", "webp": "RGBA", "bmp": "L"}


def noise(seed, size=(40, 30), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def pictures(tmp_path):
    """60 pictures of several kinds and sizes, in folders and sub-folders."""
    for i in range(60):
        ending = list(WAYS)[i % len(WAYS)]
        path = tmp_path / "photos" / f"part {i % 3}" / f"{i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(i, (20 + i, 30), WAYS[ending]).save(path)
    return tmp_path / "photos"


def rows(x):
    return {image.numpy().tobytes() for image in x}


def test_every_picture_is_in_one_split(pictures):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = {split: data.load(str(pictures), split) for split in data.SPLITS}
    for x, y, levels in splits.values():
        assert x.dtype == torch.uint8 and x.shape[1:] == (3, 32, 32) and x.is_contiguous() and y is None and levels == 256
    sizes = [len(split.x) for split in splits.values()]
    assert sum(sizes) == 60 and 40 <= sizes[0] <= 56 and min(sizes) >= 1
    assert len(set.union(*(rows(split.x) for split in splits.values()))) == 60


def test_a_file_stays_in_its_split_and_copies_share_one(pictures):
    before = {split: rows(data.load(str(pictures), split).x) for split in data.SPLITS}
    for i, path in enumerate(sorted(pictures.rglob("*.*"))[:30]):  # under another name, in another folder
        shutil.copy(path, pictures / f"copy {i}{path.suffix}")
    for i in range(100, 120):
        noise(i).save(pictures / f"{i}.png")
    after = {split: rows(data.load(str(pictures), split).x) for split in data.SPLITS}
    assert all(before[split] <= after[split] for split in data.SPLITS)
    assert not after["train"] & after["test"] and not after["train"] & after["val"] and not after["val"] & after["test"]


def test_the_middle_square_is_kept_and_the_camera_held_upright(tmp_path):
    image = Image.new("RGB", (300, 100), "blue")
    image.paste("red", (100, 0, 200, 50))  # the upper half of the middle square
    image.paste("lime", (100, 50, 200, 100))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held on its side: to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", exif=turned)
    found = []
    for split in data.SPLITS:
        try:
            found += [*data.load(str(tmp_path), split, size=4).x]
        except data.DataError:
            pass
    upright, clockwise = sorted(found, key=lambda x: int(x[0, 0, 0] < 128 or x[0, 0, 3] < 128))
    red, lime = torch.tensor([255, 0, 0]), torch.tensor([0, 255, 0])
    for x, corners in ((upright, (red, red, lime, lime)), (clockwise, (lime, red, lime, red))):
        for value, corner in zip((x[:, 0, 0], x[:, 0, 3], x[:, 3, 0], x[:, 3, 3]), corners):
            assert (value.int() - corner).abs().max() < 40


def test_what_cannot_be_read_is_named_and_skipped(pictures):
    good = sum(len(data.load(str(pictures), split).x) for split in data.SPLITS)
    (pictures / "notes.txt").write_text("not a picture")
    whole = (pictures / "part 0" / "0.png").read_bytes()
    (pictures / "part 1" / "half.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "empty.jpg").write_bytes(b"")
    (pictures / ".thumbnails").mkdir()
    (pictures / ".thumbnails" / "0.png").write_bytes(whole)
    (pictures / ".hidden").write_text("ignored")
    count, said = 0, ""
    for split in data.SPLITS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            count += len(data.load(str(pictures), split).x)
        said += "".join(str(w.message) for w in caught)
    assert count == good
    assert all(said.count(name) == 1 for name in ("notes.txt", "half.png", "empty.jpg"))  # each once
    assert "could not be read as images and are skipped" in said and "hidden" not in said and "thumbnails" not in said


def test_errors(pictures, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no folder of that name; known: digits, mnist-small"):
        data.load(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="positive size"):
        data.load(str(pictures), size=0)
    with pytest.raises(ValueError, match="unknown split"):
        data.load(str(pictures), "all")
    (tmp_path / "bare").mkdir()
    with pytest.raises(data.DataError, match="bare holds no image for the test split"):
        data.load(str(tmp_path / "bare"), "test")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        data.load(str(pictures))


# Fewer levels, of any set


def test_levels_are_merged_evenly():
    x, fewer = data.load("mnist-small", "test"), data.load("mnist-small", "test", levels=32)
    assert fewer.levels == 32 and fewer.x.dtype == torch.uint8 and torch.equal(fewer.x, x.x // 8)  # the five upper bits
    assert torch.equal(fewer.y, x.y) and torch.equal(data.load("mnist-small", "test", levels=256).x, x.x)
    three = data.load("digits", levels=3).x
    assert three.unique().tolist() == [0, 1, 2] and torch.equal(three, data.load("digits").x.int().mul(3).div(17).byte())


@pytest.mark.parametrize("levels", [1, 257])
def test_levels_that_make_no_sense(levels):
    with pytest.raises(ValueError, match="256 levels, which can become 2 to 256"):
        data.load("mnist-small", levels=levels)
