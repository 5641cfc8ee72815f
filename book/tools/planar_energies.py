"""Train the flows that Lesson 7 shows, and keep them as one small file: `python book/tools/planar_energies.py`.

Each flow is a run of `book/results/rows/reverse_kl.py` with seed 0: the seed of no special merit. Runs that lie in
`runs/energies` already are not repeated. A chain of K planar maps in the plane is a table (K, 5), a row of u, w, b
each.
"""
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path[:0] = [str(ROOT := Path(__file__).resolve().parents[2]), str(ROOT / "book" / "tools")]

from results import machine  # noqa: E402

import flowlib as fl  # noqa: E402

COMMAND = "python book/results/rows/reverse_kl.py {} --layers {} --seed 0 --out runs/energies/{}"

tables, made = {}, {}
for target in ("U1", "U2", "U3", "U4"):
    for layers in (2, 8, 32):
        name = f"{target}-{layers}"
        made[name] = COMMAND.format(target, layers, name)
        if not (ROOT / "runs" / "energies" / name).exists():
            subprocess.run([sys.executable, *shlex.split(made[name])[1:]], cwd=ROOT, check=True,
                           env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
        flow = fl.load(ROOT / "runs" / "energies" / name)
        tables[name] = torch.stack([planar.params.detach() for planar in flow.bijection.bijections])
folder = ROOT / "flowlib" / "checkpoints"
folder.mkdir(exist_ok=True)
save_file(tables, folder / "planar_energies.safetensors")
about = {"what": "planar flows fitted to the energies U1 to U4 by reverse KL, 4,000 steps of 256 draws",
         "seed": 0, "device": machine(), "commands": made}
(folder / "planar_energies.json").write_text(json.dumps(about, indent=1) + "\n")
