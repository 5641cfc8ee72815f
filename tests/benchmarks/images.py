"""The same Glow in two libraries: scales, steps, networks and so parameter counts are equal, and no half's prior is
learned."""
import normflows
import torch

import flowlib

SHAPE, BATCH, SCALES, STEPS, HIDDEN = (3, 32, 32), 32, 3, 8, 64


def of_flowlib():
    """Pixels in, pixels out: dequantization is inside."""
    torch.manual_seed(0)
    flow = flowlib.Glow(SHAPE, scales=SCALES, steps=STEPS, hidden=HIDDEN, learn_prior=False)
    pixels = torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8)
    flow.initialize(pixels)
    return flow, lambda: flow.log_prob(pixels), lambda: flow.sample(BATCH)


def of_normflows():
    """Real numbers in and out."""
    torch.manual_seed(0)
    c, h, w = SHAPE
    flows, bases = [], []
    for scale in reversed(range(1, SCALES + 1)):  # the coarsest comes first
        channels = c * 2 ** (scale + 1)
        flows.append([normflows.flows.GlowBlock(channels, HIDDEN, scale_map="exp") for _ in range(STEPS)]
                     + [normflows.flows.Squeeze()])
        kept = channels if scale == SCALES else channels // 2
        bases.append(normflows.distributions.DiagGaussian((kept, h // 2**scale, w // 2**scale), trainable=False))
    flow = normflows.MultiscaleFlow(bases, flows, [normflows.flows.Merge() for _ in range(SCALES - 1)])
    images = torch.rand(BATCH, *SHAPE) - 0.5
    return flow, lambda: flow.log_prob(images, None), lambda: flow.sample(BATCH)


BUILDERS = {"flowlib": of_flowlib, "normflows": of_normflows}
