"""One registry of every bijection and model. The laws (laws.py) run over all of it; what a law cannot ask of an entry
is recorded here with its reason."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

import flowlib as fl

DIMS = (1, 2, 3, 8)


@dataclass(frozen=True, eq=False)
class Entry:
    name: str
    make: Callable  # make(dim, context_dim) -> Bijection, after torch.manual_seed
    dims: tuple[int, ...] = DIMS
    context: bool = False  # whether make takes a context_dim
    latents: str = "normal"  # where z lives: "normal" (all of R^D) or "uniform" (the unit cube)
    volume_preserving: bool = False
    scale: float = 2.0  # of the parameters, over their initial law
    layers: int = 1  # how many layers one object stacks
    spread: float = 1.0  # standard deviation of the base in the integral
    grid: int = 401  # points an axis in the integral: more for densities with sharp ridges
    exempt: dict[str, str] = field(default_factory=dict)  # law -> why it cannot apply

    def bijection(self, dim, context_dim=None, dtype=torch.float64, scale=None, seed=0):
        """The entry's map with parameters drawn at random: no zero-initialised layer hides an error."""
        torch.manual_seed(100 * seed + dim)
        made = self.make(dim, context_dim).to(dtype)
        randomise(made, self.scale if scale is None else scale)
        return made

    def z(self, bijection, dim, n=16):
        shape = bijection.latent_shape or (dim,)
        dtype = dtype_of(bijection)
        return torch.rand(n, *shape, dtype=dtype) if self.latents == "uniform" else torch.randn(n, *shape, dtype=dtype)

    def flow(self, dim, context_dim=None, dtype=torch.float64):
        bijection = self.bijection(dim, context_dim, dtype, scale=1.0)
        if self.latents == "uniform":
            return fl.Flow(fl.Uniform(torch.zeros(dim), torch.ones(dim)).to(dtype), bijection)
        shape = bijection.latent_shape or (dim,)
        spread = fl.AffineMap(self.spread, 0.0, ndim=len(shape))
        return fl.Flow(fl.StandardNormal(*shape).to(dtype), fl.Compose(spread, bijection))


def dtype_of(module):
    """The dtype of the parameters or buffers; float64 for a map that has none."""
    return next((t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.float64)


def randomise(module, scale=1.0):
    """Initial parameters times `scale`; those that start at zero from the law that torch's own layers start from."""
    with torch.no_grad():
        for p in module.parameters():
            if p.numel() and not p.any():
                p.uniform_(-1, 1).mul_((p[0].numel() if p.ndim in (2, 4) else 4) ** -0.5)
            p.mul_(scale)
        for m in module.modules():
            if hasattr(m, "initialized"):
                m.initialized.fill_(True)


def chain(*makers):
    return lambda dim, context_dim: fl.Compose(*(make(dim, context_dim) for make in makers))


def coupling(elementwise, swap=False):
    return lambda dim, c: fl.Coupling(dim, elementwise, hidden=(16,), swap=swap, context_dim=c)


def autoregressive(elementwise, **options):
    return lambda d, c: fl.MaskedAutoregressive(d, elementwise, hidden=(16, 16), context_dim=c, **options)


def model(cls, **options):
    return lambda dim, c: cls(dim, hidden=(16, 16), context_dim=c, **options).bijection


def on_images(make, size=4):
    """An image layer as an entry: dim counts the channels of a (dim, size, size) image."""
    return lambda dim, c: make((dim, size, size), c)


def body(cls, parts=1, **options):
    """The deterministic part of an image model: all but preprocessing and dequantization."""
    options = {"hidden": 8} | options
    return lambda shape, c: fl.Compose(*cls(shape, context_dim=c, **options).bijection.bijections[:parts])


def used_batch_norm(shape):
    layer = fl.BatchNorm(shape).eval()
    layer.var.fill_(2.0)
    layer.mean.fill_(0.5)
    return layer


def mixing(shape):
    """Off its start, which is a rotation with log-det zero."""
    layer = fl.InvertibleConv1x1(shape)
    layer.log_s.data += 0.2
    return layer


IMAGE = {"integral": "quadrature is for two dimensions; the layers' vector forms are integrated"}
EVAL = {"eval": "batch normalisation differs between training and evaluation, by definition: test_image_layers"}
OVERFLOWS = {"deep": "a tower of exponentials overflows by its nature"}
RECOMPUTES = {"vmap": "the transforms of torch.func cannot pass a Reversible, which says so: test_reversible"}
BOUNDED = {"deep": "its domain is the unit cube, so it cannot follow itself"}
SATURATES = {"deep": "its codomain is the cube, so it cannot be undone at any z; far out it is in test_policies"}
JUMPS = {"integral": "a density with jumps, summed up in test_discrete",
         "half": "rounding moves a point across a jump of the density"}
MANY = (2, 3, 8)

ENTRIES = [
    Entry("AffineMap numbers", lambda d, c: fl.AffineMap(-1.7, 0.3)),
    Entry("AffineMap tensors", lambda d, c: fl.AffineMap(torch.linspace(-2, -0.7, d), torch.ones(d))),
    Entry("Exp", lambda d, c: fl.Exp(), spread=0.5, exempt=OVERFLOWS),
    Entry("Logit", lambda d, c: fl.Logit(), latents="uniform", exempt=BOUNDED),
    Entry("Logit alpha", lambda d, c: fl.Logit(alpha=0.05), latents="uniform", exempt=BOUNDED | {
        "integral": "x of the uniform base stop at logit(0.05): a density with a jump, see test_maps"}),
    Entry("Tanh", lambda d, c: fl.Tanh(), spread=0.5, exempt=SATURATES),
    Entry("InverseCDF normal",
          lambda d, c: fl.InverseCDF(torch.distributions.Normal(torch.full((d,), 0.5), torch.ones(d) * 2)),
          latents="uniform", exempt=BOUNDED),
    Entry("InverseCDF exponential", lambda d, c: fl.InverseCDF(torch.distributions.Exponential(torch.full((d,), 1.5))),
          latents="uniform", exempt=BOUNDED | {"integral": "a density with a jump at 0, see test_maps"}),
    Entry("Box", lambda d, c: fl.inference.Box(torch.linspace(-2, 0, d), torch.linspace(1, 3, d)),
          exempt={"deep": "its codomain is a box, so it cannot follow itself"}),
    Entry("StandardizedContext", lambda d, c: fl.inference.StandardizedContext(
        autoregressive(fl.Affine())(d, c), torch.full((c,), 0.3), torch.full((c,), 2.0)) if c else fl.AffineMap(2.0),
        context=True),
    Entry("FromTransform", lambda d, c: fl.FromTransform(torch.distributions.AffineTransform(
        torch.linspace(-1, 1, d), torch.linspace(-2, -0.7, d))), exempt={"save": "it is refused: test_distribution"}),
    Entry("Linear", lambda d, c: fl.Linear(torch.randn(d, d, dtype=torch.float64) + 2 * torch.eye(d))),
    Entry("Permutation", lambda d, c: fl.Permutation(d), volume_preserving=True),
    Entry("Rotation", lambda d, c: fl.Rotation(d), volume_preserving=True),
    Entry("Elementwise affine", lambda d, c: fl.Elementwise(d, fl.Affine(), context_dim=c), context=True),
    Entry("Elementwise spline", lambda d, c: fl.Elementwise(d, fl.RationalQuadraticSpline(box=3.0), context_dim=c),
          context=True, grid=1201),
    Entry("Elementwise network", lambda d, c: fl.Elementwise(d, fl.Affine(5.0), context_dim=c, hidden=(16,)),
          dims=(1, 3), context=True),
    Entry("Planar", lambda d, c: fl.Planar(d, context_dim=c), context=True),
    Entry("Radial", lambda d, c: fl.Radial(d, context_dim=c), context=True),
    Entry("Sylvester orthogonal", lambda d, c: fl.Sylvester(d, min(d, 3), "orthogonal", context_dim=c), context=True),
    Entry("Sylvester householder", lambda d, c: fl.Sylvester(d, min(d, 2), "householder", context_dim=c), context=True),
    Entry("Sylvester triangular", lambda d, c: fl.Sylvester(d, d, "triangular", context_dim=c, flip=True),
          context=True),
    Entry("Householder", lambda d, c: fl.Householder(d, 3, context_dim=c), dims=MANY, context=True,
          volume_preserving=True),
    Entry("LinearIAF", lambda d, c: fl.LinearIAF(d, context_dim=c), context=True, volume_preserving=True),
    Entry("ConvexLinearIAF", lambda d, c: fl.ConvexLinearIAF(d, 3, context_dim=c), dims=MANY, context=True,
          volume_preserving=True),
    Entry("Coupling additive", coupling(fl.Additive()), context=True, volume_preserving=True),
    Entry("Coupling affine", coupling(fl.Affine()), context=True),
    Entry("Coupling affine swapped", coupling(fl.Affine(), swap=True), context=True),
    Entry("Coupling spline", coupling(fl.RationalQuadraticSpline(bins=5, box=4.0)), context=True),
    Entry("Coupling masked", lambda d, c: fl.Coupling(d, fl.Affine(), hidden=(16,), context_dim=c, swap=True,
                                                      mask=torch.arange(d) % 2 == 0), dims=MANY, context=True),
    Entry("DiagonalScale", lambda d, c: fl.DiagonalScale(d)),
    Entry("Compose", chain(lambda d, c: fl.Linear(torch.eye(d) * 1.1), lambda d, c: fl.Planar(d, context_dim=c),
                           lambda d, c: fl.Coupling(d, fl.Affine(), hidden=(8,), context_dim=c)), context=True,
          layers=3),
    Entry("Inverse", lambda d, c: fl.Inverse(fl.Planar(d, context_dim=c)), context=True),
    Entry("NICE", model(fl.NICE), context=True, layers=4),
    Entry("RealNVP", model(fl.RealNVP, layers=4), context=True, layers=4),
    Entry("NSF", model(fl.NSF, layers=2), context=True, layers=2),
    Entry("MaskedAutoregressive affine", autoregressive(fl.Affine(), order="random"), context=True),
    Entry("MaskedAutoregressive residual", autoregressive(fl.Affine(), order="reversed", residual=True,
                                                          sampling="sweeps"), context=True),
    Entry("MaskedAutoregressive spline", autoregressive(fl.RationalQuadraticSpline(bins=5, box=4.0)), context=True),
    Entry("MaskedAutoregressive mixture", autoregressive(fl.LogisticMixtureCDF(3)), dims=(2, 3), context=True, exempt={
        "deep": "D root searches a layer, 64 times: as deep as the couplings of the same map, and slower"}),
    Entry("MAF", model(fl.MAF, layers=2), context=True, layers=2),
    Entry("IAF", model(fl.IAF, layers=2, gated=True), context=True, layers=2),
    Entry("NSF autoregressive", model(fl.NSF, layers=2, autoregressive=True), dims=(2, 3), context=True, layers=2),
    Entry("GaussianPolicy", model(fl.policies.GaussianPolicy), dims=(1, 3), context=True, scale=0.5, exempt=SATURATES),
    Entry("FlowPolicy", model(fl.policies.FlowPolicy, layers=2), dims=(1, 2, 3), context=True, scale=0.5, spread=0.3,
          exempt=SATURATES),
    Entry("NAF", model(fl.NAF, layers=2, units=4), dims=(2, 3), context=True, layers=2),
    Entry("NAF dense", model(fl.NAF, layers=1, units=3, dense=True), dims=(1, 3)),
    Entry("TemporalAffine", lambda d, c: fl.Compose(fl.Reshape((4, d), (4, d)), fl.TemporalAffine(
        d, lags=2, hidden=(8,), context_dim=c)), dims=(1, 2, 3), context=True, exempt=IMAGE),
    Entry("CausalTransformer", lambda d, c: fl.CausalTransformer((3, d), fl.Affine(), hidden=8, depth=1, heads=2,
                                                                 context_dim=c), dims=(1, 2, 3), context=True,
          exempt=IMAGE, scale=1.0),
    Entry("CausalTransformer reversed", lambda d, c: fl.CausalTransformer(
        (3, d), fl.RationalQuadraticSpline(3, 3.0), hidden=8, depth=1, heads=2, reverse=True, context_dim=c,
        sampling="sweeps"), dims=(3,), context=True, exempt=IMAGE | {"deep": "the affine one is stacked"}, scale=1.0),
    Entry("TarFlow", on_images(body(fl.TarFlow, layers=2, depth=1)), dims=(1,), context=True, layers=2, exempt=IMAGE,
          scale=1.0),
    Entry("Coupling sigmoid-affine", coupling(fl.SigmoidAffine()), context=True, exempt={
        "deep": "its scale has no bound; Jet's networks end in a normalisation, and its couplings are stacked"}),
    Entry("PatchCoupling channel", on_images(lambda s, c: fl.PatchCoupling(s, fl.SigmoidAffine(), hidden=8, depth=1,
                                                                           context_dim=c)), dims=(1, 3),
          context=True, exempt=IMAGE, scale=1.0),
    Entry("PatchCoupling spatial", on_images(lambda s, c: fl.PatchCoupling(
        s, fl.Affine(), patch=1, split="spatial", swap=True, hidden=8, depth=1, context_dim=c)), dims=(3,),
          context=True, exempt=IMAGE, scale=1.0),
    Entry("Jet", on_images(body(fl.Jet, layers=6, depth=1)), dims=(1,), context=True, layers=6, exempt=IMAGE,
          scale=1.0),
    Entry("ResidualBlock", lambda d, c: fl.ResidualBlock(d, hidden=(16, 16), context_dim=c), context=True),
    Entry("IResNet", model(fl.IResNet, layers=2), dims=(3,), layers=4),
    Entry("ResidualFlow", model(fl.ResidualFlow, layers=2), dims=(2,), context=True, layers=4),
    Entry("ResidualBlock image", on_images(lambda s, c: fl.ResidualBlock(s, hidden=(8, 8), context_dim=c,
                                                                         log_det="exact"), size=2), dims=(3,),
          context=True, exempt=IMAGE | {"deep": "64 searches, as for vectors and slower"}),
    Entry("ResidualFlowImage", on_images(body(fl.ResidualFlowImage, scales=1, steps=1, log_det="exact"), size=2),
          dims=(1,), layers=6, exempt=IMAGE, scale=1.0),
    Entry("ContinuousFlow", model(fl.ContinuousFlow, steps=2), dims=(1, 3), context=True, exempt={
        "deep": "at 3x the weights a step of the solver is no contraction, which is said: test_continuous"}),
    Entry("ContinuousFlow plane", model(fl.ContinuousFlow, steps=1), dims=(2,), grid=201),
    Entry("MintLayer", lambda d, c: fl.MintLayer(d, units=3, context_dim=c), dims=(1, 2, 3), context=True),
    Entry("MintLayer image", on_images(lambda s, c: fl.MintLayer(s, units=2, reverse=True, context_dim=c), size=2),
          dims=(1, 3), context=True, exempt=IMAGE | {"deep": "the vector form is stacked"}),
    Entry("MintNet", on_images(body(fl.MintNet, steps=1, hidden=2), size=2), dims=(1,), context=True, layers=5,
          exempt=IMAGE, scale=1.0),
    Entry("Elementwise categorical", lambda d, c: fl.Elementwise(d, fl.CategoricalCDF(5), context_dim=c), context=True,
          latents="uniform", exempt=BOUNDED | JUMPS),
    Entry("SetCoupling", lambda d, c: fl.SetCoupling((3, d), fl.LogisticMixtureCDF(3), hidden=8, context_dim=c),
          dims=(1, 2, 3), context=True, exempt=IMAGE, scale=1.0),
    Entry("SetCoupling swapped", lambda d, c: fl.SetCoupling((3, d), fl.Affine(), hidden=8, swap=True, context_dim=c),
          dims=(2, 3), context=True, exempt=IMAGE, scale=1.0),
    Entry("CategoricalFlow", lambda d, c: fl.CategoricalFlow(3, 4, dim=d, layers=2, hidden=8, components=2,
                                                             context_dim=c).bijection[:-1], dims=(2, 3), context=True,
          layers=2, exempt=IMAGE, scale=1.0),
    Entry("CategoricalMAF", lambda d, c: fl.CategoricalMAF(d, 3, hidden=(8,)).bijection[0], dims=MANY,
          latents="uniform", exempt=BOUNDED | JUMPS),
    Entry("Elementwise mixture", lambda d, c: fl.Elementwise(d, fl.LogisticMixtureCDF(3), context_dim=c), context=True),
    Entry("Elementwise Gaussian mixture", lambda d, c: fl.Elementwise(d, fl.GaussianMixtureCDF(3), context_dim=c),
          dims=(1, 3), context=True),
    Entry("Coupling mixture", coupling(fl.LogisticMixtureCDF(4)), context=True),
    Entry("Reversible", lambda d, c: fl.Reversible(*(
        fl.Coupling(d, fl.Affine(), hidden=(8,), swap=k % 2 == 1, context_dim=c) for k in range(4))),
          context=True, layers=4, exempt=RECOMPUTES),
    Entry("GaussianizationFlow", lambda d, c: fl.GaussianizationFlow(
        d, layers=2, components=3, context_dim=c).bijection, dims=(3,), context=True, layers=4),
    Entry("RBIG", lambda d, c: fl.RBIG(d, layers=2, components=3, rotation="ica").bijection, dims=(2,), layers=4),
    Entry("GaussianCopula", lambda d, c: fl.GaussianCopula(d, components=3).bijection, dims=(3,), layers=3),
    Entry("ActNorm", lambda d, c: fl.ActNorm(d)),
    Entry("ActNorm image", on_images(lambda s, c: fl.ActNorm(s)), exempt=IMAGE, scale=1.0),
    Entry("BatchNorm", lambda d, c: used_batch_norm(d), exempt=EVAL),
    Entry("BatchNorm image", on_images(lambda s, c: used_batch_norm(s)), exempt=IMAGE | EVAL),
    Entry("Squeeze", on_images(lambda s, c: fl.Compose(fl.Squeeze(s), fl.Inverse(fl.Squeeze(s)))), dims=(1, 2, 3),
          volume_preserving=True, exempt=IMAGE, scale=1.0),
    Entry("InvertibleConv1x1", on_images(lambda s, c: mixing(s)), dims=(2, 3, 8), exempt=IMAGE),
    Entry("ImageCoupling channel", on_images(lambda s, c: fl.ImageCoupling(s, fl.Affine(), hidden=8, context_dim=c)),
          dims=(2, 3),
          context=True, exempt=IMAGE, scale=1.0),
    Entry("ImageCoupling swapped",
          on_images(lambda s, c: fl.ImageCoupling(s, fl.Affine(), hidden=8, swap=True, context_dim=c,
                                                  net="residual")), dims=(2, 3), context=True, exempt=IMAGE, scale=1.0),
    Entry("ImageCoupling masked", on_images(lambda s, c: fl.ImageCoupling(s, fl.Affine(), hidden=8, context_dim=c,
                                                                          mask=torch.arange(4) < 2)), dims=(1, 2),
          context=True, exempt=IMAGE, scale=1.0),
    Entry("ImageCoupling checkerboard", on_images(lambda s, c: fl.ImageCoupling(
        s, fl.RationalQuadraticSpline(4, 3.0), hidden=8, mask="checkerboard", context_dim=c)),
          dims=(1, 2, 3), context=True,
          exempt=IMAGE, scale=1.0),
    Entry("ImageCoupling attention", on_images(lambda s, c: fl.ImageCoupling(
        s, fl.LogisticMixtureCDF(3), hidden=8, mask="checkerboard", context_dim=c, net="attention")), dims=(1, 3),
          context=True,
          exempt=IMAGE, scale=1.0),
    Entry("Glow", on_images(body(fl.Glow, scales=2, steps=2)), dims=(1, 3), context=True, layers=12, exempt=IMAGE,
          scale=1.0),
    Entry("Glow that saves memory", on_images(body(fl.Glow, scales=2, steps=2, save_memory=True)), dims=(1, 3),
          context=True,
          layers=12, exempt=IMAGE | RECOMPUTES, scale=1.0),
    Entry("RealNVPImage", on_images(body(fl.RealNVPImage, scales=1, steps=2)), dims=(1, 3), context=True, layers=8,
          exempt=IMAGE, scale=1.0),
    Entry("FlowPlusPlus", on_images(body(fl.FlowPlusPlus, parts=2, scales=1, steps=1, components=3)), dims=(1, 3),
          context=True,
          layers=3, exempt=IMAGE, scale=1.0),
]


def cases(law: str | None, dims=DIMS):
    """All (entry, dim, context width) of the registry that a law applies to, as pytest parameters; all there are for
    None."""
    import pytest

    found = []
    for entry in ENTRIES:
        if law in entry.exempt:
            continue
        for dim in dims:
            for width in (None, 3) if entry.context else (None,):
                if dim in entry.dims and (dim > 1 or width or not needs_context_in_one_dimension(entry)):
                    found.append(pytest.param(entry, dim, width, id=f"{entry.name}-{dim}"
                                              + ("-context" if width else "")))
    return found


def needs_context_in_one_dimension(entry):
    """A coupling of one coordinate has nothing but a context to read from."""
    try:
        entry.make(1, None)
    except ValueError:
        return True
    return False


def parameters(module: nn.Module):
    return [p for p in module.parameters() if p.numel()]
