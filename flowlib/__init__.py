"""flowlib: every normalizing flow of the book, small enough to read. A model is `Flow(base, bijection)`."""
from typing import TYPE_CHECKING

from . import actor_critic, checks, data, inference, numerics, policies, vae
from .adapters import FlowTransform, FromDistribution, FromTransform
from .autoregressive.bernoulli import BernoulliMADE, OrderAgnostic
from .autoregressive.iaf import IAF, GatedAffine
from .autoregressive.layer import MaskedAutoregressive
from .autoregressive.maf import MAF
from .autoregressive.naf import NAF
from .autoregressive.sequential import TemporalAffine
from .autoregressive.state_space import LinearStateSpace, SequentialVAE
from .autoregressive.tarflow import CausalTransformer, TarFlow
from .bases import Base, ConditionalNormal, GaussianMixture, StandardLogistic, StandardNormal, Uniform
from .continuous import ode
from .continuous.ffjord import ContinuousFlow
from .continuous.layer import ContinuousLayer
from .continuous.matching import FlowMatching
from .core import Bijection, Compose, Flow, Inverse, InversionError, load, save
from .coupling.flowpp import FlowPlusPlus
from .coupling.glow import Glow
from .coupling.image import ImageCoupling
from .coupling.jet import Jet, PatchCoupling
from .coupling.nice import NICE
from .coupling.nsf import NSF
from .coupling.realnvp import RealNVP, RealNVPImage
from .coupling.sets import SetCoupling
from .coupling.vector import Coupling
from .describe import summary
from .discrete import molecules
from .discrete.autoregressive import CategoricalMAF
from .discrete.categorical import CategoricalFlow
from .discrete.encodings import CategoricalEncoding, FactorisedEncoding, VariationalEncoding
from .discrete.graphaf import GraphAF
from .discrete.graphnvp import GraphNVP
from .discrete.graphs import Graphs
from .distribution import FlowDistribution
from .elementwise.affine import Additive, Affine, SigmoidAffine
from .elementwise.base import Elementwise, ElementwiseMap
from .elementwise.categorical import CategoricalCDF
from .elementwise.mixture import GaussianMixtureCDF, LogisticMixtureCDF
from .elementwise.sigmoidal import DeepSigmoid, DenseDeepSigmoid
from .elementwise.spline import RationalQuadraticSpline
from .evaluate import importance, latents
from .finite.householder import Householder
from .finite.linear_iaf import ConvexLinearIAF, LinearIAF
from .finite.planar import Planar
from .finite.radial import Radial
from .finite.sylvester import Sylvester
from .gaussianization.copula import Correlation, GaussianCopula
from .gaussianization.flow import GaussianizationFlow
from .gaussianization.layer import DataRotation, MarginalGaussianization
from .gaussianization.rbig import RBIG
from .images.conv1x1 import InvertibleConv1x1
from .images.dequantize import Dequantize, bits_per_dim
from .images.multiscale import MultiScale, scale_shapes
from .images.norms import ActNorm, BatchNorm, DiagonalScale
from .images.pixels import Pixels
from .images.reshape import Reshape
from .images.squeeze import Squeeze, checkerboard
from .images.variational import VariationalDequantize
from .maps import AffineMap, Exp, InverseCDF, Linear, Logit, Permutation, Rotation, Tanh
from .nets.lipschitz import spectral_bound
from .nets.made import MADE
from .residual.block import ResidualBlock
from .residual.iresnet import IResNet, ResidualFlow, ResidualFlowImage
from .residual.log_det import estimate_log_det, truncation_bound
from .residual.mint import MintLayer
from .residual.mintnet import MintNet
from .reversible import Reversible
from .saving import check_saveable
from .teach import targets
from .teach.volumes import parallelepiped_volume, volume_by_counting

if TYPE_CHECKING:
    from .teach import viz as viz

__version__ = "0.1.0"

__all__ = [
    "ActNorm", "Additive", "Affine", "AffineMap", "Base", "BatchNorm", "BernoulliMADE", "Bijection", "CategoricalCDF",
    "CategoricalEncoding", "CategoricalFlow", "CategoricalMAF", "CausalTransformer", "Compose", "ConditionalNormal",
    "ContinuousFlow", "ContinuousLayer", "ConvexLinearIAF", "Correlation", "Coupling", "DataRotation", "DeepSigmoid",
    "DenseDeepSigmoid", "Dequantize", "DiagonalScale", "Elementwise", "ElementwiseMap", "Exp", "FactorisedEncoding",
    "Flow", "FlowDistribution", "FlowMatching", "FlowPlusPlus", "FlowTransform", "FromDistribution", "FromTransform",
    "GatedAffine", "GaussianCopula", "GaussianMixture", "GaussianMixtureCDF", "GaussianizationFlow", "Glow", "GraphAF",
    "GraphNVP", "Graphs", "Householder", "IAF", "IResNet", "ImageCoupling", "Inverse", "InverseCDF", "InversionError",
    "InvertibleConv1x1", "Jet", "Linear", "LinearIAF", "LinearStateSpace", "LogisticMixtureCDF", "Logit", "MADE", "MAF",
    "MarginalGaussianization", "MaskedAutoregressive", "MintLayer", "MintNet", "MultiScale", "NAF", "NICE", "NSF",
    "OrderAgnostic", "PatchCoupling", "Permutation", "Pixels", "Planar", "RBIG", "Radial", "RationalQuadraticSpline",
    "RealNVP", "RealNVPImage", "Reshape", "ResidualBlock", "ResidualFlow", "ResidualFlowImage", "Reversible",
    "Rotation", "SequentialVAE", "SetCoupling", "SigmoidAffine", "Squeeze", "StandardLogistic", "StandardNormal",
    "Sylvester", "Tanh", "TarFlow", "TemporalAffine", "Uniform", "VariationalDequantize", "VariationalEncoding",
    "actor_critic", "bits_per_dim", "check_saveable", "checkerboard", "checks", "data", "estimate_log_det",
    "importance", "inference", "latents", "load", "molecules", "numerics", "ode", "parallelepiped_volume", "policies",
    "save", "scale_shapes", "spectral_bound", "summary", "targets", "truncation_bound", "vae", "volume_by_counting",
]


def __getattr__(name: str):
    """`flowlib.viz` at its first use: it needs Matplotlib, which nothing else does."""
    if name == "viz":
        from .teach import viz
        return viz
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
