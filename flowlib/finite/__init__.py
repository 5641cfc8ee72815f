"""Finite flows: a fixed formula with a few parameters, after Rezende and Mohamed (2015) and their successors."""
