"""A chain that recomputes its inputs gives the gradients of one that keeps them, or says why it cannot."""
import copy

import pytest
import torch
from torch import nn

import flowlib as fl

D = torch.float64


def pair():
    """The same layers, none at its start, in an ordinary chain and in one that recomputes."""
    torch.manual_seed(0)
    layers = [fl.Coupling(2, fl.Affine(), hidden=(8,), swap=k % 2 == 1) for k in range(2)]
    layers += [fl.ActNorm(2), fl.Linear([[2.0, 1.0], [0.0, 1.0]])]
    ordinary = fl.Compose(*layers).double()
    for p in ordinary.parameters():
        nn.init.normal_(p, std=0.3)
    return ordinary, fl.Reversible(*copy.deepcopy(layers)).double()


@pytest.mark.parametrize("method", ["forward", "inverse"])
def test_functional_call_gives_the_gradients_of_compose(method):
    value, gradients = torch.randn(5, 2, dtype=D), []
    for chain in pair():
        module = chain if method == "forward" else fl.Inverse(chain)
        source = {k: torch.full_like(v, 0.2).requires_grad_() for k, v in module.named_parameters()}
        lent = {k: v.sin() for k, v in source.items()}  # as a network would compute them
        lent |= {k: v * 1.5 for k, v in module.named_buffers() if v.is_floating_point()}
        out, log_det = torch.func.functional_call(module, lent, (value,))
        (out.square().sum() + 2 * log_det.sum()).backward()
        gradients.append([v.grad for v in source.values()])
    assert all(g is not None for g in gradients[1])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)
    assert all(p.grad is None for p in chain.parameters())


def test_a_weight_changed_before_the_backward_pass_is_an_error():
    for change in (lambda f: f.bijections[0].net.layers[0].weight, lambda f: f.bijections[3].matrix):
        _, chain = pair()
        loss = chain.inverse(torch.randn(5, 2, dtype=D))[1].sum() + sum(p.sum() for p in chain.parameters())
        with torch.no_grad():
            change(chain).mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("make, words", [
    (lambda: fl.Reversible(fl.Coupling(2, fl.Affine()), fl.BatchNorm(2)), "BatchNorm.*Compose"),
    (lambda: fl.Reversible(fl.Compose(fl.Inverse(fl.BatchNorm(2)))), "BatchNorm"),
    (lambda: fl.Reversible(fl.Reshape((4,), (1, 2, 2)), fl.Dequantize(4)), "Dequantize.*bound"),
])
def test_layers_that_differ_the_second_time_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_batch_statistics_inside_a_network_are_refused():
    layer = fl.Coupling(2, fl.Affine(), hidden=(8,))
    layer.net.layers.insert(1, nn.BatchNorm1d(8))
    with pytest.raises(ValueError, match="BatchNorm1d"):
        fl.Reversible(layer)


def test_dropout_is_seen():
    ordinary, chain = pair()
    for f in (ordinary, chain):
        f.bijections[0].net.layers.insert(1, nn.Dropout(0.5))
    value = torch.randn(64, 2, dtype=D)
    with pytest.raises(ValueError, match="dropout.*save_memory"):
        chain.inverse(value)
    with torch.no_grad():
        chain.inverse(value)  # no backward pass, nothing to be wrong
    for f in (ordinary.eval(), chain.eval()):
        f.inverse(value)[1].sum().backward()
    for p, q in zip(ordinary.parameters(), chain.parameters()):
        torch.testing.assert_close(p.grad, q.grad)
    log_det = chain.inverse(value)[1]
    with pytest.raises(ValueError, match="dropout"):
        chain.train()
        log_det.sum().backward()


def test_shapes_pass_on_the_meta_device():
    chain = fl.Reversible(fl.Coupling(2, fl.Affine()), fl.ActNorm(2)).double().to("meta")
    chain.inverse(torch.randn(3, 2, dtype=D, device="meta"))[1].sum().backward()
    assert all(p.grad.shape == p.shape for p in chain.parameters())


def test_transforms_of_torch_func_name_the_way_out():
    _, chain = pair()
    flow = fl.Flow(fl.StandardNormal(2).double(), chain)
    x = torch.randn(4, 2, dtype=D)
    for call in (lambda: torch.func.vmap(flow.log_prob)(x), lambda: torch.func.grad(flow.log_prob)(x[0]),
                 lambda: torch.func.jvp(flow.log_prob, (x,), (x,))):
        with pytest.raises(RuntimeError, match="save_memory=False"):
            call()


def test_layers_are_recomputed_in_the_precision_of_the_first_time():
    chain, seen = pair()[1].float(), []
    chain.bijections[0].net.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chain.inverse(torch.randn(5, 2))[1].sum()
    loss.backward()
    assert seen == [True] * 3  # to the latent, back, and once more with a record
