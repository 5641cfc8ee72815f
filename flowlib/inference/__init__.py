"""Bayesian inference with flows: a posterior learned from simulations, its calibration, and problems whose answer is
known."""
from .calibration import c2st, coverage, ecdf_deviation, ranks, uniform_band
from .neural_posterior import Box, StandardizedContext, posterior
from .problems import SLCP, EightSchools, TwoMoons

__all__ = ["SLCP", "Box", "EightSchools", "StandardizedContext", "TwoMoons", "c2st", "coverage", "ecdf_deviation",
           "posterior", "ranks", "uniform_band"]
