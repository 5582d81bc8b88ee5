"""What is asked of each grid, and what its tables answer, in words."""

import pathlib
import tomllib
from collections.abc import Collection
from typing import NamedTuple

from csdnet_jax.runtime.errors import UserError


class Answer(NamedTuple):
  """The words above the tables of a grid.

  Attributes:
    question: their heading.
    answer: the paragraph under it.
  """

  question: str
  answer: str


def read(path: pathlib.Path, grids: Collection[str]) -> dict[str, Answer]:
  """Returns the words above each grid's tables.

  Args:
    path: of a TOML file with a table for each grid, of a `question` and an
      `answer`.
    grids: whose tables the report has.

  Raises:
    UserError: if it cannot be read, names a grid that the report does not
      have, lacks one that it has, or has other fields.
  """
  try:
    found = tomllib.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(
      f'--answers={path} cannot be read as TOML ({error}); name another file.'
    ) from error
  if amiss := sorted(found.keys() ^ set(grids)):
    raise UserError(
      f'--answers={path} must have the grids of the results; in one of the two '
      f'alone: {", ".join(amiss)}.'
    )
  for grid, words in found.items():
    if (
      not isinstance(words, dict)
      or words.keys() != set(Answer._fields)
      or not all(isinstance(x, str) and x.strip() for x in words.values())
    ):
      raise UserError(
        f'--answers={path}: [{grid}] needs the texts `question` and `answer`, '
        'and nothing else.'
      )
  # A paragraph may be written in several lines.
  return {
    grid: Answer(**{key: ' '.join(x.split()) for key, x in words.items()})
    for grid, words in found.items()
  }
