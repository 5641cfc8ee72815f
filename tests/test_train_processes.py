"""Two processes train as one: the same gradient as one process has on the joint batch."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes as script
from safetensors.torch import load_file

from flowlib import NICE, RealNVP, load
from flowlib.seeds import START, STEP, seed_all
from flowlib.train import Config, ReverseKL
from flowlib.train.batches import Batches

ROOT = Path(__file__).parents[1]


def launch(*words):
    """Run a script, or `-m` and a module, in two processes that talk through gloo; what they printed."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes",
               "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    launch(ROOT / "tests" / "two_processes.py", out)
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
        same(two, one, ("loss", "val_loss"), 1e-4)  # which are added up in float32
    assert max(g.abs().max() for name, g in one.items() if name.startswith("gradient/")) > 0.1
    flow = load(out / "run")  # written by one of the two
    same({f"weight/{name}": t for name, t in flow.state_dict().items()}, two, "weight/", 0)


def test_parts_in_two_processes_have_the_gradient_of_the_joint_batch(out):
    one = script.train(script.make(RealNVP), train=script.data())
    for rank in (0, 1):
        same(load_file(out / f"accumulated-{rank}.safetensors"), one, "gradient/", 1e-12)


def test_an_image_model_is_the_same_in_both_processes(out):
    """Activation normalisation, rotations, permutations and signs are those of process 0, though process 1 had others
    and saw other images; from then on weights, training losses and validation losses agree to the last bit."""
    zero, one = (load_file(out / f"glow-{rank}.safetensors") for rank in (0, 1))
    for names in ("start/", "gradient/", "weight/", "loss", "val_loss"):
        same(zero, one, names, 0)
    assert len(zero["val_loss"]) > 1 and len(zero["loss"]) == script.STEPS
    alone = script.make_glow(seed=1)
    rows = Batches((script.images(),), Config(steps=1, batch_size=script.BATCH), 0, 2, torch.device("cpu"))(0)
    seed_all(0, START, rank=0)
    alone.initialize(*rows)
    same(zero, {f"start/{name}": p for name, p in alone.named_parameters()}, "start/", 0)
    assert all(t for name, t in zero.items() if name.endswith("initialized"))


def test_the_command_reports_once(tmp_path):
    printed = launch("-m", "flowlib.train", "--model", "glow", "--data", "digits", "--out", tmp_path / "run", "--steps",
                     "3",
                     "--hidden", "4", "--layers", "1", "--batch-size", "16", "--accumulate", "2")
    assert printed.count("glow on digits") == printed.count("independent histograms") == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["device"].endswith("processes: 2") and metrics["steps"] == 3
    assert len(list((tmp_path / "run" / "progress").iterdir())) == 4


def test_rank_0_decides_the_data_dependent_start(out):
    zero, one = (load_file(out / f"started-{rank}.safetensors") for rank in (0, 1))
    same(zero, one, "weight/", 0)
    zero, one = (load_file(out / f"started-alone-{rank}.safetensors") for rank in (0, 1))
    scale = [name for name in one if name.endswith("log_scale")]
    same(zero, one, tuple(scale), 0)
    expected = NICE(2, layers=1, hidden=(4,)).double()
    expected.initialize(script.data())
    same({f"weight/{name}": t for name, t in expected.state_dict().items()}, one, tuple(scale), 1e-12)


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
