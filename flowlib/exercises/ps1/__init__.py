"""Problem set 1, change of variables: its open checks. The right answers, in `reference`, stay outside."""
from .checks import check_banana, check_chain, check_low_rank, check_weibull, show_experiment

__all__ = ["check_banana", "check_chain", "check_low_rank", "check_weibull", "show_experiment"]
