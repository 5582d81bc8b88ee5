"""The command line: `python -m csdnet_jax.main --config=configs/....py`."""

import itertools
import os
import pathlib

import jax
from absl import app, flags
from ml_collections import config_flags

from csdnet_jax import config as config_lib
from csdnet_jax.inference import command
from csdnet_jax.runtime import environment, paths, processes
from csdnet_jax.runtime.errors import UserError, first_line
from csdnet_jax.runtime.terminal import say
from csdnet_jax.training import train
from csdnet_jax.training.dry_run import dry_run
from csdnet_jax.training.evaluate import evaluate_run

FLAGS = flags.FLAGS

config_flags.DEFINE_config_file(
  'config', None, 'The config file; single fields by --config.key=value.'
)
flags.DEFINE_string(
  'workdir', None, 'Where everything of the run is kept: runs/<config.name>.'
)
flags.DEFINE_bool(
  'dry_run', False, 'Print config, shapes, memory and one batch, then exit.'
)
flags.DEFINE_bool('eval_only', False, 'Evaluate the newest state of --workdir.')
flags.DEFINE_bool(
  'profile', False, 'Leave a trace of three steps in the workdir, for xprof.'
)
flags.DEFINE_bool(
  'deterministic', False, 'Ask a GPU for operations that give the same bits '
  'each time, slower ones where need be; a CPU does so anyway.'
)  # fmt: skip
flags.DEFINE_bool(
  'distributed', False, 'One of several processes: call '
  'jax.distributed.initialize() first, on a TPU pod, under SLURM, or with '
  'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID set.'
)  # fmt: skip


def main(argv) -> None:
  """Dispatches on the flags."""
  if len(argv) > 1:
    raise UserError(
      f'Cannot use the argument {argv[1]!r}; fields of the config are set by '
      '--config.key=value.'
    )
  if FLAGS.deterministic:
    # XLA reads it when the first device is asked for, which is yet to come.
    flag = '--xla_gpu_deterministic_ops=true'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'
  if FLAGS.distributed:
    processes.join()
  config = FLAGS.config
  command.cache_compiled(config.data.cache if config else '')
  for note in environment.device_notes():
    say(note)
  if FLAGS.eval_only:
    if not FLAGS.workdir:
      raise UserError('--eval_only needs --workdir=DIR, the run to evaluate.')
    evaluate_run(config, paths.of(FLAGS.workdir))
    return
  if config is None:
    raise UserError(
      'Say what to train with --config=FILE, such as '
      '--config=configs/quickstart.py.'
    )
  if FLAGS.dry_run:
    dry_run(config)
    return
  workdir = paths.of(FLAGS.workdir or f'runs/{config.name}')
  say(f'Workdir: {workdir}')
  train.train(config, workdir, profile=FLAGS.profile)


def explain(error: BaseException) -> str | None:
  """Returns the sentence for a user's mistake, None for a defect of ours."""
  return command.explain(error, FLAGS.config)


def _run(argv) -> None:
  try:
    main(argv)
  except KeyboardInterrupt:
    command.fail(
      'Interrupted; what was saved is kept, and the same command continues.'
    )
  except (UserError, OSError, ValueError, jax.errors.JaxRuntimeError) as error:
    sentence = explain(error)
    if sentence is None:
      raise
    command.fail(sentence)


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags; a mistake in them ends in a sentence."""
  given = {}
  for argument, after in itertools.pairwise([*argv[1:], '']):
    name, _, value = argument.lstrip('-').partition('=')
    given[name] = value or after
  if 'eval_only' in given and 'config' not in given and given.get('workdir'):
    # The run's own config is the one that --config.key=value changes.
    argv.insert(1, f'--config={config_lib.__file__}:{given["workdir"]}')
  path = given.get('config', '').partition(':')[0]
  if path and not pathlib.Path(path).is_file():
    command.fail(
      f'There is no config file {path}; the ones that come with the project '
      'are in configs/.'
    )
  try:
    return app.parse_flags_with_usage(argv)
  except UserError as error:
    command.fail(str(error))
  except SyntaxError as error:
    command.fail(f'{path} is no config file: {error}.')
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    command.fail(_explain_flag(argv, error))


def _explain_flag(argv: list[str], error: Exception) -> str:
  known = config_lib.flat(config_lib.default().to_dict())
  for argument in argv[1:]:
    name = argument.lstrip('-').partition('=')[0]
    key = name.removeprefix('config.')
    if name.startswith('config.') and key not in known:
      hint = config_lib.nearest(key, known)
      return f'The config has no field {key!r}.{hint}'
  return f'{first_line(error)}; check --config and its fields.'


if __name__ == '__main__':
  command.quiet()
  app.run(_run, flags_parser=_parse)
