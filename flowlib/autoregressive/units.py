"""Sampling by units: what D passes of a masked network compute, with each hidden unit computed once."""
from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from ..elementwise.base import ElementwiseMap, readable
from ..nets.made import MADE

__all__ = ["by_units"]

BLOCK = 16  # steps after which what they found is added to all later units by one large product


def by_units(net: MADE, elementwise: ElementwiseMap, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The x with x_i = g(z_i; theta_i(x before i)), for theta read by a `MADE`.

    A unit of degree m is known as soon as the inputs of rank up to m are. Units lie in the order of their degrees, rows
    of the batch along the last axis, so that those that become known together lie together in memory. Within a block of
    `BLOCK` steps a unit adds up what it reads of the block when its turn comes; to all units after the block the whole
    block is added at once. What is known takes the place of its own sum, where a gradient is wanted in a copy: all
    derivatives pass. Of a block a unit reads every row: those not yet known have weights of zero.

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
    outputs = (order[:, None] + dim * torch.arange(n, device=order.device)).flatten()
    weights = [first.masked[:, order[: net.reads]], *(layer.masked for layer in others), net.last.masked[outputs]]
    zeros = torch.zeros_like(z[:, 0] if context is None else z[:, 0] + context[:, 0])
    sums = [bias[:, None] + zeros for bias in (*(layer.bias for layer in net.layers), net.last.bias[outputs])]
    if net.context is not None:
        sums[0] = sums[0] + net.context(context).T
    ranks = range(net.lowest, dim)  # what each step makes known: one coordinate, or the units of degree -1
    widths = [Counter(net.degrees(len(layer.bias))) for layer in net.layers]
    counts = [[int(0 <= r < net.reads) for r in ranks], *([width[r] for r in ranks] for width in widths),
              [n * (r >= 0) for r in ranks]]

    in_place = not torch.is_grad_enabled()
    add, relu = (Tensor.addmm_, Tensor.relu_) if in_place else (torch.addmm, torch.relu)
    latents = z.T[order].unbind()  # one row a coordinate
    found = []
    for start in range(0, len(ranks), BLOCK):
        steps = [count[start : start + BLOCK] for count in counts]  # of this block, in the inputs and each layer
        sizes = [sum(count) for count in steps]
        own, sums = zip(*(s.split([size, len(s) - size]) for s, size in zip(sums, sizes[1:])))
        inner, outer, weights = zip(*(cut(w, size, columns) for w, size, columns in zip(weights, sizes[1:], sizes)))
        known = [zeros.expand(sizes[0], -1).clone(), *own]
        rows = [block.split(count) for block, count in zip(known, steps)]
        reads = [w.split(count) for w, count in zip(inner, steps[1:])]
        for k, r in enumerate(ranks[start : start + BLOCK]):
            fresh = latents[r][:0]
            if r >= 0:
                params = add(rows[-1][k], reads[-1][k], known[-2])
                found.append(elementwise.forward(latents[r], params.T.to(z.dtype)))
                fresh = readable(found[-1][0])[None]
            for i, count in enumerate(steps[:-1]):
                if not count[k]:
                    continue
                if i:
                    ready = relu(add(rows[i][k], reads[i - 1][k], known[i - 1]))
                    fresh = ready + fresh if net.residual and i > 1 else ready
                if in_place:
                    rows[i][k].copy_(fresh)
                else:
                    place = sum(count[:k])
                    known[i] = known[i].slice_scatter(fresh, 0, place, place + len(fresh))
        sums = [add(s, w, block) for s, w, block in zip(sums, outer, known)]
    x, log_slope = (torch.stack(column)[net.rank].T for column in zip(*found))
    return x, log_slope


def cut(weights: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a block's first rows read of its first columns, what all later rows read of them, and the rest."""
    block, rest = weights.split([columns, weights.shape[1] - columns], 1)
    inner, outer = block.split([rows, len(weights) - rows])
    return inner, outer, rest[rows:]
