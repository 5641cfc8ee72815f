"""MintNet: a triangular Jacobian whatever the weights, and an inverse that is exact in as many sweeps as the order is
long."""
import itertools

import pytest
import torch
from registry import randomise

import flowlib as fl
from flowlib.nets.triangular import TriangularNet

D = torch.float64


def layer(shape, scale=2.0, **options):
    torch.manual_seed(0)
    made = fl.MintLayer(shape, **options).to(D)
    randomise(made, scale)
    return made


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape, kernel", [((1, 6, 6), 3), ((2, 3, 4), 3), ((3, 2, 2), 1), ((1, 5, 4), 5), ((5,), 3)])
def test_the_jacobian_is_triangular_and_its_diagonal_is_told(shape, kernel, reverse):
    f = layer(shape, kernel=kernel, reverse=reverse)
    x = torch.randn(3, *shape, dtype=D)
    dims = x[0].numel()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: f.inverse(x)[0]))(x).reshape(3, dims, dims)
    if len(shape) == 3:  # raster order: pixels first, then channels
        order = torch.arange(dims).reshape(shape).movedim(0, -1).flatten()
        jacobian = jacobian[:, order][:, :, order]
    jacobian = jacobian.flip(1, 2) if reverse else jacobian
    assert not jacobian.triu(1).any()
    assert jacobian.diagonal(dim1=1, dim2=2).min() >= f.log_t.exp().min()
    assert torch.allclose(f.inverse(x)[1], jacobian.diagonal(dim1=1, dim2=2).log().sum(1), atol=1e-12)
    assert kernel == 1 or (jacobian.tril(-1) != 0).any(0).sum() > dims  # and it does see the others
    # in 1 x 1 kernels no pixel sees another
    assert kernel > 1 or not jacobian.reshape(3, 4, 3, 4, 3)[:, 0, :, 1].any()


def test_log_det_of_a_model_against_autograd():
    """1 x 6 x 6, two resolutions, both orders, to 1e-8."""
    torch.manual_seed(0)
    f = fl.MintNet((1, 6, 6), steps=1, hidden=3).double().bijection[0]
    randomise(f)
    z = torch.randn(2, 36, dtype=D)
    with torch.no_grad():
        x, log_det = f(z)
        found, other = f.inverse(x)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: f.inverse(x)[0]))(x).reshape(2, 36, 36)
    exact = torch.linalg.slogdet(jacobian).logabsdet
    assert torch.allclose(other, exact, atol=1e-8, rtol=0) and torch.allclose(log_det, -exact, atol=1e-8, rtol=0)
    assert torch.allclose(found, z, atol=1e-9) and exact.abs().min() > 1


@pytest.mark.parametrize("shape", [(6,), (1, 3, 3)])
def test_a_linear_map_is_inverted_in_at_most_d_sweeps(shape):
    """T3.11: the sweeps' iteration matrix is nilpotent; errors may grow before they vanish."""
    f = layer(shape, scale=1.0, units=1)
    with torch.no_grad():
        for conv in f.net.convs:
            conv.bias.fill_(1e4)  # all units in the linear branch of h
            conv.weight.mul_(3.0)
    x = torch.randn(4, *shape, dtype=D)
    with torch.no_grad():
        z, log_det = f.inverse(x)
        middle = f.inverse(0.5 * (x[:1] + x[1:2]))[0]
        assert torch.allclose(0.5 * (z[:1] + z[1:2]), middle, rtol=1e-12)  # linear, but for a constant
        with fl.checks.passes(f) as count:
            found = f(z)[0]
    assert count.calls <= f.depth + 1 <= x[0].numel() + 1  # the last pass looks at the residual
    assert torch.allclose(found, x, atol=1e-9)


@pytest.mark.parametrize("shape, kernel", [((6,), 3), ((2, 3, 4), 3), ((1, 3, 3), 3), ((1, 1, 5), 5), ((3, 2, 2), 1)])
def test_after_k_sweeps_what_comes_k_steps_into_the_order_is_exact(shape, kernel):
    """Whatever the weights: each sweep solves every coordinate's own equation. `depth` is the longest chain."""
    f = layer(shape, scale=3.0, kernel=kernel)
    x = torch.randn(1, *shape, dtype=D)
    sees = torch.func.jacrev(lambda x: f.inverse(x)[0])(x[0]).reshape(x.numel(), -1) != 0
    chain = [0] * x.numel()
    order = torch.arange(x.numel()).reshape(shape).movedim(0, -1).flatten() if len(shape) == 3 else range(x.numel())
    for i, j in itertools.product(map(int, order), repeat=2):
        if i != j and sees[i, j]:
            chain[i] = max(chain[i], chain[j] + 1)
    assert max(chain) + 1 <= f.depth <= x.numel()
    with torch.no_grad(), fl.checks.passes(f) as count:
        found = f(f.inverse(x)[0])[0]
    assert count.calls <= 1 + f.depth + 1  # the first was the density's
    assert torch.allclose(found, x, atol=1e-10)


def test_a_map_that_is_nearly_flat_in_places_is_inverted_without_a_step_size():
    """Slopes down to 0.01 beside steep ones, where plain Newton steps overshoot."""
    f = layer((1, 3, 3), units=4)
    with torch.no_grad():
        f.log_t.fill_(-4.6)
    x = 3 * torch.randn(4, 1, 3, 3, dtype=D)
    with torch.no_grad():
        z, log_det = f.inverse(x)
        found, other = f(z)
        assert torch.allclose(f.inverse(found)[0], z, atol=1e-9) and torch.allclose(log_det, -other, atol=1e-6)


def test_gradients_of_the_inverse_are_those_of_the_implicit_function():
    f = layer((2,), units=1)
    z = torch.randn(1, 2, dtype=D, requires_grad=True)
    names, values = zip(*f.named_parameters())

    def of_all(z, *values):
        return torch.func.functional_call(f, dict(zip(names, values)), (z,))

    inputs = (z, *(v.detach().requires_grad_() for v in values))
    assert torch.autograd.gradcheck(of_all, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(of_all, inputs, fast_mode=True)


def test_what_has_no_inverse_is_said():
    f = layer((1, 3, 3))
    z = torch.randn(2, 1, 3, 3, dtype=D)
    z[0, 0, 1, 1] = torch.inf
    with torch.no_grad():
        x, _ = f(z)
        assert x[0].isnan().all() and x[1].isfinite().all() and f(z[:0])[0].shape == (0, 1, 3, 3)
        f.net.convs[1].bias[0] = torch.nan
        with pytest.raises(fl.InversionError, match="largest residual is nan"):
            f(z[1:])


@pytest.mark.parametrize("options", [dict(kernel=2), dict(units=0), dict(shape=(2, 2)), dict(shape=(0, 4, 4))])
def test_what_does_not_fit_is_refused(options):
    with pytest.raises(ValueError, match="odd kernel"):
        fl.MintLayer(**{"shape": (1, 4, 4)} | options)


def test_a_context_of_images_is_turned_with_the_order():
    """What the last pixel is told moves it whichever the order."""
    for reverse in (False, True):
        f = layer((1, 3, 3), context_shape=(2, 3, 3), reverse=reverse)
        x, context = torch.zeros(1, 3, 3, dtype=D), torch.zeros(2, 3, 3, dtype=D)
        moved = context.clone()
        moved[0, 2, 1] = 1.0
        change = (f.inverse(x, moved)[0] != f.inverse(x, context)[0])[0]
        assert change[2, 1] and change.flatten()[:7].any() == reverse


def test_signs_do_not_make_the_map_jump():
    """A weight to a unit's own coordinate may go through zero."""
    net = TriangularNet(1, 2, 3).double()
    x = torch.randn(1, 1, 3, 3, dtype=D)
    for conv in net.convs:
        values = []
        with torch.no_grad():
            for small in (1e-9, -1e-9):
                conv.weight[0, 0, -1, 1] = small
                values.append(net(x).value)
        assert torch.allclose(*values, atol=1e-7)


def test_a_trained_model_gives_the_integers_back():
    digits = fl.data.load("digits").x[:256]
    torch.manual_seed(0)
    model = fl.MintNet((1, 8, 8), levels=17, steps=1, hidden=2)
    model.initialize(digits)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    before = -model.log_prob(digits).mean().item()
    for _ in range(20):
        loss = -model.log_prob(digits[torch.randint(256, (64,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < before - 10
    with torch.no_grad():
        assert torch.equal(model.decode(model.encode(digits)), digits)
        assert model.sample(2).dtype == torch.uint8
