"""GraphAF on QM9: `python book/results/rows/molecules.py exact --steps 2500 --seed 0` prints the validity of 10,000
samples.

Trained on the 120,418 molecules of `data.load("qm9")`, by log-likelihood, with Adam and a learning rate that rises for
a twentieth of the steps and falls to 0 as a cosine. Samples are drawn at temperature 1 unless another is given, without
a valency check but for the numbers that say so. A molecule is valid if RDKit takes it; nothing is mended, and none is
drawn again.

`reference` trains nothing: the validation molecules (`--split val`) or a draw of 10,000 training molecules stand in the
place of samples.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch

import flowlib as fl
from flowlib import data, molecules

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", choices=["exact", "affine", "reference"])
parser.add_argument("--steps", type=int, default=2500, help="of 256 molecules")
parser.add_argument("--blind", action="store_true", help="the network does not read what is free of the valence")
parser.add_argument("--split", choices=["train", "val"], default="train")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--samples", type=int, default=10_000)
parser.add_argument("--checkpoint", type=Path)
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(args.seed)
TYPES, KINDS = 8, 3  # those of QM9
train, val = (data.load("qm9", split).x for split in ("train", "val"))
known = set(molecules.write(train))
found = {}


def judge(graphs, prefix=""):
    """The shares of molecules among graphs, by name."""
    smiles = molecules.write(graphs)
    shares = molecules.metrics(smiles, known.intersection(smiles))  # which are canonical as they stand
    whole = sum(text is not None and "." not in text for text in smiles) / len(smiles)
    return {prefix + name: share for name, share in (shares | {"valid and connected": whole}).items()}


if args.model == "reference":
    rows = torch.randint(len(train), (args.samples,))  # with replacement, as samples are
    found = judge(train[rows] if args.split == "train" else val)
else:
    flow = fl.GraphAF(9, TYPES, KINDS, head=args.model, valence=None if args.blind else molecules.VALENCE[:TYPES])
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    warm = args.steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(
        (step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (args.steps - warm))))
    start = time.process_time()
    for step in range(args.steps):
        loss = -flow.log_prob(train[torch.randint(len(train), (256,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print("nats at step", step, loss.item(), file=sys.stderr)
    found["processor seconds"] = time.process_time() - start
    flow.eval()
    with torch.no_grad():
        nats = -torch.cat([flow.log_prob(val[rows]) for rows in torch.arange(len(val)).split(1000)])
        found |= {"nats a molecule": nats.mean().item(), "its standard error": nats.std().item() / len(nats) ** 0.5}
        back = flow.decode(flow.encode(val))
        found["reconstructed"] = (torch.eq(back.nodes, val.nodes).all(-1)
                                  & torch.eq(back.edges, val.edges).all(-1).all(-1)).double().mean().item()
    torch.manual_seed(0)
    if not args.blind:
        found |= judge(flow.sample(args.samples, check=True), "with check: ")
    if args.model == "affine":
        for temperature in (0.5, 0.7):
            found |= judge(flow.sample(args.samples, temperature=temperature), f"at temperature {temperature}: ")
    found |= judge(flow.sample(args.samples))
validity = found.pop("validity")
for name, value in found.items():
    print(name, value)
print("validity", validity, flush=True)
if args.model != "reference" and args.checkpoint:  # after printing: what goes wrong here loses no number
    fl.save(flow, args.checkpoint)
    (args.checkpoint / "metrics.json").write_text(json.dumps(
        {"what": f"GraphAF, {args.model} head, on QM9", "steps": args.steps, "seed": args.seed, **found,
         "validity": validity}, indent=1) + "\n")
