"""Sampling by units: what D passes of a masked network compute, with each hidden unit computed once."""
from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from ..elementwise.base import ElementwiseMap, readable
from ..nets.made import MADE

__all__ = ["by_units"]

BLOCK = 8  # steps after which what they found is added to all later units by one large product


def by_units(net: MADE, elementwise: ElementwiseMap, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The x with x_i = g(z_i; theta_i(x before i)), for theta read by a `MADE`.

    A unit of degree m is known as soon as the inputs of rank up to m are. Units lie in the order of their degrees, rows
    of the batch along the last axis, so that those that become known together lie together in memory. What is known is
    pushed to the sums of those that read it: within a block of `BLOCK` steps at once, to all later ones when the block
    is complete. Nothing is written in place, so all derivatives pass.

    Args:
        net: The network, D inputs.
        elementwise: g.
        z: (N, D).
        context: (N, C), or None.

    Returns:
        x and ln g'(z), (N, D) each. Cost: the work of one pass of the network, in D steps.
    """
    dim, n = net.dim, net.n_params
    order = net.rank.argsort()
    first, *others = net.layers
    # the outputs for the first coordinate of the order come first
    last, last_bias = (t.unflatten(0, (n, dim))[:, order].transpose(0, 1).flatten(0, 1)
                       for t in (net.last.masked, net.last.bias))
    weights = [first.masked[:, order[: net.reads]], *(layer.masked for layer in others), last]
    sums = [bias[:, None].expand(-1, len(z)) for bias in (*(layer.bias for layer in net.layers), last_bias)]
    if net.context is not None:
        sums[0] = sums[0] + net.context(context).T
    ranks = range(net.lowest, dim)  # what each step makes known: one coordinate, or the units of degree -1
    counts = [[int(0 <= r < net.reads) for r in ranks],
              *([degrees.count(r) for r in ranks] for degrees in (net.degrees(len(w)) for w in weights[:-1])),
              [n * (r >= 0) for r in ranks]]
    ends = [[0, *accumulate(c)] for c in counts]

    z = z.T[order]
    found = []
    for start in range(0, len(ranks), BLOCK):
        stop = min(start + BLOCK, len(ranks))
        sizes = [end[stop] - end[start] for end in ends]  # of this block, in the inputs and each layer
        own, later = map(list, zip(*(s.split([size, len(s) - size]) for s, size in zip(sums, sizes[1:]))))
        inner, outer = zip(*(w[outs[start] :, ins[start] : ins[stop]].split([size, outs[-1] - outs[stop]])
                             for w, size, ins, outs in zip(weights, sizes[1:], ends, ends[1:])))
        known = [[] for _ in weights]  # what each layer reads
        for k in range(start, stop):
            fresh = z[:0]
            if ranks[k] >= 0:
                params, own[-1] = own[-1].split([n, len(own[-1]) - n])
                found.append(elementwise.forward(z[ranks[k]], params.T.to(z.dtype)))
                fresh = readable(found[-1][0])[None][: counts[0][k]]
            for i, w in enumerate(inner):
                known[i].append(fresh)
                if len(fresh) and len(own[i]):
                    column = ends[i][k] - ends[i][start]
                    own[i] = torch.addmm(own[i], w[len(w) - len(own[i]) :, column : column + len(fresh)], fresh)
                if i < len(inner) - 1:
                    ready, own[i] = own[i].split([counts[i + 1][k], len(own[i]) - counts[i + 1][k]])
                    fresh = fresh + ready.relu() if net.residual and i else ready.relu()
        sums = [torch.addmm(s, w, torch.cat(parts)) for s, w, parts in zip(later, outer, known)]
    x, log_slope = (torch.stack(column)[net.rank].T for column in zip(*found))
    return x, log_slope
