"""Any folder of images: every picture below it, cropped to a square and resized, split by what the files contain."""

import io
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np

from .files import DataError

SHARES = {"test": range(0, 1), "val": range(1, 2), "train": range(2, 10)}  # of ten


def read(path: Path, split: str, size: int) -> tuple[np.ndarray, None, int]:
    """x uint8 (N, 3, size, size) with 256 levels; no labels.

    A file belongs to a split by the SHA-256 of its content: new files move no old one, and two copies of a picture never
    lie on both sides. Files that cannot be read as images are named in one warning, and skipped; hidden ones are ignored.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("a folder of images is read with Pillow: pip install pillow") from error
    if size < 1:
        raise ValueError(f"images need a positive size, got {size}")
    files = [file for file in sorted(path.rglob("*")) if file.is_file()
             and not any(part.startswith(".") for part in file.relative_to(path).parts)]
    images, broken = [], []
    for file in files:
        try:
            content = file.read_bytes()
            if sha256(content).digest()[0] % 10 not in SHARES[split]:
                continue
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
            images.append(np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)))
        except Exception as error:  # a decoder may raise anything where a file is damaged
            broken.append(f"{file} ({' '.join(str(error).split()) or type(error).__name__})")
    if broken:
        warnings.warn(f"{len(broken)} of {len(files)} files could not be read as images and are skipped:\n"
                      + "\n".join(f"  {one}" for one in broken), stacklevel=3)
    if not images:
        raise DataError(f"{path} holds no image for the {split} split: of {len(files)} files, a tenth each goes to test and "
                        "validation, by chance; add some more")
    return np.stack(images).transpose(0, 3, 1, 2), None, 256
