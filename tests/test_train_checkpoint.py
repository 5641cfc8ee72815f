"""A run can be killed at any moment: what is on the disk is whole, and going on from it gives the same weights."""
import functools
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from flowlib import NICE, Affine, BatchNorm, Compose, Coupling, Flow, Glow, RealNVP, StandardNormal, load
from flowlib.train import NLL, ReverseKL, checkpoint, fit
from flowlib.train.__main__ import main

ROOT = Path(__file__).parents[1]
COMMAND = ["--model", "nice-flat", "--data", "digits", "--steps", "1200", "--layers", "2", "--hidden", "16",
           "--patience", "99"]
fit = functools.partial(fit, cpu=True, progress=False)
pytestmark = pytest.mark.usefixtures("one_thread")


def steps_done(folder):
    with safe_open(folder / "training.safetensors", framework="pt") as file:
        return len(file.get_tensor("history/loss"))


def state(folder):
    """Everything in a checkpoint but the time it took."""
    with safe_open(folder / "training.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        del facts["history"]["seconds"], facts["history"]["processor_seconds"]
        return facts, {name: file.get_tensor(name) for name in file.keys()}


def assert_same_run(a, b):
    (facts_a, tensors_a), (facts_b, tensors_b) = state(a), state(b)
    assert facts_a == facts_b and tensors_a.keys() == tensors_b.keys()
    for name in tensors_a:
        assert torch.equal(tensors_a[name], tensors_b[name]), name
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def test_kill_and_resume_bit_for_bit(tmp_path, capsys):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-m", "flowlib.train", *COMMAND, "--out", str(killed)], env=environment,
                               stderr=subprocess.PIPE)
    deadline = time.monotonic() + 900
    while not (killed / "training.safetensors").exists() or steps_done(killed) < 200:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    before = steps_done(killed)
    assert 200 <= before < 1200
    main([*COMMAND, "--out", str(killed), "--resume"])
    main([*COMMAND, "--out", str(tmp_path / "whole")])
    assert steps_done(killed) == 1200
    assert_same_run(killed, tmp_path / "whole")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (killed, tmp_path / "whole")]
    assert metrics[0]["test_bits_per_dim"] == metrics[1]["test_bits_per_dim"]


class Stop(Exception):
    pass


class Interrupted(NLL):
    """Calls `event` before the loss of one step."""

    def __init__(self, flow, step, event):
        super().__init__(flow)
        self.step, self.event, self.calls = step, event, 0

    def forward(self, x, context=None):
        if self.training:
            if self.calls == self.step:
                self.event()
            self.calls += 1
        return super().forward(x, context)


def stop():
    raise Stop


def make(model=RealNVP):
    torch.manual_seed(4)
    return model(2, layers=2, hidden=(16,))


def train(out, flow=None, **options):
    x = 2 * torch.randn(300, 2, generator=torch.Generator().manual_seed(5)) + 1
    options = {"steps": 40, "batch_size": 64, "eval_every": 8, "out": out} | options
    return fit(make() if flow is None else flow, x[:200], options.pop("val", x[200:]), **options)


def interrupted(out, step=21, event=stop, **options):
    flow = make()
    with pytest.raises((Stop, OSError)) as raised:
        train(out, flow, objective=Interrupted(flow, step, event), **options)
    return raised.value


@pytest.mark.parametrize("options", [
    {}, {"val": None}, {"patience": 1, "lr": 0.3}, {"ema": 0.0, "clip": None}, {"weight_decay": 0.1, "accumulate": 2},
    {"optimizer": torch.optim.SGD}, {"optimizer": lambda groups: torch.optim.SGD(groups, momentum=0.9)},
    {"optimizer": torch.optim.NAdam}])
def test_resume_from_any_settings(tmp_path, options):
    interrupted(tmp_path / "a", step=9 * options.get("accumulate", 1), **options)
    assert steps_done(tmp_path / "a") == 8
    flow = make()
    resumed = train(tmp_path / "a", flow, resume=True, **options)
    whole = train(tmp_path / "b", **options)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert resumed.loss == whole.loss and resumed.best_step == whole.best_step and resumed.stopped == whole.stopped
    probe = torch.randn(9, 2)
    assert torch.equal(load(tmp_path / "a").log_prob(probe), flow.log_prob(probe))


def test_resume_before_the_first_and_after_the_last_step(tmp_path):
    interrupted(tmp_path / "a", step=3)
    assert steps_done(tmp_path / "a") == 0  # a checkpoint of step 0 is there from the start
    first = train(tmp_path / "a", resume=True)
    flow = make()
    again = train(tmp_path / "a", flow, resume=True)  # nothing to do
    assert again.loss == first.loss and again.seconds == first.seconds
    assert again.processor_seconds == first.processor_seconds > 0
    probe = torch.randn(9, 2)
    assert torch.equal(load(tmp_path / "a").log_prob(probe), flow.log_prob(probe))
    fresh = train(tmp_path / "new", resume=True)  # and an empty folder starts at 0
    assert fresh.loss == first.loss


def test_a_data_dependent_start_is_not_made_twice(tmp_path):
    flow = make(NICE)
    with pytest.raises(Stop):
        train(tmp_path / "a", flow, objective=Interrupted(flow, 12, stop))
    resumed = train(tmp_path / "a", make(NICE), resume=True)
    assert resumed.loss == train(tmp_path / "b", make(NICE)).loss


def test_an_objective_that_changes_on_the_way_resumes_bit_for_bit(tmp_path):
    """Its factor is a function of the step, not of the calls."""

    def run(out, stop_at=None, resume=False):
        flow, calls = make(), []

        def energy(x):
            calls.append(len(x))
            if len(calls) == stop_at:
                raise Stop
            return x.square().sum(-1)

        objective = ReverseKL(flow, energy, anneal=lambda done: 0.01 + 0.99 * done)
        return fit(flow, None, objective=objective, steps=20, eval_every=4, batch_size=16, lr=1e-2, out=out,
                   resume=resume)

    with pytest.raises(Stop):
        run(tmp_path / "a", stop_at=11)
    assert steps_done(tmp_path / "a") == 8
    assert run(tmp_path / "a", resume=True).loss == run(tmp_path / "b").loss
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_running_moments_resume_bit_for_bit(tmp_path):
    """Batch normalisation changes buffers in every pass, also in the one that is made before anything is written."""
    def normalised():
        torch.manual_seed(4)
        return Flow(StandardNormal(2), Compose(BatchNorm(2), Coupling(2, Affine(), hidden=(8,))))

    for step, done in ((2, 0), (9, 8)):
        flow, out = normalised(), tmp_path / f"a{step}"
        with pytest.raises(Stop):
            train(out, flow, objective=Interrupted(flow, step, stop), steps=16)
        assert steps_done(out) == done
        train(out, normalised(), resume=True, steps=16)
        train(tmp_path / f"b{step}", normalised(), steps=16)
        assert_same_run(out, tmp_path / f"b{step}")


def test_convolutions_resume_bit_for_bit(tmp_path):
    """Weights that lie channels last in memory, which the file does not know, and the optimizer's moments with them."""
    x = torch.randint(16, (60, 1, 8, 8), generator=torch.Generator().manual_seed(6), dtype=torch.uint8)

    def run(out, event=None, **options):
        torch.manual_seed(4)
        flow = Glow((1, 8, 8), levels=16, scales=2, steps=1, hidden=6)
        objective = Interrupted(flow, 9, event) if event else None
        return fit(flow, x, steps=16, batch_size=16, eval_every=4, lr=1e-2, objective=objective, out=out, **options)

    with pytest.raises(Stop):
        run(tmp_path / "a", stop)
    assert steps_done(tmp_path / "a") == 8
    run(tmp_path / "a", resume=True)
    run(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    """The kernel refuses to let any file of this process grow beyond 100 bytes: real writes fail half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        error = interrupted(tmp_path / "a", 21, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(error, OSError) and "the checkpoint of step 24 could not be written" in str(error)
    assert steps_done(tmp_path / "a") == 16
    left = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert left == ["model.json", "model.safetensors", "training.safetensors"]
    load(tmp_path / "a")
    train(tmp_path / "a", resume=True)
    train(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    """One bit of one weight."""
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def renamed(content):
    """Another fact, of the same length."""
    return content.replace(b'\\"best_step\\": 16', b'\\"best_step\\": 10')


def pickled(content):
    return pickle.dumps(print)


@pytest.mark.parametrize("damage", [truncated, flipped, renamed, pickled, lambda content: b""])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    interrupted(tmp_path / "a")
    path = tmp_path / "a" / "training.safetensors"
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    with pytest.raises(ValueError, match="training.safetensors is damaged"):
        train(tmp_path / "a", resume=True)


def test_only_the_same_run_is_resumed(tmp_path):
    interrupted(tmp_path / "a")
    with pytest.raises(ValueError, match=r"another config: lr was 0.001, is 0.1"):
        train(tmp_path / "a", resume=True, lr=0.1)
    with pytest.raises(ValueError, match=r"another data: was \[\[200, 2\]\], is \[\[50, 2\]\]"):
        fit(make(), torch.randn(50, 2), steps=40, batch_size=64, eval_every=8, out=tmp_path / "a", resume=True)
    flow = RealNVP(2, layers=3, hidden=(16,))
    before = [p.clone() for p in flow.parameters()]
    with pytest.raises(ValueError, match="another model"):
        train(tmp_path / "a", flow, resume=True)
    assert all(map(torch.equal, flow.parameters(), before))  # not half of the one and half of the other
    x = torch.randn(300, 2)
    with pytest.raises(ValueError, match="another data content"):
        fit(make(), x[:200], x[200:], steps=40, batch_size=64, eval_every=8, out=tmp_path / "a", resume=True)
    with pytest.raises(ValueError, match="another optimizer"):
        train(tmp_path / "a", resume=True, optimizer=torch.optim.SGD)
    with pytest.raises(ValueError, match="another precision: was None, is bf16"):
        train(tmp_path / "a", resume=True, precision="bf16")


def test_an_optimizer_is_resumed_with_its_settings(tmp_path):
    options = {"optimizer": lambda groups: torch.optim.SGD(groups, momentum=0.9)}
    interrupted(tmp_path / "a", **options)
    with pytest.raises(ValueError, match="another optimizer: momentum was 0.9, is 0.5"):
        train(tmp_path / "a", resume=True, optimizer=lambda groups: torch.optim.SGD(groups, momentum=0.5))
    train(tmp_path / "a", resume=True, **options)
    with pytest.raises(FileExistsError, match="is not empty"):
        train(tmp_path / "a")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux shows which files are mapped")
def test_a_resumed_run_does_not_keep_its_checkpoint_mapped(tmp_path):
    """Windows refuses to replace a file that is mapped."""
    interrupted(tmp_path / "a")
    tensors, _ = checkpoint.read(tmp_path / "a" / "training.safetensors")
    assert tensors and str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("files", [["model.json", "model.safetensors"], ["notes.txt"]])
def test_a_folder_of_something_else_is_never_written_into(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty and holds no training.safetensors to go on from"):
        train(tmp_path, resume=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(files, "mine")


@pytest.mark.parametrize("damage", [
    lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:100]),
    lambda path: path.write_bytes(b""),
], ids=["removed", "cut", "empty"])
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_finished_run_writes_its_model_again(tmp_path, name, damage):
    train(tmp_path / "a")
    whole = (tmp_path / "a" / name).read_bytes()
    damage(tmp_path / "a" / name)
    train(tmp_path / "a", resume=True)
    assert (tmp_path / "a" / name).read_bytes() == whole
    load(tmp_path / "a")


@pytest.mark.parametrize("moved", [(1, 0), (0, 1)], ids=["training", "validation"])
def test_other_data_of_the_same_shape_are_another_run(tmp_path, moved):
    interrupted(tmp_path / "a")
    x = 2 * torch.randn(300, 2, generator=torch.Generator().manual_seed(5)) + 1
    with pytest.raises(ValueError, match="another data content"):
        fit(make(), x[:200] + moved[0], x[200:] + moved[1], steps=40, batch_size=64, eval_every=8, out=tmp_path / "a",
            resume=True)


def test_another_model_with_the_same_weights_is_another_run(tmp_path):
    def flow(bound):
        return Flow(StandardNormal(2), Compose(Coupling(2, Affine(bound=bound), hidden=(16,))))

    with pytest.raises(Stop):
        train(tmp_path / "a", f := flow(2.0), objective=Interrupted(f, 21, stop))
    with pytest.raises(ValueError, match="belongs to a run with another model"):
        train(tmp_path / "a", flow(3.0), resume=True)


def test_a_second_run_in_one_folder_is_refused(tmp_path):
    """While the first is at work; and it goes on unharmed."""
    said = []

    def second(step):
        if step == 8:
            for options in ({}, {"resume": True}):
                with pytest.raises((BlockingIOError, FileExistsError)) as caught:
                    train(tmp_path / "a", **options)
                said.append(str(caught.value))

    train(tmp_path / "a", watch=second)
    assert "is not empty" in said[0] and f"another run is at work in {tmp_path / 'a'}" == said[1]
    train(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_two_runs_that_find_the_same_empty_folder(tmp_path):
    """Both have looked; the one that comes second to the lock is refused, at work or done."""
    with checkpoint.claimed(tmp_path / "a", None):
        with pytest.raises(BlockingIOError, match="another run is at work"), checkpoint.claimed(tmp_path / "a", None):
            pass
        (tmp_path / "a" / "training.safetensors").write_bytes(b"state")
    with pytest.raises(FileExistsError, match="another run has begun"), checkpoint.claimed(tmp_path / "a", None):
        pass


def test_a_run_that_is_killed_before_its_first_checkpoint_can_begin_again(tmp_path):
    """SIGKILL at the moment when the model is there and the training state is not; a lock and a part are left."""
    code = ("import os, sys; from pathlib import Path; from flowlib.train import checkpoint\n"
            "folder = Path(sys.argv[1])\nwith checkpoint.claimed(folder, None):\n"
            "    (folder / 'model.json').write_text('half')\n"
            "    (folder / '.training.safetensors.1.part').write_text('half')\n"
            "    os.kill(os.getpid(), 9)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], env=environment)
    assert killed.returncode == -signal.SIGKILL and len(list((tmp_path / "a").iterdir())) == 3
    with pytest.raises(FileExistsError, match="is not empty"):
        train(tmp_path / "a")
    train(tmp_path / "a", resume=True)
    train(tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    left = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert left == ["model.json", "model.safetensors", "training.safetensors"]


def test_a_run_without_a_checkpoint_leaves_nothing(tmp_path):
    with pytest.raises(Stop), checkpoint.claimed(tmp_path / "a", None):
        (tmp_path / "a" / "model.json").write_text("{}")
        raise Stop
    assert not list(tmp_path.iterdir())
