"""flowlib: every normalizing flow of the book, small enough to read. A model is `Flow(base, bijection)`."""
from . import checks, data, numerics
from .bases import GaussianMixture, StandardLogistic, StandardNormal, Uniform
from .core import Bijection, Compose, Flow, Inverse, InversionError, load, save
from .coupling.coupling import Coupling
from .coupling.nice import NICE, DiagonalScale
from .coupling.nsf import NSF
from .coupling.realnvp import RealNVP
from .elementwise import Additive, Affine, Elementwise, RationalQuadraticSpline
from .finite.planar import Planar
from .images.dequantize import Dequantize, bits_per_dim
from .images.pixels import Pixels, Reshape
from .maps import AffineMap, Exp, InverseCDF, Linear, Logit, Permutation, Rotation
from .volumes import parallelepiped_volume, volume_by_counting

__version__ = "0.1.0"

__all__ = [
    "Additive", "Affine", "AffineMap", "Bijection", "Compose", "Coupling", "Dequantize", "DiagonalScale", "Elementwise", "Exp",
    "Flow", "GaussianMixture", "Inverse", "InverseCDF", "InversionError", "Linear", "Logit", "NICE", "NSF", "Permutation",
    "Pixels", "Planar", "RationalQuadraticSpline", "RealNVP", "Reshape", "Rotation", "StandardLogistic", "StandardNormal",
    "Uniform", "bits_per_dim", "checks", "data", "load", "numerics", "parallelepiped_volume", "save", "volume_by_counting",
]
