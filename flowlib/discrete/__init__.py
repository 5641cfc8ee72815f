"""Flows over categories, graphs and molecules."""
