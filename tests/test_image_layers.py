"""What the layers of image flows promise beyond the laws."""
import copy
import math

import pytest
import torch

import flowlib as fl

D = torch.float64
BACKENDS = (torch.nn.attention.SDPBackend.FLASH_ATTENTION, torch.nn.attention.SDPBackend.MATH)


def test_squeeze_puts_each_block_into_channels():
    x = torch.arange(16.0).reshape(1, 4, 4)
    z, _ = fl.Squeeze((1, 4, 4)).inverse(x)
    assert z[:, 0, 0].tolist() == [0, 1, 4, 5] and z[:, 1, 1].tolist() == [10, 11, 14, 15]
    assert torch.equal(fl.Squeeze((1, 4, 4))(z)[0], x)


@pytest.mark.parametrize("shape, n", [((1, 3, 4), 1), ((1, 4, 6), 2), ((1, 4, 4), 3), ((1, 4, 4), 0)])
def test_sizes_that_cannot_be_halved(shape, n):
    with pytest.raises(ValueError):
        fl.Squeeze(shape) if n == 1 else fl.scale_shapes(shape, n)


# --- normalisation


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 4)])
@pytest.mark.parametrize("inverse", [True, False])
def test_actnorm_starts_from_data(shape, inverse):
    layer = fl.ActNorm(shape).double()
    batch = 5 * torch.randn(64, *shape, dtype=D) + 3
    out = layer.initialize(batch, inverse=inverse)
    rows = layer._rows(out)
    assert rows.mean(0).abs().max() < 1e-12 and (rows.std(0) - 1).abs().max() < 1e-12
    assert torch.allclose((layer.inverse if inverse else layer)(batch)[0], out)
    before = copy.deepcopy(layer.state_dict())
    layer.initialize(10 * batch, inverse=inverse)
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


def test_actnorm_of_a_constant_channel_stays_finite():
    layer = fl.ActNorm((1, 2, 2))
    assert layer.initialize(torch.full((8, 1, 2, 2), 7.0)).isfinite().all() and layer.log_scale.isfinite().all()


@pytest.mark.parametrize("make", [fl.ActNorm, fl.DiagonalScale])
@pytest.mark.parametrize("batch",
                         [torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, torch.nan]]), torch.zeros(2, 4),
                          torch.zeros(2, 3, dtype=torch.float64)])
def test_a_start_from_data_that_do_not_do_sets_nothing(make, batch):
    layer = make(3)
    with pytest.raises(ValueError):
        layer.initialize(batch)
    assert not layer.initialized and not any(p.any() for p in layer.parameters())


def test_a_flow_starts_as_a_whole_or_not_at_all():
    """One image of 4 x 4 pixels fills the channels of the first scale with four values each, but those of the second
    with one."""
    flow = fl.Glow((1, 4, 4), levels=17, scales=2, steps=1, hidden=4, context_dim=2)
    before = copy.deepcopy(flow.state_dict())
    x, context = torch.randint(17, (8, 1, 4, 4)).to(torch.uint8), torch.randn(8, 2)
    for batch, given, message in ((x[:1], context[:1], "two values"), (x, None, "context")):
        with pytest.raises(ValueError, match=message):
            flow.initialize(batch, given)
        assert all(torch.equal(before[k], v) for k, v in flow.state_dict().items())
    flow.initialize(x, context)
    assert all(m.initialized for m in flow.modules() if isinstance(m, fl.ActNorm))


@pytest.mark.parametrize("shape", [(2,), (2, 4, 4)])
def test_batch_norm_in_training_and_evaluation(shape):
    layer = fl.BatchNorm(shape, momentum=0.5).double()
    x = 3 * torch.randn(256, *shape, dtype=D) + 1
    z, log_det = layer.inverse(x)
    rows = layer._rows(z)
    assert rows.mean(0).abs().max() < 1e-9 and (rows.var(0, correction=0) - 1).abs().max() < 1e-5
    # log-det of x -> (x - mean) / sd with the batch's moments held fixed, as the paper counts it
    var = layer._rows(x).var(0, correction=0)
    assert torch.allclose(log_det, -0.5 * layer.positions * (var + layer.eps).log().sum().expand(256))
    assert torch.allclose(layer.var.flatten(), 0.5 * (1 + var)) and not layer.mean.requires_grad
    before = layer.mean.clone()
    layer.eval()
    assert fl.checks.round_trip_error(layer, z) < 1e-9 and torch.equal(before, layer.mean)


def test_batch_norm_of_too_few_values_leaves_its_moments_alone():
    layer = fl.BatchNorm(2)
    z, log_det = layer.inverse(torch.empty(0, 2))
    assert z.shape == (0, 2) and log_det.shape == (0,)
    with pytest.raises(ValueError, match="more than one value"):
        layer.inverse(torch.tensor([[100.0, -50.0]]))
    assert layer.mean.tolist() == [0, 0] and layer.var.tolist() == [1, 1]
    layer.eval()
    assert layer.inverse(torch.tensor([[100.0, -50.0]]))[1].isfinite().all()  # running moments need no batch


# --- mixing channels


def test_log_det_of_a_1x1_convolution_is_that_of_the_whole_map():
    """HW ln|det W|, the full Jacobian's."""
    layer = fl.InvertibleConv1x1((3, 4, 4)).double()
    torch.nn.init.normal_(layer.log_s)
    assert fl.checks.log_det_error(layer, torch.randn(2, 3, 4, 4, dtype=D)) < 1e-9
    x = torch.randn(1, 3, 4, 4, dtype=D)
    w = fl.checks.jacobian(lambda v: layer.inverse(v)[0], x, 3)[0][::16, ::16]  # the pixel (0, 0) of each channel
    assert layer.inverse(x)[1].item() == pytest.approx(16 * torch.linalg.slogdet(w)[1].item())


def test_a_1x1_convolution_starts_as_a_rotation():
    layer = fl.InvertibleConv1x1((6, 1, 1)).double()
    x = torch.randn(100, 6, 1, 1, dtype=D)
    z, log_det = layer.inverse(x)
    # drawn in float32
    assert torch.allclose(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), atol=1e-5) and log_det.abs().max() < 1e-5


def test_signs_and_permutation_are_not_trained():
    names = {n for n, _ in fl.InvertibleConv1x1((4, 2, 2)).named_parameters()}
    assert names == {"lower", "upper", "log_s"}


# --- mixtures


def test_a_mixture_cdf_over_a_logistic_base_is_the_mixture():
    """The density of x is exactly sum pi_k f_k."""
    f = fl.LogisticMixtureCDF(3)
    layer = fl.Elementwise(1, f).double()
    torch.nn.init.normal_(layer.params)
    with torch.no_grad():
        layer.params[:, -2:] = 0  # a = b = 0
    log_weights, means, log_scales, _, _ = f._unpack(layer.params[0])
    x = torch.linspace(-12, 12, 200, dtype=D)[:, None]
    u = (x - means) / log_scales.exp()
    exact = (log_weights.softmax(-1) * torch.sigmoid(u) * torch.sigmoid(-u) / log_scales.exp()).sum(-1)
    flow = fl.Flow(fl.StandardLogistic(1).double(), layer)
    assert (flow.log_prob(x).exp() - exact).abs().max() < 1e-12


def test_a_mixture_cdf_inverts_far_out():
    f = fl.LogisticMixtureCDF(4)
    for dtype, tolerance in ((D, 1e-12), (torch.float32, 1e-5)):
        params = torch.randn(41, f.n_params, dtype=dtype)
        x = torch.linspace(-200, 200, 41, dtype=dtype)
        back = f.forward(f.inverse(x, params)[0], params)[0]
        assert ((back - x).abs() / x.abs().clamp(min=1)).max() < tolerance


# --- scales


def test_multiscale_keeps_every_latent():
    f = fl.Glow((1, 8, 8), scales=2, steps=1, hidden=8).bijection.bijections[0].double()
    z = torch.randn(5, 64, dtype=D)
    parts = f.split(z)
    assert [p.shape[1:] for p in parts] == [(2, 4, 4), (8, 2, 2)]
    assert torch.equal(f.join(parts), z)


def test_the_split_prior_starts_as_a_plain_gaussian_and_then_looks_at_the_kept_half():
    layers = [fl.ActNorm(s) for s in fl.scale_shapes((1, 4, 4), 2)]
    learned, plain = (fl.MultiScale((1, 4, 4), copy.deepcopy(layers), learn_prior=p).double() for p in (True, False))
    x = torch.randn(6, 1, 4, 4, dtype=D)
    assert torch.allclose(learned.inverse(x)[0], plain.inverse(x)[0])
    torch.nn.init.normal_(learned.priors[0].body[-1].weight)
    jacobian = fl.checks.jacobian(lambda v: learned.inverse(v)[0], x, 3)
    y_after, h_before = slice(0, 8), [i for i in range(16)]
    assert (jacobian[:, y_after][..., h_before] != 0).sum() > (fl.checks.jacobian(
        lambda v: plain.inverse(v)[0], x, 3)[:, y_after] != 0).sum()


@pytest.mark.parametrize("make", [fl.Glow, fl.RealNVPImage])
def test_a_model_without_a_split_prior_has_no_network_for_it(make):
    bodies = [make((1, 8, 8), scales=2, steps=1, hidden=4, learn_prior=p).bijection.bijections[0]
              for p in (True, False)]
    assert [len(body.priors) for body in bodies] == [1, 0]


def test_the_split_prior_of_a_conditional_model_reads_the_context():
    flow = fl.Glow((1, 4, 4), levels=17, scales=2, steps=1, hidden=4, context_dim=3)
    body = flow.bijection.bijections[0].double()
    torch.nn.init.normal_(body.priors[0].body[-1].weight)  # all couplings still are the identity
    z, a, b = torch.randn(5, 16, dtype=D), *torch.eye(3, dtype=D)[:2]
    assert not torch.allclose(body(z, a)[0], body(z, b)[0])
    assert (body.inverse(body(z, a)[0], a)[0] - z).abs().max() < 1e-9
    x, log_det = body(z, torch.stack([a, b])[:, None])  # a context may bring axes
    assert x.shape == (2, 5, 1, 4, 4) and torch.allclose(log_det[1], body(z, b)[1])


def test_layers_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 4\)"):
        fl.MultiScale((1, 8, 8), [fl.ActNorm((2, 4, 4))])
    layers = [fl.ActNorm(s) for s in fl.scale_shapes((1, 8, 8), 2)]
    with pytest.raises(ValueError, match="2 scales need as many"):
        fl.MultiScale((1, 8, 8), layers, before=[fl.ActNorm((1, 8, 8))])


# --- couplings


@pytest.mark.parametrize("mask, swap", [("channel", False), ("channel", True), ("checkerboard", False),
                                        ("checkerboard", True)])
def test_what_a_mask_keeps_is_kept(mask, swap):
    layer = fl.ImageCoupling((2, 4, 4), fl.Affine(), hidden=8, mask=mask, swap=swap)
    torch.nn.init.normal_(layer.net.body[-1].weight)
    z = torch.randn(3, 2, 4, 4)
    changed = layer(z)[0] != z
    expected = torch.zeros(2, 4, 4, dtype=bool)
    if mask == "channel":
        expected[0 if swap else 1] = True
    else:
        expected[:] = fl.checkerboard(4, 4) if swap else ~fl.checkerboard(4, 4)
    assert torch.equal(changed.all(0), expected) and torch.equal(changed.any(0), expected)


@pytest.mark.parametrize("net", ["conv", "residual", "attention"])
@pytest.mark.parametrize("side", [4, 10])
def test_one_image_at_a_time_and_second_derivatives(net, side):
    """torch.func over images; and a gradient of a gradient, for which attention over many pixels needs torch's own
    switch."""
    layer = fl.ImageCoupling((2, side, side), fl.Affine(), hidden=4, net=net).double()
    torch.nn.init.normal_(layer.net.body[-1].weight, std=0.1)
    x = torch.randn(3, 2, side, side, dtype=D, requires_grad=True)
    with torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.MATH] if side > 8 else list(BACKENDS)):
        log_det = layer.inverse(x)[1]
        assert torch.allclose(torch.func.vmap(lambda v: layer.inverse(v)[1])(x), log_det)
        gradient, = torch.autograd.grad(log_det.sum(), x, create_graph=True)
        assert torch.allclose(torch.func.vmap(torch.func.grad(lambda v: layer.inverse(v)[1]))(x), gradient)
        second, = torch.autograd.grad(gradient.square().sum(), x)
    step = torch.randn_like(x)
    with torch.enable_grad():
        ends = []
        for t in (1e-5, -1e-5):
            moved = (x + t * step).detach().requires_grad_()
            ends.append(torch.autograd.grad(layer.inverse(moved)[1].sum(), moved)[0].square().sum())
    assert (second * step).sum().item() == pytest.approx(((ends[0] - ends[1]) / 2e-5).item(), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("make", [
    lambda: fl.Glow((3, 8, 8), scales=2, steps=1, hidden=4),
    lambda: fl.RealNVPImage((3, 8, 8), scales=2, steps=1, hidden=4),
    lambda: fl.FlowPlusPlus((3, 8, 8), scales=2, steps=1, hidden=4),
    lambda: fl.TarFlow((3, 8, 8), layers=2, hidden=4), lambda: fl.Jet((3, 8, 8), layers=3, hidden=4),
    lambda: fl.Pixels(fl.NICE(64, alternate=True), (1, 8, 8)),
    lambda: fl.BatchNorm((2, 4, 4)), lambda: fl.Squeeze((1, 4, 4)),
], ids=["Glow", "RealNVPImage", "FlowPlusPlus", "TarFlow", "Jet", "NICE", "BatchNorm", "Squeeze"])
def test_the_meta_device_holds_a_model_that_takes_no_memory(make):
    with torch.device("meta"):
        model = make()
    assert all(t.is_meta for t in (*model.parameters(), *model.buffers()))


def test_a_context_of_images():
    """One value a pixel, as a colouriser or a super-resolution flow needs; averaged down on coarser scales."""
    flow = fl.Glow((1, 8, 8), scales=2, steps=1, hidden=8, context_shape=(3, 8, 8))
    for p in flow.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    images = torch.randn(5, 3, 8, 8)
    x = flow.sample(2, images)
    assert x.shape == (2, 5, 1, 8, 8) and flow.log_prob(x, images).shape == (2, 5)
    torch.manual_seed(1)
    a = flow.log_prob(x, images)
    torch.manual_seed(1)
    assert not torch.equal(a, flow.log_prob(x, images.flip(-1)))
    for wrong in (torch.randn(5, 4, 8, 8), torch.randn(5, 3), torch.randn(5, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"context of shape \(..., 3, 8, 8\)"):
            flow.log_prob(x, wrong)


def test_the_declared_context_decides_not_the_shape_of_the_tensor():
    """Rows of contexts (3, 5, 3) that look like images of 3 channels to a layer of one pixel: the density is each row's
    own."""
    flow = fl.Glow((1, 4, 4), scales=2, steps=1, hidden=8, context_dim=3).double()
    for p in flow.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    z, context = torch.randn(3, 5, 16, dtype=D), torch.randn(3, 3, 3, dtype=D).repeat(1, 2, 1)[:, :5]
    x, log_det = flow.bijection.bijections[0](z, context)
    rows, row_log_det = flow.bijection.bijections[0](z.flatten(0, 1), context.flatten(0, 1))
    torch.testing.assert_close(x.flatten(0, 1), rows)
    torch.testing.assert_close(log_det.flatten(), row_log_det)


@pytest.mark.parametrize("broken", [
    lambda: fl.ImageCoupling((1, 4, 4), fl.Affine()),
    lambda: fl.ImageCoupling((2, 4, 4), fl.Affine(), mask="stripes"),
    lambda: fl.ImageCoupling((2, 4, 4), fl.Affine(), net="transformer"),
    lambda: fl.RealNVPImage((1, 8, 8), norm="layer"),
    lambda: fl.RealNVPImage((1, 8, 8), norm="batch", save_memory=True),
    lambda: fl.Glow((1, 28, 28), scales=3),
    lambda: fl.ActNorm(()),
    lambda: fl.LogisticMixtureCDF(0),
])
def test_what_does_not_fit_is_refused(broken):
    with pytest.raises(ValueError):
        broken()


# --- dequantization


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_integers_come_back_from_learned_noise(levels):
    f = fl.VariationalDequantize((1, 4, 4), levels, hidden=8)
    for p in f.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x = torch.randint(levels, (200, 1, 4, 4)).to(torch.uint8)
    v, log_det = f.inverse(x)
    back, forward_log_det = f(v)
    assert torch.equal(back, x) and log_det.isfinite().all() and forward_log_det.isfinite().all()
    # noise that the edge clamps has another epsilon
    assert ((log_det + forward_log_det).abs() < 0.5).float().mean() > 0.9


def test_learned_noise_is_a_density_on_its_cell():
    """q(v|x) integrates to one over the cell of x, by the midpoint rule in two dimensions."""
    f = fl.VariationalDequantize((1, 1, 2), levels=4, hidden=8).double()
    torch.manual_seed(3)
    for p in f.parameters():
        torch.nn.init.normal_(p, std=0.2)
    u = (torch.arange(100, dtype=D) + 0.5) / 100
    v = (1 + torch.cartesian_prod(u, u)).reshape(-1, 1, 1, 2) / 4  # the cell of x = (1, 1)
    with torch.no_grad():
        log_q = f(v)[1]
    assert (log_q.exp().mean() / 16).item() == pytest.approx(1, abs=1e-4)


# --- memory


def test_reversible_gradients_are_ordinary_gradients():
    torch.manual_seed(0)
    layers = [fl.Coupling(4, fl.Affine(), hidden=(16,), swap=k % 2 == 1, context_dim=2)
              for k in range(6)] + [fl.Planar(4), fl.ActNorm(4)]
    ordinary = fl.Compose(*layers).double()
    for p in ordinary.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    saving = fl.Reversible(*copy.deepcopy(list(ordinary.bijections))).double()
    for method in ("forward", "inverse"):
        gradients = []
        for f in (ordinary, saving):
            torch.manual_seed(1)
            value = torch.randn(7, 4, dtype=D, requires_grad=True)
            context = torch.randn(7, 2, dtype=D, requires_grad=True)
            out, log_det = getattr(f, method)(value, context)
            (out.square().sum() + 2 * log_det.sum()).backward()
            gradients.append([value.grad, context.grad, *(p.grad for p in f.parameters())])
            f.zero_grad()
        assert max((a - b).abs().max().item() for a, b in zip(*gradients)) < 1e-8


def test_reversible_keeps_one_activation_however_deep():
    def kept(chain, depth):
        sizes = []
        f = chain(*(fl.Coupling(8, fl.Affine(), hidden=(64,), swap=k % 2 == 1) for k in range(depth)))
        own = {p.data_ptr() for p in f.parameters()}

        def pack(t):
            if t.data_ptr() not in own:
                sizes.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            f.inverse(torch.randn(100, 8))
        return sum(sizes)

    assert kept(fl.Reversible, 20) == kept(fl.Reversible, 4) < kept(fl.Compose, 4) < kept(fl.Compose, 20) / 4


def test_glow_that_saves_memory_learns_alike():
    x = torch.randint(17, (16, 1, 8, 8)).to(torch.uint8)
    losses = []
    for save_memory in (False, True):
        torch.manual_seed(0)
        flow = fl.Glow((1, 8, 8), levels=17, scales=2, steps=2, hidden=8, save_memory=save_memory).double()
        flow.initialize(x)
        optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
        for step in range(5):
            torch.manual_seed(step)
            loss = -flow.log_prob(x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


# --- models


@pytest.mark.parametrize("make", [
    lambda: fl.Glow((3, 8, 8), levels=32, scales=2, steps=2, hidden=8, context_dim=10),
    lambda: fl.RealNVPImage((3, 8, 8), levels=32, scales=2, steps=2, hidden=8, context_dim=10),
    lambda: fl.RealNVPImage((3, 8, 8), levels=32, scales=1, steps=1, hidden=8, context_dim=10, norm="batch"),
    lambda: fl.FlowPlusPlus((3, 8, 8), levels=32, scales=1, steps=2, hidden=8, components=3, context_dim=10),
    lambda: fl.TarFlow((3, 8, 8), levels=32, layers=2, hidden=8, context_dim=10),
    lambda: fl.Jet((3, 8, 8), levels=32, layers=3, hidden=8, context_dim=10),
], ids=["Glow", "RealNVPImage", "RealNVPImage batch norm", "FlowPlusPlus", "TarFlow", "Jet"])
def test_image_models_end_to_end(make, tmp_path):
    flow = make()
    x = torch.randint(32, (20, 3, 8, 8)).to(torch.uint8)
    context = torch.eye(10)[torch.arange(20) % 10]
    flow.initialize(x, context)
    loss = -flow.log_prob(x, context).mean()
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in flow.parameters() if p.grad is not None)
    flow.eval()
    samples = flow.sample(3, context[:2], temperature=0.7)
    assert samples.shape == (3, 2, 3, 8, 8) and samples.dtype == torch.uint8 and samples.max() < 32
    assert torch.equal(flow.decode(flow.encode(x, context), context), x) and flow.likelihood == "bound"
    fl.save(flow, tmp_path)
    again = fl.load(tmp_path).eval()
    torch.manual_seed(0)
    log_p = flow.log_prob(x, context)
    torch.manual_seed(0)
    assert torch.equal(log_p, again.log_prob(x, context))


def test_glow_normalises_its_first_batch():
    flow = fl.Glow((1, 8, 8), levels=17, scales=2, steps=3, hidden=8)
    x = torch.randint(17, (200, 1, 8, 8)).to(torch.uint8)
    flow.initialize(x)
    z = flow.encode(x)
    assert z.mean().abs() < 0.05 and abs(z.std().item() - 1) < 0.05
    assert math.isclose(fl.bits_per_dim(flow.log_prob(x), 64).mean().item(), math.log2(17), abs_tol=0.4)
