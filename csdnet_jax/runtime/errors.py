"""The one exception that a user's mistake raises, and words for others."""

import unicodedata
from collections.abc import Iterable


class UserError(Exception):
  """What is wrong, where, and what to do about it, in one sentence.

  The command line prints the sentence alone and exits with status 2; every
  other exception is a defect of ours and keeps its traceback.
  """


def first_line(error: BaseException) -> str:
  """Returns what an exception says in its first line; its type if nothing.

  >>> first_line(KeyError('queue')), first_line(AssertionError())
  ('queue', 'AssertionError')
  """
  quoted = isinstance(error, KeyError) and error.args
  text = str(error.args[0] if quoted else error)
  return (text.splitlines() or [type(error).__name__])[0]


def preview(names: Iterable[str], n: int = 10) -> str:
  """The first n names, and how many there are, for an error's sentence.

  >>> preview('abc'), preview(map(str, range(12)))
  ('a, b, c', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more, 12 in all')
  """
  names = list(map(printable, names))
  more = len(names) - n
  rest = f' and {more} more, {len(names)} in all' if more > 0 else ''
  return ', '.join(names[:n]) + rest


def counted(n: int, what: str) -> str:
  """A number and what it is of; one has its first word and its verbs singular.

  Args:
    n: the number.
    what: starts with a noun in the plural.

  >>> counted(2, 'images are black'), counted(1, 'images are black')
  ('2 images are black', '1 image is black')
  """
  if n != 1:
    return f'{n} {what}'
  noun, *rest = what.split(' ')
  noun = noun.removesuffix('es' if noun.endswith('sses') else 's')
  return ' '.join(['1', noun, *(_OF_ONE.get(word, word) for word in rest)])


# The verbs that this program says of what it counts.
_OF_ONE = {
  'are': 'is', 'have': 'has', 'were': 'was', 'look': 'looks', 'lie': 'lies',
  'disagree': 'disagrees',
}  # fmt: skip


def capitalised(text: str) -> str:
  """The text as a sentence begins; capitals within it stay.

  >>> capitalised('a probe of CSDNet')
  'A probe of CSDNet'
  """
  return f'{text[:1].upper()}{text[1:]}'


def printable(text: str) -> str:
  """The text on one line: what would break it, or is none, becomes an escape.

  >>> print(printable('a' + chr(10) + 'b'), printable('été'))
  a\\nb été
  """
  return ''.join(
    ascii(c)[1:-1] if unicodedata.category(c) in _BREAKING else c for c in text
  )


# Controls, halves of characters, and separators of lines and paragraphs.
_BREAKING = ('Cc', 'Cs', 'Zl', 'Zp')
