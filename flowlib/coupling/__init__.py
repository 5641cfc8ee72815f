"""Coupling flows: one part of the event stays, and tells how to move the other."""
