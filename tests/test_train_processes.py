"""Two processes train as one: the same gradient as one process has on the joint batch."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes as script
from safetensors.torch import load_file

from flowlib import RealNVP, load
from flowlib.train import ReverseKL
from flowlib.train.batches import STEP, seed_all


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
               str(ROOT / "tests" / "two_processes.py"), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def same(a, b, names, atol):
    names = [name for name in b if name.startswith(names)]
    assert names
    for name in names:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol)


def test_likelihood_is_that_of_the_joint_batch(out):
    one = script.train(script.make(RealNVP), train=script.data(), val=script.data()[:7])
    for rank in (0, 1):
        two = load_file(out / f"likelihood-{rank}.safetensors")
        same(two, one, "gradient/", 1e-12)
        same(two, one, "weight/", 1e-10)
        same(two, one, "loss", 1e-5)  # the losses are exchanged in float32
    assert max(g.abs().max() for name, g in one.items() if name.startswith("gradient/")) > 0.1
    flow = load(out / "run")  # written by one of the two
    same({f"weight/{name}": p for name, p in flow.named_parameters()}, two, "weight/", 0)


def test_rank_0_decides_the_data_dependent_start(out):
    zero, one = (load_file(out / f"started-{rank}.safetensors") for rank in (0, 1))
    same(zero, one, "weight/", 0)


def test_reverse_kl_is_the_mean_over_both_processes(out):
    """Each process draws samples of its own, so the joint batch is put together here from the two seeds."""
    flow = script.make(RealNVP)
    objective = ReverseKL(flow, script.energy)
    losses = []
    for rank in (0, 1):
        seed_all(0, STEP, 0, rank)
        losses.append(objective(script.BATCH // 2))
    assert not torch.equal(*losses)
    torch.cat(losses).mean().backward()
    expected = {f"gradient/{name}": p.grad for name, p in flow.named_parameters()}
    for rank in (0, 1):
        same(load_file(out / f"variational-{rank}.safetensors"), expected, "gradient/", 1e-12)
