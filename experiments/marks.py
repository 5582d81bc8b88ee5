"""What programs write into a document, between two marks of it."""

import pathlib

from csdnet_jax.runtime.errors import UserError


def inside(path: pathlib.Path, name: str) -> str:
  """Returns what a file has between its marks, see `fill`."""
  return _parts(path, name)[1]


def fill(path: pathlib.Path, name: str, text: str) -> None:
  """Writes text between the marks of a file, in place of what is there.

  Args:
    path: of a document with the lines `<!-- name: begin -->` and
      `<!-- name: end -->`.
    name: of the marks.
    text: whole lines.

  Raises:
    UserError: if the file is absent, or one of its marks is.
  """
  head, _, tail = _parts(path, name)
  path.write_text(head + text + tail, encoding='utf-8')


def _parts(path, name):
  begin, end = (f'<!-- {name}: {word} -->\n' for word in ('begin', 'end'))
  whole = path.read_text(encoding='utf-8') if path.exists() else ''
  head, found, rest = whole.partition(begin)
  between, closed, tail = rest.partition(end)
  if not found or not closed:
    raise UserError(
      f'{path} has no line {begin.strip()} before one {end.strip()}; put both '
      'where the table belongs.'
    )
  return head + begin, between, end + tail
