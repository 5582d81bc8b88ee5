"""Methods, sources and networks from outside this package, by module name."""

import importlib
import importlib.util
import os
import pathlib
import types
from collections.abc import Mapping
from typing import TypeVar

from csdnet_jax.runtime.errors import UserError, first_line
from csdnet_jax.runtime.fields import nearest

T = TypeVar('T')


def find(field: str, name: str, builtin: Mapping[str, T], kind: type[T]) -> T:
  """Returns what a field of the config names: ours, or a module's `SPEC`.

  A module is imported by its name alone, as `import` would find it, never from
  a path: what a config of somebody else can start is what is installed here.

  Args:
    field: that gives the name, such as 'config.method.name'.
    name: of `builtin`, or of an importable module that defines `SPEC`.
    builtin: ours, by name.
    kind: of the `SPEC`.

  Raises:
    UserError: if there is no such name and no such module, the module cannot be
      imported, or has no `SPEC` of that kind.
  """
  if name in builtin:
    return builtin[name]
  if not exists(name):
    raise UserError(
      f'{field} is {name!r}: neither one of {", ".join(builtin)} nor a module '
      f'that Python can import.{nearest(name, builtin)}'
    )
  module = load(name, f'{field} is {name!r}, but importing that module')
  spec = getattr(module, 'SPEC', None)
  if not isinstance(spec, kind):
    raise UserError(
      f'{field} is {name!r}, but that module defines no SPEC = '
      f'{kind.__name__}(...); add it, see docs/extend.md.'
    )
  return spec


def load(name: str, what: str) -> types.ModuleType:
  """Imports somebody's module.

  Args:
    name: of the module.
    what: is done, the beginning of the sentence that says that it failed.

  Raises:
    UserError: if it raises anything.
  """
  try:
    return importlib.import_module(name)
  except Exception as error:  # Whatever somebody's module raises.
    raise UserError(
      f'{what} failed ({type(error).__name__}: {first_line(error)}); mend it.'
    ) from error


def section(name: str) -> str:
  """Returns under which key the fields of `name` lie: its last part.

  >>> section('csdnet'), section('leaves.my_method')
  ('csdnet', 'my_method')
  """
  return name.rpartition('.')[2]


def exists(name: str) -> bool:
  """Returns whether Python would find a module of this name."""
  if not all(part.isidentifier() for part in name.split('.')):
    return False
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:
    return False
  except Exception:  # A package around it that fails: `find` says how.
    return True


def require_outside(name: str, workdir: str | os.PathLike) -> None:
  """Refuses a module that lies in a workdir: runs hold data, never code.

  Args:
    name: of a module.
    workdir: of the run that names it.

  Raises:
    UserError: if the module would be imported from there.
  """
  # The first part alone: looking for `a.b` would import `a`.
  package = name.partition('.')[0]
  spec = importlib.util.find_spec(package) if exists(package) else None
  if spec is None:
    return
  # A folder without an __init__.py is a package of no file.
  places = [spec.origin, *(spec.submodule_search_locations or ())]
  if any(_inside(place, workdir) for place in places):
    raise UserError(
      f'The run {workdir} names the module {name}, which Python finds inside '
      'the run itself; code is never imported from a run: install the module, '
      'or start elsewhere.'
    )


def _inside(place: str | None, folder: str | os.PathLike) -> bool:
  if not place or '://' in os.fspath(folder):
    return False
  root = pathlib.Path(folder).resolve()
  return pathlib.Path(place).resolve().is_relative_to(root)
