"""`report.html`: what a run is worth and why, on one page that needs no other.

`write` makes it of plain `Content`; `of_run` fills the content from a run.
"""

from csdnet_jax.pictures.report.content import Content, Leaf, Predictions
from csdnet_jax.pictures.report.page import write

__all__ = ['Content', 'Leaf', 'Predictions', 'write']
