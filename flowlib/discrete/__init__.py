"""Flows over categories."""
