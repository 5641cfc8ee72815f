"""Part V: residual maps, x plus a network: one that contracts, or one with a triangular Jacobian."""
