"""Transformers over tokens and patches: what sees what, caches and sweeps that give one pass's numbers, and Jet's
couplings."""
import math

import pytest
import torch
from registry import randomise

import flowlib as fl
from flowlib.images.patches import patches
from flowlib.nets import transformer
from flowlib.nets.transformer import Transformer

D = torch.float64


def made(make, dtype=D):
    torch.manual_seed(0)
    module = make().to(dtype)
    randomise(module)
    return module


def test_a_causal_transformer_sees_no_token_after_its_own():
    for causal in (True, False):
        net = made(lambda causal=causal: Transformer(5, 2, 3, 8, 2, 2, causal))
        jacobian = torch.func.jacrev(net)(torch.randn(5, 2, dtype=D)).abs().amax((1, 3))  # of output i in token j
        assert (jacobian > 0).equal(torch.ones(5, 5).tril() > 0 if causal else torch.ones(5, 5) > 0)


def test_tokens_with_a_cache_are_those_of_one_pass():
    net = made(lambda: Transformer(6, 2, 3, 8, 2, 2, True, context_dim=4))
    x, context = torch.randn(7, 6, 2, dtype=D), torch.randn(7, 4, dtype=D)
    whole = net(x, context)
    for sizes in ([1] * 6, [2, 3, 1], [6]):
        cache, parts = (), []
        for part in x.split(sizes, 1):
            before, output = [k.clone() for k, _ in cache], net.extend(part, cache, context)
            assert all(map(torch.equal, before, (k for k, _ in cache)))
            parts.append(output[0])
            cache = output[1]
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)
    assert not {name for name, _ in net.named_buffers()}  # nothing of it stays in the module


def test_fused_attention_is_the_plain_one(monkeypatch):
    net = made(lambda: Transformer(9, 2, 3, 8, 1, 2, True))
    x = torch.randn(4, 9, 2, dtype=D)
    plain = net(x)
    monkeypatch.setattr(transformer, "FUSED", 3)
    torch.testing.assert_close(net(x), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options, words", [(dict(length=0), "a token"), (dict(depth=0), "a block"),
                                            (dict(hidden=6, heads=4), "divide"), (dict(heads=0), "heads=0")])
def test_a_transformer_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        Transformer(**dict(length=3, inputs=2, outputs=2) | options)


def test_patches_are_the_squares_of_the_image():
    x = torch.randn(3, 6, 4)
    tokens = x.flatten()[patches((3, 6, 4), 2)]
    squares = [x[:, i : i + 2, j : j + 2].flatten() for i in (0, 2, 4) for j in (0, 2)]
    assert torch.equal(tokens, torch.stack(squares))
    for bad in (3, 0):
        with pytest.raises(ValueError, match="divides height and width"):
            patches((3, 6, 4), bad)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_jacobian_is_triangular_in_tokens_and_diagonal_in_each(reverse):
    f = made(lambda: fl.CausalTransformer((4, 3), fl.Affine(), hidden=8, heads=2, reverse=reverse))
    x = torch.randn(4, 3, dtype=D)
    jacobian = torch.func.jacrev(lambda x: f.inverse(x)[0])(x)
    jacobian = jacobian.flip(0, 2) if reverse else jacobian
    for i in range(4):
        assert not jacobian[i, :, i + 1 :].any() and jacobian[i, :, i].equal(jacobian[i, :, i].diagonal().diag())
        assert (jacobian[i, :, :i] != 0).all()  # and every token sees all before it


def test_the_log_det_is_a_sum_over_tokens_and_numbers():
    """Constant parameters: x = z e^s + t with s = 2 tanh(1/4), 4 tokens of 3 numbers."""
    f = fl.CausalTransformer((4, 3), fl.Affine(), hidden=8).to(D)
    with torch.no_grad():
        f.net.last.bias.copy_(torch.tensor([0.5, 7.0], dtype=D).repeat_interleave(3))  # s of all three, then t
    z = torch.randn(5, 4, 3, dtype=D)
    x, log_det = f(z)
    s = 2 * math.tanh(0.25)
    torch.testing.assert_close(x, z * math.exp(s) + 7)
    torch.testing.assert_close(log_det, torch.full((5,), 12 * s, dtype=D))


@pytest.mark.parametrize("reverse", [False, True])
def test_sampling_by_sweeps_is_sampling_with_a_cache(reverse):
    f = made(lambda: fl.CausalTransformer((9, 3), fl.Affine(), hidden=8, reverse=reverse), torch.float32)
    z = torch.randn(20, 9, 3)
    with torch.no_grad():
        x, log_det = f(z)
        f.sampling = "sweeps"
        with fl.checks.passes(f) as count:
            again, log_det_again = f(z)
    assert (again - x).abs().max() < 1e-5 and (log_det_again - log_det).abs().max() < 1e-5
    assert 1 < count.calls <= 9
    weights = torch.randn_like(z)
    grads = []
    for f.sampling in ("cache", "sweeps"):
        x, log_det = f(z)
        grads.append(torch.autograd.grad((x * weights).sum() + log_det.sum(), list(f.parameters())))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_k_sweeps_are_right_for_k_tokens():
    f = made(lambda: fl.CausalTransformer((6, 2), fl.Affine(), hidden=8))
    z, x = torch.randn(6, 2, dtype=D), torch.zeros(6, 2, dtype=D)
    truth = f(z)[0]
    for k in range(6):
        assert torch.allclose(x[:k], truth[:k], rtol=0, atol=1e-12) and (x[k:] - truth[k:]).abs().min() > 1e-9
        x = f.elementwise.forward(z, f._params(x, None))[0]
    torch.testing.assert_close(x, truth, rtol=0, atol=1e-12)


def test_a_context_moves_the_first_token_too():
    f = made(lambda: fl.CausalTransformer((3, 2), fl.Affine(), hidden=8, context_dim=2))
    x = f(torch.ones(2, 3, 2, dtype=D), torch.eye(2, dtype=D))[0]
    assert (x[0] - x[1]).abs().min() > 1e-6


def test_another_way_of_sampling_is_refused():
    with pytest.raises(ValueError, match="cache, sweeps"):
        fl.TarFlow((1, 4, 4), sampling="jacobi")


def test_the_map_of_jet():
    x, s, b = torch.randn(3, 100, dtype=D).unbind(0)
    z, log_slope = fl.SigmoidAffine().inverse(x, torch.stack([s, b], -1))
    factor = 2 / (1 + (-s).exp())
    torch.testing.assert_close(z, (x + b) * factor)
    torch.testing.assert_close(log_slope, factor.log())


def test_a_spatial_split_keeps_one_colour_and_moves_the_other():
    colours = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    dark = colours.repeat_interleave(2, 0).repeat_interleave(2, 1) == 1
    for swap in (False, True):
        f = made(lambda swap=swap: fl.PatchCoupling((2, 8, 8), fl.SigmoidAffine(), split="spatial", swap=swap, hidden=8,
                                                    depth=1))
        z = torch.randn(2, 8, 8, dtype=D)
        moved = f(z)[0] != z
        assert torch.equal(moved, (dark ^ swap).expand(2, 8, 8))


def test_a_channel_split_keeps_the_same_half_of_every_patch():
    f = made(lambda: fl.PatchCoupling((2, 8, 8), fl.SigmoidAffine(), hidden=8, depth=1))
    z = torch.randn(2, 8, 8, dtype=D)
    moved = (f(z)[0] != z).flatten()[patches((2, 8, 8), 2)]
    assert moved.sum(1).eq(4).all() and moved.eq(moved[0]).all()
    jacobian = torch.func.jacrev(lambda z: f(z)[0].flatten())(z).reshape(128, 128)
    kept = ~moved.flatten()[patches((2, 8, 8), 2).flatten().argsort()]
    assert (jacobian[~kept][:, kept] != 0).all()  # every token sees what is kept of all of them
    assert jacobian[~kept][:, ~kept].equal(jacobian[~kept][:, ~kept].diagonal().diag())


def test_jet_splits_channels_twice_and_then_space():
    couplings = [f for f in fl.Jet((1, 8, 8), layers=6, hidden=4).bijection[0][1:]]
    spatial = [len(f.order) == 8 for f in couplings]  # pairs of the 16 patches
    assert spatial == [False, False, True, False, False, True]
    assert couplings[2].order[0, 0] == 0 and couplings[5].order[0, 0] == 2  # the first patch is kept, then the second
    channels = [f.order for f in couplings if len(f.order) == 16]
    assert not all(torch.equal(order, channels[0]) for order in channels)


@pytest.mark.parametrize("shape, options, words", [((1, 4, 4), dict(split="space"), "channel"),
                                                   ((1, 4, 4), dict(patch=1), "at least two numbers"),
                                                   ((1, 6, 6), dict(split="spatial"), "even number"),
                                                   ((1, 4, 6), dict(patch=4), "divides")])
def test_a_coupling_that_cannot_be(shape, options, words):
    with pytest.raises(ValueError, match=words):
        fl.PatchCoupling(shape, fl.Affine(), **options)
