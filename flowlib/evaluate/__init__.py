"""What a fitted flow is worth: bits per dimension, importance weights, baselines, latents, the round trip."""
