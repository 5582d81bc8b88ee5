"""Weights in: formats of files, names, loading."""
