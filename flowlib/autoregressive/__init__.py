"""Autoregressive flows: each coordinate is moved by what came before it in an order."""
