"""`csdnet train` and `csdnet evaluate`, and what config their flags make."""

import argparse
import importlib.machinery
import importlib.util
import os
import pathlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from csdnet_jax.config import NAMED, rename
from csdnet_jax.data.cache import cache_dir
from csdnet_jax.runtime import commands, environment, paths, processes
from csdnet_jax.runtime.errors import UserError, first_line
from csdnet_jax.runtime.fields import flat, nearest
from csdnet_jax.runtime.terminal import be_verbose, say
from csdnet_jax.training.dry_run import dry_run
from csdnet_jax.training.evaluate import evaluate_run
from csdnet_jax.training.restore import read_run
from csdnet_jax.training.train import train as train_run
from csdnet_jax.training.verdict.verdict import MINUTES, verdict

_INSTALLED = 'csdnet_jax.configs'


def train(args: argparse.Namespace) -> None:
  """Runs `csdnet train`; the fields of `args` are its flags."""
  if args.folder is None:
    config = resolve(args.config)
    if args.minutes is not None:
      raise UserError(
        '--minutes is of csdnet train FOLDER; how long one training takes its '
        'config says: --config.epochs.'
      )
  else:
    config = resolve([*of_folder(args.folder, args.config), *args.config])
    if args.profile:
      raise UserError(
        '--profile is of one training; give a --config, such as '
        f'--config=folder --config.data.root={args.folder}.'
      )
  if args.deterministic:
    # XLA reads it when the first device is asked for, which is yet to come.
    flag = '--xla_gpu_deterministic_ops=true'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'
  be_verbose(args.verbose)
  _start(config, args.distributed)
  workdir = paths.of(args.workdir or f'runs/{config.name}')
  with commands.explained(config):
    if args.folder is not None:
      say(f'Workdir: {workdir}')
      minutes = MINUTES if args.minutes is None else args.minutes
      verdict(
        config, workdir, minutes=minutes,
        given=fields_of(args.config), dry_run=args.dry_run,
      )  # fmt: skip
      return
    if args.dry_run:
      dry_run(config, workdir, verbose=args.verbose)
      return
    say(f'Workdir: {workdir}')
    train_run(config, workdir, profile=args.profile)


def fields_of(arguments: Sequence[str]) -> list[str]:
  """Returns the fields that `--config.key=value` arguments set, by name."""
  flag = '--config.'
  return [
    a.removeprefix(flag).partition('=')[0]
    for a in arguments
    if a.startswith(flag)
  ]


def evaluate(args: argparse.Namespace) -> None:
  """Runs `csdnet evaluate`; the fields of `args` are its flags."""
  workdir = paths.of(args.run)
  out = commands.out_path('--out', args.out, '.csv') if args.out else None
  known = read_run(workdir)
  config = override(known[0].copy_and_resolve_references(), args.config)
  _start(config, args.distributed)
  with commands.explained(config):
    evaluate_run(
      config, workdir, known=known, folder=args.folder or '',
      data_root=args.data_root, out=out, checkpoint=args.checkpoint,
    )  # fmt: skip


def _start(config, distributed: bool) -> None:
  if distributed:
    processes.join()
  commands.keep_compiled(cache_dir(config.data.cache) / 'xla')
  say(environment.device(), verbose=True)
  if idle := environment.idle_accelerator():
    say(idle, style='bold yellow')


def of_folder(folder: str, given: Sequence[str] = ()) -> list[str]:
  """Returns the flags that `csdnet train FOLDER` stands for."""
  if any(a.startswith('--config=') for a in given):
    raise UserError(
      f'Say what to train once: the folder {folder}, or a --config, whose '
      f'folder is set by --config.data.root={folder}.'
    )
  if not paths.is_remote(folder) and not os.path.exists(folder):
    hint = 'check the path'
    if folder in installed():
      hint = f'the config of that name is --config={folder}'
    raise UserError(f'There is no folder {folder}; {hint}.')
  # From the root, so that the run is the same from wherever it is used.
  root = paths.absolute(paths.resolve(paths.of(folder)))
  return [
    '--config=folder', f'--config.data.root={root}',
    f'--config.name={root.name or "folder"}',
  ]  # fmt: skip


# --------------------------------------------------------------- the config


def resolve(arguments: Sequence[str]) -> ml_collections.ConfigDict:
  """Returns the config that `csdnet train` makes of these flags.

  The folder of a config file that is not one of ours is put first on Python's
  path, so that what lies beside the file can be imported.

  Args:
    arguments: `--config=FILE`, the last one if there are several, or the name
      of an installed one; what stands behind a colon goes to its `get_config`.
      And `--config.key=value` for single fields.

  Raises:
    UserError: for a file that is absent, or a flag that is no field of it.
  """
  if '--config' in arguments:
    raise UserError('Write --config=FILE, without a space.')
  given = [a for a in arguments if a.startswith('--config=')]
  if not given:
    raise UserError(
      'Say what to train: a folder of images, or --config=FILE, such as '
      '--config=quickstart.'
    )
  path, colon, argument = given[-1].partition('=')[2].partition(':')
  file = find(path)
  try:
    config = _load(file, [argument] if colon else [])
  except UserError:
    raise
  except Exception as error:  # Whatever somebody's file raises.
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(error.__traceback__)
      if frame.filename == str(file)
    ]
    where = f'{path}, line {lines[-1]},' if lines else path
    raise UserError(
      f'{where} is no config file: {first_line(error)} '
      f'({type(error).__name__}).'
    ) from error
  return override(config, [a for a in arguments if a not in given])


def _load(file: pathlib.Path, argument: list[str]) -> ml_collections.ConfigDict:
  # By hand: config_flags loads a file in a way that Python has deprecated.
  loader = importlib.machinery.SourceFileLoader('config_file', str(file))
  spec = importlib.util.spec_from_loader(loader.name, loader)
  module = importlib.util.module_from_spec(spec)
  sys.modules[loader.name] = module
  loader.exec_module(module)
  config = module.get_config(*argument)
  if not isinstance(config, ml_collections.ConfigDict):
    raise TypeError(f'get_config returns a {type(config).__name__}')
  return config


def override(
  config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> ml_collections.ConfigDict:
  """Returns a config with some of its fields set by `--config.key=value`.

  Raises:
    UserError: for another argument, a field that is unknown, or a value of
      another type.
  """
  # What another method, source or network brings must be there to be set.
  given = dict(a.removeprefix('--config.').split('=', 1) for a in arguments
               if '=' in a)  # fmt: skip
  names = {
    word: given[named.field]
    for word, named in NAMED.items()
    if named.field in given
  }
  config = rename(config, **names) if names else config
  known = flat(config.to_dict())
  for argument in arguments:
    key = argument.partition('=')[0].removeprefix('--config.')
    if not argument.startswith('--config.'):
      raise UserError(
        f'Cannot use the argument {argument!r}; fields of the config are set '
        'by --config.key=value.'
      )
    if key not in known:
      raise UserError(f'The config has no field {key!r}.{nearest(key, known)}')
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=values, sys_argv=[*arguments]
    )
    values(['csdnet', *arguments])
  except (
    AttributeError, KeyError, TypeError, ValueError, flags.Error
  ) as error:  # fmt: skip
    raise UserError(
      f'{first_line(error)}; check --config and its fields.'
    ) from error
  return values.config


def find(path: str) -> pathlib.Path:
  """Returns a config file: of the disk, else one that is installed.

  Args:
    path: of a file; or NAME or configs/NAME.py, for an installed one.

  Raises:
    UserError: if there is neither.
  """
  name = path.removeprefix('configs/').removesuffix('.py')
  if pathlib.Path(path).is_file():
    file = pathlib.Path(path)
    folder = str(file.parent.resolve())
    ours = importlib.util.find_spec(_INSTALLED).submodule_search_locations
    if folder not in [*sys.path, *ours]:
      sys.path.insert(0, folder)
    return file
  if name in installed():
    return pathlib.Path(importlib.util.find_spec(f'{_INSTALLED}.{name}').origin)
  raise UserError(
    f'There is no config file {path}; those that come with csdnet are '
    f'{", ".join(installed())}.{nearest(name, installed())}'
  )


def installed() -> list[str]:
  """Returns the names of the config files that are installed with us."""
  folders = importlib.util.find_spec(_INSTALLED).submodule_search_locations
  names = {module.name for module in pkgutil.iter_modules(folders)}
  return sorted(names - {'common'})  # What they share.
