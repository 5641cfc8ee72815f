"""What a fitted flow is worth: likelihood, baselines without a flow, importance weights, latents, the round trip."""
from .baselines import gaussian_bits, histogram_bits
from .likelihood import bits, log_likelihood
from .reconstruction import RoundTrip, round_trip

__all__ = ["RoundTrip", "bits", "gaussian_bits", "histogram_bits", "log_likelihood", "round_trip"]
