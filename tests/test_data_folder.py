"""A folder of pictures as a data set: what is read, what is named and skipped, and what goes into which split."""
import shutil
import struct
import sys
import tracemalloc
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
        assert x.dtype == torch.uint8 and x.shape[1:] == (3, 32, 32) and x.is_contiguous()
        assert y is None and levels == 256
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
    assert "are skipped" in said and "hidden" not in said and "thumbnails" not in said


RAMP = np.linspace(0, 1, 16).reshape(4, 4)  # grey values from black to white
GREY = torch.from_numpy(255 * RAMP).round().expand(3, 4, 4)


def the_image(folder, size=4):
    """The one image of a folder, from the split in which it happens to be."""
    for split in data.SPLITS:
        try:
            return data.load(str(folder), split, size=size).x[0].double()
        except data.DataError:
            pass
    raise AssertionError("not read")


def tiff(pixels, **tags):
    """A TIFF file of one strip of 4 x 4 grey values, as instruments write them and Pillow does not."""
    names = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offset": 273,
             "rows": 278, "bytes": 279, "format": 339}
    values = {"width": 4, "height": 4, "compression": 1, "photometric": 1, "rows": 4, "bytes": len(pixels), "format": 1}
    values |= {"offset": 8 + 2 + 12 * len(names) + 4} | tags
    entries = b"".join(struct.pack("<HHII", names[name], 4, 1, values[name]) for name in sorted(names, key=names.get))
    return b"II*\0" + struct.pack("<IH", 8, len(names)) + entries + bytes(4) + pixels


def packed_12_bits(values):
    pairs = values.round().astype(int).reshape(-1, 2)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


DEEP = {  # what grey images of more than 8 bits hold, from black to white
    "16 bits.png": lambda: Image.fromarray((65535 * RAMP).astype(np.uint16)),
    "16 bits.tif": lambda: Image.fromarray((65535 * RAMP).astype(np.uint16)),
    "16 bits.pgm": lambda: Image.fromarray((65535 * RAMP).astype(np.uint16)),
    "12 bits.pgm": lambda: b"P5 4 4 4095\n" + (4095 * RAMP).round().astype(">u2").tobytes(),
    "12 bits.tif": lambda: tiff(packed_12_bits(4095 * RAMP), bits=12),
    "16 bits, white is zero.tif": lambda: tiff((65535 * (1 - RAMP)).astype("<u2").tobytes(), bits=16, photometric=0),
    "32 bits.tif": lambda: tiff(((2**32 - 1) * RAMP).astype("<u4").tobytes(), bits=32),
    "32 bits, signed.tif": lambda: tiff(((2**31 - 1) * RAMP).astype("<i4").tobytes(), bits=32, format=2),
    "float.tif": lambda: Image.fromarray(RAMP.astype(np.float32)),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_is_scaled_to_8_bits(name, tmp_path):
    content = DEEP[name]()
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content.save(tmp_path / name)
    assert (the_image(tmp_path) - GREY).abs().max() <= 1


UNKNOWN = {  # grey values of which nothing says how bright they are
    "floats beyond 1": (255 * RAMP).astype(np.float32),
    "not a number": np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32),
    "negative": (1000 * RAMP - 500).astype(np.int32),
    "16 bits in 32": (65535 * RAMP).astype(np.int32),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_grey_of_unknown_scale_is_named_and_skipped(what, tmp_path):
    Image.fromarray(UNKNOWN[what]).save(tmp_path / "odd.tif")
    said = ""
    for split in data.SPLITS:
        with warnings.catch_warnings(record=True) as caught, pytest.raises(data.DataError, match="holds no image"):
            warnings.simplefilter("always")
            data.load(str(tmp_path), split, size=4)
        said += "".join(str(w.message) for w in caught)
    assert said.count("odd.tif (values ") == 1


def with_alpha(mode):
    """Black on a transparent ground in the left half, opaque green on the right."""
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((0, 255, 0, 255), (20, 0, 40, 40))
    image.paste((0, 0, 0, 255), (0, 0, 20, 20))
    return image.quantize(16) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("name, mode", [
    ("a.png", "RGBA"), ("a.png", "P"), ("a.png", "LA"), ("a.gif", "RGBA"), ("a.webp", "RGBA"),
])
def test_what_is_transparent_is_white(name, mode, tmp_path):
    with_alpha(mode).save(tmp_path / name)
    x = the_image(tmp_path, 40)
    green = torch.tensor([150.0] * 3 if mode == "LA" else [0.0, 255.0, 0.0])
    for row, column, colour in ((5, 5, torch.zeros(3)), (35, 5, torch.full((3,), 255.0)), (20, 35, green)):
        assert (x[:, row, column] - colour).abs().max() < 8


def test_a_transparent_colour_is_white(tmp_path):
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    image.paste("red", (4, 0, 8, 8))
    image.save(tmp_path / "a.png", transparency=(1, 2, 3))
    x = the_image(tmp_path, 8)
    assert (x[:, 4, 1] == 255).all() and x[:, 4, 6].tolist() == [255, 0, 0]


def test_no_other_program_is_started(tmp_path, monkeypatch):
    """A PostScript file that is called .jpg is no image, and Ghostscript is not asked about it."""
    def start(*args, **kwargs):
        raise AssertionError("another program is started")

    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    noise(1).save(tmp_path / "b.png")
    for name in ("check_call", "run", "Popen"):
        monkeypatch.setattr(f"subprocess.{name}", start)
    said = []
    for split in data.SPLITS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                data.load(str(tmp_path), split)
            except data.DataError:
                pass
        said += [str(w.message) for w in caught]
    assert len(said) == 1 and "a.jpg (none of these formats)" in said[0] and "JPEG" in said[0]


def test_a_huge_file_is_not_read_whole(pictures):
    with (pictures / "disk.img").open("wb") as file:
        file.truncate(8 << 30)  # eight gigabytes that take no room
    tracemalloc.start()
    try:
        with pytest.warns(UserWarning, match="disk.img"):
            data.load(str(pictures))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6


def test_no_memory_is_no_fault_of_an_image(pictures, monkeypatch):
    from PIL import ImageOps

    def fit(*args):
        raise MemoryError

    monkeypatch.setattr(ImageOps, "fit", fit)
    with pytest.raises(MemoryError):
        data.load(str(pictures))


def test_errors(pictures, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no folder of that name; known: digits, mnist-small"):
        data.load(str(tmp_path / "nowhere"))
    for size in (0, 100_000):
        with pytest.raises(ValueError, match=f"positive size of at most 4096, got {size}"):
            data.load(str(pictures), size=size)
    monkeypatch.chdir(pictures)
    with pytest.raises(ValueError, match="unknown data set ''"):
        data.load("")
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
    assert three.unique().tolist() == [0, 1, 2]
    assert torch.equal(three, data.load("digits").x.int().mul(3).div(17).byte())


@pytest.mark.parametrize("levels", [1, 257])
def test_levels_that_make_no_sense(levels):
    with pytest.raises(ValueError, match="256 levels, which can become 2 to 256"):
        data.load("mnist-small", levels=levels)
