"""A finite x, however large (fill values such as 1e20, 3e38), has a log-density that is finite or -inf, and never
NaN."""
import pytest
import torch
from registry import ENTRIES

import flowlib as fl

VECTORS = [e for e in ENTRIES if "integral" not in e.exempt or e.latents == "uniform"]  # the others are of images
VECTORS = [e for e in VECTORS if not any(isinstance(m, fl.Coupling) for m in e.make(8, None).modules())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("entry", VECTORS, ids=lambda e: e.name)
def test_large_inputs(entry, dtype):
    for dim in set(entry.dims) & {2, 8}:
        f = entry.bijection(dim, None, dtype).eval()
        signs = torch.stack([torch.ones(dim), -torch.ones(dim), (-1.0) ** torch.arange(dim),
                             torch.eye(dim)[0]]).to(dtype)
        sizes = torch.tensor([1e15, 2e19, 1e20, 1e30, 0.9 * torch.finfo(dtype).max], dtype=dtype)
        x = (sizes[:, None, None] * signs).flatten(0, 1)
        for g in (f, fl.Inverse(f)):
            log_p = fl.Flow(fl.StandardNormal(dim).to(dtype), g).log_prob(x)
            assert not log_p.isnan().any() and bool((log_p < torch.inf).all())


def test_a_layer_of_ones_own_that_overflows_far_out_has_density_zero_there():
    class Damped(fl.Bijection):
        def inverse(self, x, context=None):
            square = x * x
            return x * square / (1 + square), (square * (3 + square) / (1 + square) ** 2).log().sum(-1)

    log_p = fl.Flow(fl.StandardNormal(1), Damped()).log_prob(torch.tensor([[1.0], [1e30], [torch.nan]]))
    assert log_p[0].isfinite() and log_p[1] == -torch.inf and log_p[2].isnan()
