"""Continuous flows: a velocity field in place of layers, and a solver that makes a map of it."""
