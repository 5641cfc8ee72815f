"""How near samples are to training images: `python book/results/rows/nearest.py digits-tarflow --seed 0` prints the
mean distance of 1,000 samples of a shipped model to their nearest training image, and before it that of test images."""
import argparse
from pathlib import Path

import torch

import flowlib as fl

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="a folder of flowlib/checkpoints whose name begins with that of its data set")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
flow = fl.load(Path(fl.__file__).parent / "checkpoints" / args.model).eval()
train, test = (fl.data.load(args.model.rsplit("-", 1)[0], split).x.flatten(1).float() for split in ("train", "test"))
for name, pictures in (("test images", test), ("samples", flow.sample(1000).flatten(1).float())):
    print(name, torch.cdist(pictures, train).amin(1).mean().item())
