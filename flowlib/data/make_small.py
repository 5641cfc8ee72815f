"""Makes the small sets of the package: `python -m flowlib.data.make_small [FOLDER]`.

Each split of a small set of images holds the first n of each class of the same split of the full set, in file order. A
table is stored column by column, as integers where it was published with few decimal places. Molecules are graphs, made
by RDKit, whose version decides in which order their atoms stand. Every run gives the same bytes (with one and the same
zlib and RDKit): no time, no user and no random choice enters them.
"""

import io
import json
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..discrete import molecules
from . import full, graphs, small, tables
from .files import File, Source, fetch

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

RAW = {  # what the tables are made from, found in $FLOWLIB_DATA/<name>/
    "power-small": Source({"household_power_subset.npz": File(
        866_644, "68a464c32a52c1c39430c60dd3fe43a08428e192ff79ffe8539aebf3b12a2153")}, ()),
    "higgs-small": Source({"higgs_subset.npz": File(
        467_753, "a8f906b5430d41c97f920baecb2364153839b78af933517fe8928ad9b88f070f")}, ()),
    "wine": Source({"wine.csv": File(
        168_310, "573b29b56f82ee37960b87e0125cdc4da684611eb98536f8228ba12ed16fddf4")}, (tables.UCI.format("wine"),)),
}
TABLES = {  # where a table comes from, under what terms, whom to cite
    "power-small": {
        "source": "Individual household electric power consumption, UCI, https://archive.ics.uci.edu/dataset/235: "
                  "88,273 minutes of the winter 2006/07",
        "licence": "CC BY 4.0; Georges Hebrail and Alice Berard",
        "cite": "Hebrail, Berard (2006), Individual household electric power consumption",
    },
    "higgs-small": {
        "source": "HIGGS, UCI, https://archive.ics.uci.edu/dataset/280: 7,500 rows, by way of the examples of LightGBM",
        "licence": "CC BY 4.0; Daniel Whiteson",
        "cite": "Baldi, Sadowski, Whiteson (2014), Searching for exotic particles in high-energy physics with deep "
                "learning, arXiv:1402.4735",
    },
    "wine": {
        "source": "Wine Quality, red wines, UCI, https://archive.ics.uci.edu/dataset/186, by way of "
                  "treforevans/uci_datasets, which subtracts the mean of each column",
        "licence": "CC BY 4.0; Paulo Cortez, A. Cerdeira, F. Almeida, T. Matos, J. Reis",
        "cite": "Cortez, Cerdeira, Almeida, Matos, Reis (2009), Modeling wine preferences by data mining from "
                "physicochemical properties",
    },
}

SMILES = {  # in $FLOWLIB_DATA/<name>/, one a line
    "qm9": Source({"qm9.smi": File(
        2_171_288, "85db08ee5443386d3e5a9830edeb2111ebbf1ccf3328094b04cbd02cd8fc6701")}, ()),
    "zinc-small": Source({"zinc250k.smi": File(
        11_302_921, "df0aa677c770f15c9943684d6600cba8e7076c67be6a090c12f24da3aaa55b70")}, ()),
}
MOLECULES = {  # every how manieth line, where the molecules come from, under what terms, whom to cite
    "qm9": {
        "every": 1,
        "source": "QM9, Figshare collection 978904: its 133,885 SMILES, by way of "
                  "aspuru-guzik-group/selfies",
        "licence": "CC0; Raghunathan Ramakrishnan, Pavlo Dral, Matthias Rupp, O. Anatole von Lilienfeld",
        "cite": "Ramakrishnan, Dral, Rupp, von Lilienfeld (2014), Quantum chemistry structures and properties of 134 "
                "kilo molecules, doi:10.1038/sdata.2014.22",
    },
    "zinc-small": {
        "every": 60,
        "source": "ZINC, https://zinc.docking.org: one in 60 of the 249,455 molecules of ZINC250k, by way of "
                  "insilicomedicine/DD-VAE",
        "licence": "free to use, says ZINC; please cite the paper",
        "cite": "Irwin, Sterling, Mysinger, Bolstad, Coleman (2012), ZINC: a free tool to discover chemistry for "
                "biology, doi:10.1021/ci3001277",
    },
}


def molecules_of(name: str) -> dict[str, np.ndarray]:
    """Packed graphs of the distinct molecules among the lines that are kept, each where it comes first."""
    content, = fetch(name, SMILES[name], list(SMILES[name].files))
    read = molecules.read(content.decode().split()[::MOLECULES[name]["every"]])
    packed = graphs.pack(read)
    _, first = np.unique(np.concatenate(list(packed.values()), 1), axis=0, return_index=True)
    return {key: array[np.sort(first)] for key, array in packed.items()}


def table(name: str) -> dict[str, np.ndarray]:
    """The arrays of one table: `columns` as integers (columns, N), what they are to be divided by, and labels."""
    content, = fetch(name, RAW[name], list(RAW[name].files))
    if name == "wine":
        rows = np.loadtxt(io.BytesIO(content), delimiter=",")
        return {"columns": np.ascontiguousarray(rows.T), "per_unit": np.array(1)}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if name == "higgs-small":
            rows = np.concatenate([arrays["train"], arrays["test"]])
            return {"columns": integers(rows[:, 1:], 1000).astype(np.int16), "per_unit": np.array(1000),
                    "labels": rows[:, 0].astype(np.uint8)}
        per_unit = np.array([1000, 1000, 100, 10, 1, 1, 1, 1])
        rows = np.column_stack([arrays["values"], arrays["minute_of_day"]])
        gaps = np.diff(arrays["minute_ordinal"], prepend=arrays["minute_ordinal"][0])
        return {"columns": integers(rows, per_unit).astype(np.uint16), "per_unit": per_unit,
                "minutes_since_last": gaps.astype(np.uint16)}


def integers(rows: np.ndarray, per_unit: int | np.ndarray) -> np.ndarray:
    """The columns (columns, N) as whole numbers of 1 / per_unit; ValueError if that is not exactly what they are."""
    whole = np.rint(rows.astype(np.float64) * per_unit)
    if not np.array_equal((whole / per_unit).astype(np.float32), rows.astype(np.float32)):
        raise ValueError("the rows have more decimal places than are kept")
    return np.ascontiguousarray(whole.T)


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
    """Write every .npz and index.json into `folder`."""
    index = {}
    for name, about in (SMALL | TABLES | MOLECULES).items():
        make = cut if name in SMALL else table if name in TABLES else molecules_of
        content = npz(make(name))
        (folder / f"{name}.npz").write_bytes(content)
        index[name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)} | about
        print(f"{name}.npz: {len(content):,} bytes")
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
