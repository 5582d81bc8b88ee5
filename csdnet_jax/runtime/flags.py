"""The flags of a command: a mistake in them is a sentence."""

import argparse

from csdnet_jax.runtime.errors import UserError


class Parser(argparse.ArgumentParser):
  """An `ArgumentParser` that ends in a sentence, and knows its flags."""

  def __init__(self, prog: str, description: str, usage: str | None = None):
    self.flags = []
    super().__init__(
      prog,
      usage,
      description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )

  def add_argument(self, *names, **kwargs):
    """As argparse's."""
    self.flags += [name for name in names if name.startswith('-')]
    return super().add_argument(*names, **kwargs)

  def error(self, message: str):
    """Raises what argparse would print with the usage."""
    raise UserError(f'{self.prog}: {message}; {self.prog} --help says more.')
