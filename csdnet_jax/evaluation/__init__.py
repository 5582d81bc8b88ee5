"""Figures over a whole part of a data set, and the baselines beside them."""
