"""Problem set 3, coupling flows on images: its open checks. The right answers, in `reference`, stay outside."""
from .checks import check_coupling, check_dequantization, check_mixing, check_mixture, check_step, show_experiment

__all__ = ["check_coupling", "check_dequantization", "check_mixing", "check_mixture", "check_step", "show_experiment"]
