"""Problem set 2, finite flows: its open checks. The right answers, in `reference`, stay outside."""
from .checks import (
    check_householder,
    check_planar,
    check_planar_inverse,
    check_posterior,
    check_radial,
    show_experiment,
)

__all__ = ["check_householder", "check_planar", "check_planar_inverse", "check_posterior",
           "check_radial", "show_experiment"]
