"""What the flags of all commands share: a mistake in them is a sentence."""

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
    blanks = ''
    if message.startswith('unrecognized'):  # argparse's words for what is left.
      blanks = ' (a name with blanks needs quotes around it)'
    raise UserError(
      f'{self.prog}: {message}{blanks}; {self.prog} --help says more.'
    )


def of_run(prog: str, description: str) -> Parser:
  """What all commands have in common that use a run."""
  made = Parser(prog, description)
  made.add_argument(
    '--run', required=True, metavar='DIR', help='the workdir of a trained run'
  )
  made.add_argument(
    '--checkpoint', choices=('last', 'best'), metavar='last|best',
    default='last',
    help='the state to use: the last, which is the default, or the one that '
    'was best on the validation part',
  )  # fmt: skip
  made.add_argument(
    '--data_root', metavar='DIR', default='',
    help="where the run's own images are now, if they were moved",
  )  # fmt: skip
  return made


def add_images(parser: Parser, number: str) -> None:
  """Adds IMAGES, `number` of them as argparse's nargs."""
  parser.add_argument(
    'images', nargs=number, metavar='IMAGES',
    help='files, folders (every picture in them, at any depth) or quoted globs',
  )  # fmt: skip


def add_distributed(parser: Parser) -> None:
  """Adds --distributed."""
  parser.add_argument(
    '--distributed', action='store_true',
    help='one of several processes: on a TPU pod, under SLURM, or with '
    'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID set',
  )  # fmt: skip
