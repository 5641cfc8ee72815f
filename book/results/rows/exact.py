"""Cases whose answer is known in closed form: `python book/results/rows/exact.py CASE --seed 0` prints what flowlib
gives."""
import argparse
import math

import torch

import flowlib as fl

PIXELS = torch.arange(256, dtype=torch.uint8).reshape(16, 1, 4, 4)  # each of the 256 levels once


def identity(base):
    return fl.Flow(base, fl.AffineMap(1.0, 0.0))


def bits(flow):
    flow = flow.double()  # whose noise fills its cell to 10^-11
    return fl.bits_per_dim(flow.log_prob(PIXELS), 16).mean().item()


def uniform():
    """Uniformly dequantized pixels under a uniform base: log2 256 bits."""
    return bits(fl.Pixels(identity(fl.Uniform(torch.zeros(16), torch.ones(16))), (1, 4, 4)))


def logit():
    """The logistic density undoes the logit: what is left is the share of the unit interval that the preprocessing
    uses."""
    return bits(fl.Pixels(identity(fl.StandardLogistic(16)), (1, 4, 4), preprocess="logit"))


def mixture():
    """z = logit F(x) with a logistic base has the density F' of the mixture: log p against the sum over components."""
    log_weights, means, log_scales = torch.randn(3, 5).double()
    x = torch.linspace(-30, 30, 10001).double()
    log_f, log_g, log_slope = fl.numerics.log_mixture_cdf(x, log_weights, means, log_scales)
    log_p = fl.StandardLogistic(1).log_prob((log_f - log_g)[:, None]) + log_slope - log_f - log_g
    u = (x[:, None] - means) / log_scales.exp()
    component = -u - 2 * torch.nn.functional.softplus(-u) - log_scales
    return (log_p - torch.logsumexp(log_weights.log_softmax(0) + component, -1)).abs().max().item()


def planar():
    """f(f^-1(x)) - x: the inverse of planar maps that no closed formula gives."""
    flow = fl.Compose(*(fl.Planar(8) for _ in range(8))).double()
    x = 3 * torch.randn(10_000, 8).double()
    with torch.no_grad():
        return (flow(flow.inverse(x)[0])[0] - x).abs().max().item()


def log_det():
    """Log-dets of couplings against the determinant of the Jacobian that autograd gives."""
    errors = []
    for flow in (fl.RealNVP(8, hidden=(16,)).double(), fl.NSF(8, hidden=(16,)).double()):
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        errors.append(fl.checks.log_det_error(flow.bijection, torch.randn(64, 8).double()))
    return max(errors)


def integral():
    """The integral of the density over a box that holds nearly all of it."""
    flow = fl.Flow(fl.StandardNormal(2), fl.Compose(*(fl.Planar(2) for _ in range(4)))).double()
    return fl.checks.total_probability(flow, -12.0, 12.0)


def convolution():
    """H W ln|det W| against the determinant of the whole Jacobian."""
    return fl.checks.log_det_error(fl.InvertibleConv1x1((6, 4, 4)).double(), torch.randn(8, 6, 4, 4).double())


def published(log_density, dims, levels_per_unit):
    """Bits per dimension of a log-density on dequantized pixels that were scaled: each unit of x held so many
    levels."""
    return fl.bits_per_dim(log_density - dims * math.log(levels_per_unit), dims)


def nice_mnist():
    """Dinh et al. (2015, arXiv:1410.8516) scale pixels to [0, 1]: 256 levels a unit."""
    return published(1980.50, 784, 256)


def nice_cifar10():
    """Theirs lie in [-1, 1]: 128 levels a unit."""
    return published(5371.78, 3072, 128)


CASES = {case.__name__: case for case in (uniform, logit, mixture, planar, log_det, integral, convolution, nice_mnist,
                                          nice_cifar10)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    print(CASES[args.case]())
