"""Stacks of finite flows that start from the same kind of parameters, in the libraries that have them: forward(z) gives
x, log-det.

A Sylvester layer has no counterpart to race (the libraries' one is amortised only, or wrong): it stands beside
flowlib's own planar maps, so that its ratio is the cost of a layer in planar maps.
"""
import normflows
from nflows.transforms.orthogonal import HouseholderSequence
from torch import nn

import flowlib

LAYERS, DIM, HIDDEN = 16, 64, (2, 8, 32)


class Chain(nn.Sequential):
    """normflows' own layers, as its reverse KL chains them: it offers no call that gives x and the log-det."""

    def forward(self, z):
        total = 0
        for layer in self:
            z, log_det = layer(z)
            total = total + log_det
        return z, total


def stack(layer, *args):
    return flowlib.Compose(*[layer(DIM, *args) for _ in range(LAYERS)])


FINITE = {
    "planar maps": {"flowlib": lambda: stack(flowlib.Planar),
                    "normflows": lambda: Chain(*[normflows.flows.Planar((DIM,)) for _ in range(LAYERS)])},
    "reflections": {"flowlib": lambda: flowlib.Householder(DIM, LAYERS),
                    "nflows": lambda: HouseholderSequence(DIM, LAYERS)},
} | {
    f"Sylvester layers, M = {m}": {"flowlib": lambda m=m: stack(flowlib.Sylvester, m),
                                   "planar maps": lambda: stack(flowlib.Planar)} for m in HIDDEN
}
