"""Conditioners: the neural networks that compute a layer's parameters. They need not be invertible."""
