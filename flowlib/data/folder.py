"""Any folder of images: every picture below it, cropped to a square and resized, split by what the files contain."""

import warnings
from hashlib import file_digest
from pathlib import Path

import numpy as np

from .files import DataError

SHARES = {"test": range(0, 1), "val": range(1, 2), "train": range(2, 10)}  # of ten
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # EPS would start another program
LARGEST = 4096  # height and width


def read(path: Path, split: str, size: int) -> tuple[np.ndarray, None, int]:
    """x uint8 (N, 3, size, size) with 256 levels; no labels.

    A file belongs to a split by the SHA-256 of its content: new files move no old one, and two copies of a picture
    never lie on both sides. Files that cannot be read as images are named in one warning, and skipped (those in no
    known format, with the training images); hidden ones are ignored. Of several images in one file the first counts.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("a folder of images is read with Pillow: pip install pillow") from error
    if not 1 <= size <= LARGEST:
        raise ValueError(f"images need a positive size of at most {LARGEST}, got {size}")
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # what this Pillow was built with
    files = [file for file in sorted(path.rglob("*")) if file.is_file()
             and not any(part.startswith(".") for part in file.relative_to(path).parts)]
    images, broken = [], []
    for file in files:
        wanted = split == "train"
        try:
            with Image.open(file, formats=formats) as image, file.open("rb") as content:  # so far the header is read
                wanted = file_digest(content, "sha256").digest()[0] % 10 in SHARES[split]
                if wanted:
                    images.append(np.asarray(ImageOps.fit(_rgb(image), (size, size), Image.Resampling.LANCZOS)))
        except MemoryError:  # says nothing about the image
            raise
        except Exception as error:  # a decoder may raise anything where a file is damaged
            if wanted:
                reason = "none of these formats" if isinstance(error, UnidentifiedImageError) else error
                broken.append(f"{file} ({' '.join(str(reason).split()) or type(error).__name__})")
    if broken:
        warnings.warn(f"{len(broken)} of {len(files)} files could not be read as images ({', '.join(formats)}) and are "
                      "skipped:\n" + "\n".join(f"  {one}" for one in broken), stacklevel=3)
    if not images:
        raise DataError(f"{path} holds no image for the {split} split: of {len(files)} files, a tenth each goes to "
                        "test and validation, by chance; add some more")
    return np.stack(images).transpose(0, 3, 1, 2), None, 256


def _rgb(image):
    """An image of any mode as it is seen on white paper, in 8-bit RGB, upright as the camera was held."""
    from PIL import Image, ImageOps

    deep = image.mode.startswith("I") or image.mode == "F"
    white = _white(image) if deep else None
    image = ImageOps.exif_transpose(image)
    if white:
        return Image.fromarray(_eight_bits(np.asarray(image), *white)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _white(image) -> tuple[float, bool]:
    """Of a grey image of more than 8 bits: the value of white, and whether the scale runs from white to black."""
    if "transparency" in image.info:
        raise ValueError(f"a transparent value in mode {image.mode}")
    if image.format != "TIFF":
        return (1.0 if image.mode == "F" else 65535.0), False  # all others are scaled to 16 bits on reading
    bits, kind, inverted = image.tag_v2[258][0], image.tag_v2.get(339, (1,))[0], image.tag_v2.get(262) == 0
    return (1.0 if image.mode == "F" else 2.0 ** (bits - (kind == 2)) - 1), inverted


def _eight_bits(values: np.ndarray, white: float, inverted: bool) -> np.ndarray:
    """Numbers between 0 and white as bytes."""
    if white >= 2**32 - 1:
        values = values.view(np.uint32)  # which Pillow keeps in signed numbers
    share = values.astype(np.float64) / white
    if not ((0 <= share) & (share <= 1)).all():
        raise ValueError(f"values from {values.min():g} to {values.max():g}, where 0 is black and {white:g} is white")
    if 0 < share.max() < 1 / 510:
        raise ValueError(f"values up to {values.max():g} of {white:g}: in 8 bits all would be black")
    return (255 * (1 - share if inverted else share)).round().astype(np.uint8)
