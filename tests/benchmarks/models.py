"""The same coupling flow in four libraries: equal widths, depth, bins, activation, and so equal parameter counts.

Each builder returns (module, log_prob, sample): log_prob(x) of (B, D) gives (B,), sample(n) gives (n, D).
"""
from functools import partial

import nflows.distributions
import nflows.flows
import nflows.transforms
import normflows
import torch
import zuko
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from torch import nn

import flowlib

HIDDEN, BINS, BOX = (64, 64), 8, 5.0
LAYERS = {"RealNVP": 8, "NSF": 4}
SPLINE = {"num_bins": BINS, "tails": "linear", "tail_bound": BOX}  # as nflows, and normflows after it, name them


class Net(nn.Sequential):
    """The conditioner for libraries that take any network: flowlib.nets.mlp.MLP's layers, and a context that none
    uses."""

    def __init__(self, inputs, outputs, **_):
        a, b = HIDDEN
        super().__init__(nn.Linear(inputs, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, outputs))

    def forward(self, x, context=None):
        return super().forward(x)


def of_flowlib(model, dim):
    options = {"bins": BINS, "box": BOX} if model == "NSF" else {}
    flow = getattr(flowlib, model)(dim, layers=LAYERS[model], hidden=HIDDEN, **options)
    return flow, flow.log_prob, flow.sample


def of_zuko(model, dim):
    spline = partial(zuko.transforms.MonotonicRQSTransform, bound=BOX)
    options = {"univariate": spline, "shapes": [(BINS,), (BINS,), (BINS - 1,)]} if model == "NSF" else {}
    flow = zuko.flows.NICE(dim, transforms=LAYERS[model], hidden_features=HIDDEN, **options)
    return flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,))


def of_nflows(model, dim):
    def layer(k):
        mask = torch.arange(dim) % 2 == k % 2
        if model == "RealNVP":
            return nflows.transforms.AffineCouplingTransform(mask, Net)
        return nflows.transforms.PiecewiseRationalQuadraticCouplingTransform(mask, Net, **SPLINE)

    transform = nflows.transforms.CompositeTransform([layer(k) for k in range(LAYERS[model])])
    flow = nflows.flows.Flow(transform, nflows.distributions.StandardNormal([dim]))
    return flow, flow.log_prob, flow.sample


class NormflowsSpline(normflows.flows.Flow):
    """What normflows' own spline layer does with the coupling of the same package, with the network of the others."""

    def __init__(self, dim, k):
        super().__init__()
        self.coupling = PiecewiseRationalQuadraticCoupling(torch.arange(dim) % 2 == k % 2, Net, **SPLINE)

    def forward(self, z, context=None):
        return self.coupling.inverse(z, context)

    def inverse(self, x, context=None):
        return self.coupling(x, context)


def of_normflows(model, dim):
    layers = []
    for k in range(LAYERS[model]):
        if model == "RealNVP":
            layers += [normflows.flows.AffineCouplingBlock(Net(dim // 2, dim)),
                       normflows.flows.Permute(dim, mode="swap")]
        else:
            layers.append(NormflowsSpline(dim, k))
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(dim, trainable=False), layers)
    return flow, flow.log_prob, lambda n: flow.sample(n)[0]


BUILDERS = {"flowlib": of_flowlib, "zuko": of_zuko, "nflows": of_nflows, "normflows": of_normflows}
