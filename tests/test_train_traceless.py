"""What `fit` leaves behind beside the flow: nothing; devices are played by stand-ins."""
import functools

import pytest
import torch
from training import blob, fit, small, weights

from flowlib import NICE
from flowlib.seeds import STEP, derive, kept_random_state, seed_all
from flowlib.train.processes import launched_precision, processes

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_fit_chooses_its_device_anew(monkeypatch):
    """accelerate takes its device once per program; here its answer without `cpu=True` stands for a GPU."""
    from accelerate import PartialState

    PartialState._shared_state.clear()  # what a test before this one may have left
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(PartialState, "default_device", property(lambda state: gpu))
    for cpu, expected in ((False, "cuda"), (True, "cpu"), (False, "cuda")):
        with processes(cpu) as here:
            assert here.device.type == expected and here.num_processes == 1
        assert not PartialState._shared_state
    PartialState()  # the user's own, on the GPU
    with processes(True) as here:
        assert here.device.type == "cpu"
    assert PartialState().device == gpu
    PartialState._shared_state.clear()
    flow = small()
    history = fit(flow, blob()[0], steps=2)  # on the CPU, by its argument
    assert history.device.startswith("cpu")


def test_an_accelerator_before_and_after_keeps_its_choice():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    for state in (AcceleratorState, PartialState):
        state._shared_state.clear()
    fit(small(), blob()[0], steps=1)
    own = Accelerator(mixed_precision="bf16")
    try:
        before = dict(PartialState._shared_state), dict(AcceleratorState._shared_state)
        fit(small(), blob()[0], steps=1)
        assert (dict(PartialState._shared_state), dict(AcceleratorState._shared_state)) == before
        assert own.mixed_precision == "bf16" and own.device.type == PartialState().device.type
    finally:
        for state in (AcceleratorState, PartialState):
            state._shared_state.clear()


def test_threads_and_other_generators_stay(monkeypatch):
    flow = small()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU that is not used was seeded"))
    fit(flow, blob()[0], blob(9)[0], steps=2)
    with pytest.raises(KeyError), processes(True):
        torch.set_num_threads(2)
        raise KeyError
    assert torch.get_num_threads() == 1


def test_seeds_of_a_device(monkeypatch):
    """The CPU's and the device's own generator are set and put back, no other."""
    calls = []

    class Module:
        manual_seed = staticmethod(lambda seed: calls.append(("seed", seed)))
        get_rng_state = staticmethod(lambda: "state")
        set_rng_state = staticmethod(lambda state: calls.append(("put back", state)))

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    device, before = torch.device("cuda"), torch.get_rng_state()
    with kept_random_state(device):
        seed_all(3, STEP, 7, device=device)
        drawn = torch.rand(3)
    assert calls == [("seed", derive(3, STEP, 7, 0)), ("put back", "state")]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(derive(3, STEP, 7, 0))
    assert torch.equal(torch.rand(3), drawn)
    torch.set_rng_state(before)


@pytest.mark.parametrize("model", [small, functools.partial(small, NICE)])
def test_a_default_device_changes_nothing(tmp_path, model):
    """`meta` stands for a GPU as torch's default device: a tensor made without a device would have no values."""
    x, results = blob()[0], []
    for device in ("cpu", "meta"):
        flow = model()
        torch.set_default_device(device)
        try:
            history = fit(flow, x.numpy(), x[:50].numpy(), steps=4, batch_size=32, out=tmp_path / device)
            again = fit(flow, x.numpy(), x[:50].numpy(), steps=4, batch_size=32, out=tmp_path / device, resume=True)
        finally:
            torch.set_default_device(None)
        results.append((weights(flow), history.loss, history.val_loss, again.loss))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]


def test_the_launcher_may_ask_for_bf16(monkeypatch):
    assert launched_precision() is None
    flow, inner = small(), set()
    flow.bijection.bijections[0].net.register_forward_hook(lambda module, args, out: inner.add(out.dtype))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    fit(flow, blob()[0], steps=1)
    assert inner == {torch.bfloat16}
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="the launcher asks for fp16"):
        fit(flow, blob()[0], steps=1)


def test_nothing_is_written_before_all_have_looked(monkeypatch, tmp_path):
    """Or a slower process would find the folder of its own run not empty."""
    from accelerate import PartialState

    from flowlib.train import loop, run

    order = []
    for place, name in ((loop, "find"), (run, "save_run"), (run.saving, "save"), (PartialState, "wait_for_everyone")):
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *args, real=real, name=name: order.append(name) or real(*args))
    fit(small(), blob()[0], steps=1, out=tmp_path / "run")
    assert order[:3] == ["find", "wait_for_everyone", "save"]
