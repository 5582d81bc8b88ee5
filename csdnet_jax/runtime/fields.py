"""Fields of a config: each with its default and what it may be."""

import difflib
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from csdnet_jax.runtime.errors import UserError


class Field(NamedTuple):
  """One field: its default, and what else it may be.

  Attributes:
    default: its value where nobody says another; its type is the field's.
    low: the least number allowed, or None. Where the default is a pair, the
      value must be two numbers in order, both of them within the bounds.
    high: the largest number allowed, or None.
    choices: the values allowed, or None.
  """

  default: Any
  low: float | None = None
  high: float | None = None
  choices: tuple | None = None


Fields = Mapping[str, 'Field | Fields']


class Values(Mapping):
  """Nested values, read as attributes or as items, that nobody changes.

  A config as plain data: it takes any value, also one that JAX traces.

  >>> values = Values({'optim': {'lr': 0.1}})
  >>> values.optim.lr, values['optim']['lr']
  (0.1, 0.1)
  """

  __slots__ = ('_values',)

  def __init__(self, nested: Mapping[str, Any]):
    values = {
      key: Values(value) if isinstance(value, Mapping) else value
      for key, value in nested.items()
    }
    object.__setattr__(self, '_values', values)

  def __getitem__(self, key: str) -> Any:
    return self._values[key]

  def __getattr__(self, key: str) -> Any:
    # A copy is made before there are values, and asks for its own methods.
    if key == '_values' or key not in self._values:
      raise AttributeError(f'The config has no field {key!r}.')
    return self._values[key]

  def __setattr__(self, key: str, value: Any) -> None:
    raise AttributeError(f'{key} is read here, not set: change the config.')

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)


def is_zero(value: Any) -> bool:
  """Returns whether a number is zero; one that JAX traces never is.

  For what a zero leaves out of a program: runs that share one program agree in
  what is zero, and only other numbers of theirs are traced.
  """
  return isinstance(value, numbers.Real) and value == 0


def defaults(fields: Fields) -> dict[str, Any]:
  """Returns {name: default}, nested as the fields are.

  >>> defaults({'lr': Field(0.1, low=0), 'data': {'root': Field('')}})
  {'lr': 0.1, 'data': {'root': ''}}
  """
  return {
    name: field.default if isinstance(field, Field) else defaults(field)
    for name, field in fields.items()
  }


def flat(nested: Mapping, prefix: str = '') -> dict[str, Any]:
  """Returns {'a.b': value} of nested mappings.

  >>> flat({'lr': 0.1, 'data': {'root': ''}})
  {'lr': 0.1, 'data.root': ''}
  """
  found = {}
  for key, value in nested.items():
    if isinstance(value, Mapping):
      found |= flat(value, f'{prefix}{key}.')
    else:
      found[prefix + key] = value
  return found


def nearest(word: str, words: Iterable[str]) -> str:
  """Returns ' Did you mean "x"?' for the closest of words, or ''."""
  close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
  return f' Did you mean "{close[0]}"?' if close else ''


def check(fields: Fields, values: Mapping[str, Any]) -> None:
  """Checks values against their fields.

  Args:
    fields: nested.
    values: {'a.b': value} of each of them.

  Raises:
    UserError: for a value that its field does not allow.
  """
  for key, field in flat(fields).items():
    _check(key, field, values[key])


def _check(key: str, field: Field, value) -> None:
  if field.choices is not None and value not in field.choices:
    hint = nearest(str(value), map(str, field.choices))
    raise UserError(
      f'config.{key} is {value!r}, but must be one of '
      f'{", ".join(map(repr, field.choices))}.{hint}'
    )
  low, high = field.low, field.high
  bounded = low is not None or high is not None
  if isinstance(field.default, tuple):
    pair = value if isinstance(value, (tuple, list)) else ()
    if bounded and not (
      len(pair) == 2
      and all(_lies(x, low, high) for x in pair)
      and pair[0] <= pair[1]
    ):
      raise UserError(
        f'config.{key} is {value!r}, but must be two numbers in order'
        f'{_range(low, high, " between {} and {}", ", each ")}.'
      )
  elif (bounded or _is_number(field.default)) and not _lies(value, low, high):
    shown = f'{value:g}' if _is_number(value) else repr(value)
    allowed = _range(low, high, '{} to {}', '') if bounded else 'a number'
    raise UserError(f'config.{key} is {shown}, but must be {allowed}.')


def _is_number(value) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _lies(value, low: float | None, high: float | None) -> bool:
  """Whether value is a number between bounds, of which None is none."""
  return (
    _is_number(value)
    and (low is None or low <= value)
    and (high is None or value <= high)
  )


def _range(low, high, both: str, one: str) -> str:
  """Says the bounds: in `both`, or after `one` if there is one alone."""
  if low is None:
    return f'{one}{high:g} or less'
  if high is None:
    return f'{one}{low:g} or more'
  return both.format(f'{low:g}', f'{high:g}')
