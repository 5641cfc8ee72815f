"""Elementwise maps, and the layer that gives each coordinate one of its own."""
