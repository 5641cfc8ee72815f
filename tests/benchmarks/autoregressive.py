"""The same autoregressive flows in three libraries: equal widths, depth, bins and activation.

Each builder returns (module, log_prob, sample): log_prob(x) of (B, D) gives (B,), sample(n) gives (n, D). normflows is
left out: its masked affine layer runs the other way round, so that each training step would take D passes.
"""
from functools import partial

import nflows.distributions
import nflows.flows
import nflows.transforms
import zuko

import flowlib

# (model, D): layers, hidden, batch
SIZES = {("MAF", 64): (5, (256, 256), 512), ("MAF", 784): (1, (1024, 1024), 128),
         ("autoregressive NSF", 16): (4, (128, 128), 512)}
BINS, BOX = 8, 5.0


def of_flowlib(model, dim, layers, hidden):
    make = flowlib.MAF if model == "MAF" else partial(flowlib.NSF, autoregressive=True, bins=BINS, box=BOX)
    flow = make(dim, layers=layers, hidden=hidden)
    return flow, flow.log_prob, flow.sample


def of_zuko(model, dim, layers, hidden):
    spline = partial(zuko.transforms.MonotonicRQSTransform, bound=BOX)
    options = {"univariate": spline, "shapes": [(BINS,), (BINS,), (BINS - 1,)]} if model != "MAF" else {}
    flow = zuko.flows.MAF(dim, transforms=layers, hidden_features=hidden, **options)
    return flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,))


def of_nflows(model, dim, layers, hidden):
    options = {"features": dim, "hidden_features": hidden[0], "num_blocks": len(hidden) - 1,
               "use_residual_blocks": False}

    def layer():
        if model == "MAF":
            return nflows.transforms.MaskedAffineAutoregressiveTransform(**options)
        return nflows.transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            **options, num_bins=BINS, tails="linear", tail_bound=BOX)

    parts = [part for _ in range(layers) for part in (nflows.transforms.ReversePermutation(dim), layer())]
    flow = nflows.flows.Flow(nflows.transforms.CompositeTransform(parts), nflows.distributions.StandardNormal([dim]))
    return flow, flow.log_prob, flow.sample


BUILDERS = {"flowlib": of_flowlib, "zuko": of_zuko, "nflows": of_nflows}
