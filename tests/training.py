"""What the tests of training share: data, a flow, and `fit` on one CPU without a progress bar."""
import functools
import math

import torch

from flowlib import RealNVP
from flowlib.train import NLL, fit

fit = functools.partial(fit, cpu=True, progress=False)


def blob(n=400, seed=0):
    """A correlated Gaussian, and its entropy in nats."""
    factor = torch.tensor([[2.0, 0.0], [1.5, 0.5]])
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) @ factor.T + torch.tensor([3.0, -1.0])
    return x, 1 + math.log(2 * math.pi) + factor.diagonal().log().sum().item()


def small(model=RealNVP, **options):
    torch.manual_seed(3)
    return model(2, layers=2, hidden=(16,), **options)


def weights(flow):
    return torch.cat([p.detach().flatten() for p in flow.parameters()])


class Fails(NLL):
    """Loss or gradient becomes NaN at one step."""

    def __init__(self, flow, step, gradient):
        super().__init__(flow)
        self.step, self.gradient, self.calls = step, gradient, 0

    def forward(self, x, context=None):
        loss = super().forward(x, context)
        if self.training:
            self.calls += 1
            if self.calls == self.step + 1:
                return loss + (0 * loss).sqrt() if self.gradient else loss * math.nan
        return loss
