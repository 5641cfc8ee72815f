"""What dequantized pixels become before a flow sees them: a choice of the data set, the same for all its models."""
from __future__ import annotations

from ..core import Bijection, Inverse
from ..maps import AffineMap, Logit

__all__ = ["DEFAULTS", "preprocessing"]

# For each data set. Black pixels of MNIST need a density that can be high near 0, so a small alpha; photographs do not.
DEFAULTS = {"digits": 0.05, "mnist": 1e-5, "mnist-small": 1e-5, "fashion-mnist": 1e-5, "fashion-mnist-small": 1e-5,
            "cifar10": 0.05, "cifar10-small": 0.05}
FOLDER = 0.05  # for a folder of images


def preprocessing(name: str | float, ndim: int = 3) -> list[Bijection]:
    r"""The maps between pixels $v \in [0, 1]$ and what a flow models, in the generative direction; log-dets count.

    Args:
        name: "scale": v itself, so no map at all. "centre": $v - 1/2$. "logit" or a number $\alpha \in (0, 1/2)$:
            $\operatorname{logit}(\alpha + (1 - 2\alpha) v)$, with $\alpha = 0.05$ for "logit" (Dinh et al. 2017,
            arXiv:1605.08803, section 4.1); for MNIST $10^{-6}$ is usual, too (Papamakarios et al. 2017,
            arXiv:1705.07057, appendix D).
        ndim: Number of axes of one image.

    Returns:
        No or one bijection.

    Raises:
        ValueError: Another name, or an alpha out of range.

    Example:
        >>> import torch; (centre,) = preprocessing("centre"); centre.inverse(torch.full((1, 1, 1), 0.75))[0].item()
        0.25
    """
    if name == "scale":
        return []
    if name == "centre":
        return [AffineMap(1.0, 0.5, ndim=ndim)]
    alpha = 0.05 if name == "logit" else name
    if isinstance(alpha, str) or not 0 < alpha < 0.5:
        raise ValueError(f'preprocess is "scale", "centre", "logit" or a number alpha in (0, 1/2), got {name!r}')
    return [Inverse(Logit(alpha, ndim=ndim))]
