"""The command line: `csdnet`, the same as `python -m csdnet_jax`.

Only the flags are here, so that --help does not wait for JAX; what a command
does is in the module that `COMMANDS` names.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import csdnet_jax
from csdnet_jax.runtime import flags
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.fields import flat, nearest

_HELP = """\
usage: csdnet COMMAND [FLAGS]

Tells apart what looks alike, such as the cultivars of a crop by their leaves,
from few images of each: trains a network on your images, and uses it.

  csdnet train --config=quickstart    a first run, on leaves that it draws
  csdnet train FOLDER                 on your images, a folder for each class
  csdnet predict --run=runs/FOLDER --out=names.csv IMAGES...

commands:
{commands}

csdnet COMMAND --help says more about each; csdnet --version is the version.
"""

_TRAIN = """\
Makes the best model of your images and says how good it is, or trains one
network; the same command continues what was stopped.

FOLDER holds a folder of images for each class, or train/ and test/ with such
folders; or --config.data.table=FILE.csv names its images and their classes.
What can be trained is compared on images held out, and the best is trained on
all of them.
NAME is the config of one training: a file of yours, such as my.py, or one that
comes with csdnet: quickstart, folder, and one for each published setting, such
as soy_ageing; what stands behind a colon goes to it (--config=soy_ageing:R3).
"""

_EVALUATE = """\
Measures a finished run again, on the test part of its images, or on all of
those in FOLDER.

FOLDER is laid out as for csdnet train. Its classes are those of the run, or
some of them, matched by name; images that the run was trained on are left out
and counted. Of the config only config.data and config.evaluation may be
changed, such as the scales of a segmentation.
"""

_PREDICT = """\
Names the classes of new images, with probabilities, as a table.

The table has a row for each image: its path, its class where that is known, the
names and probabilities of the five likeliest classes, and the nearest training
image with its distance. Images that cannot be read, and what a folder holds
beside images, are listed at the end; the others are done and written, and the
exit status is 1.
"""

_EMBED = """\
Writes the embeddings of images, and a page of their nearest training leaves.

The archive holds `path` [n], `label` [n] int32 (-1 where unknown), `vector`
[n, C] float32 and `class_names`. Images that cannot be read, and what a folder
holds beside images, are listed at the end; the others are done and written,
and the exit status is 1.
"""

_EXPORT = """\
Takes the network out of this program, in one file.

  stablehlo    FILE.zip: `model.stablehlo`, the program with its weights, for
               `jax.export` on any CPU, CUDA or TPU; and `model.json`
  safetensors  FILE.safetensors: the weights alone under their names
  onnx         FILE.onnx: the program with its weights, for ONNX Runtime

Each holds the class names, the way from a file to the input, the temperature
and the config. experiments/examples/run_stablehlo.py uses the first without
this package.
"""

_APP = """\
Shows a page on this computer: drop a leaf, see its cultivar and why.

It is served to this computer alone (127.0.0.1) and loads nothing from
elsewhere; an upload stays in memory, and only until it is answered.
"""

_CUT = """\
Cuts photographs of several leaves on a plain ground into one picture a leaf.

PHOTOS is a folder of photographs, at any depth. FOLDER gets a folder for each
class and leaves.csv: path,label,group, the group being the photograph. Contact
sheets beside it show the outlines, to check by eye. Photographs that give
nothing are listed at the end; the exit status is then 1.
"""

_DATA = """\
Fetches an open data set and prepares it, so that our tables can be made anew.

  grape58    258 leaves of 58 grapevine cultivars (MIT licence, 62 MB to fetch)

What was fetched stays in the user's cache folder: again, it needs no network.
"""

_MODELS = """\
Lists the networks: parameters, cost of a forward pass, published weights, their
licence, and which are here already; or says all that is known of NAME.
"""

_FIELD = '--config.KEY'  # Stands for all of them.


def _train(prog: str) -> flags.Parser:
  made = flags.Parser(
    prog, _TRAIN,
    f'{prog} FOLDER [FLAGS]\n       {prog} --config=NAME [FLAGS]',
  )  # fmt: skip
  made.add_argument('folder', nargs='?', help=argparse.SUPPRESS)
  _add_config(made, 'set a field of the config, such as --config.epochs=60')
  made.add_argument(
    '--workdir', metavar='DIR',
    help='where everything of the run is kept: runs/NAME, NAME the folder or '
    'the config',
  )  # fmt: skip
  made.add_argument(
    '--minutes', type=float,
    help='that csdnet train FOLDER may take, 20 unless you say; what does not '
    'fit is left out and said',
  )  # fmt: skip
  made.add_argument(
    '--dry_run', action='store_true',
    help='say what would be done and how long it takes, and do nothing',
  )  # fmt: skip
  made.add_argument('--verbose', action='store_true', help='say more')
  made.add_argument(
    '--profile', action='store_true',
    help='leave a trace of three steps in the workdir, for xprof',
  )  # fmt: skip
  made.add_argument(
    '--deterministic', action='store_true',
    help='ask a GPU for operations that give the same bits each time, slower '
    'ones where need be; a CPU does so anyway',
  )  # fmt: skip
  flags.add_distributed(made)
  return made


def _evaluate(prog: str) -> flags.Parser:
  made = flags.of_run(prog, _EVALUATE)
  made.add_argument(
    'folder', nargs='?', metavar='FOLDER',
    help='all of whose images are evaluated, in place of the test part',
  )  # fmt: skip
  made.add_argument(
    '--out', metavar='FILE.csv', help='a row for each image, as csdnet predict'
  )
  _add_config(made, 'set a field, such as --config.data.split_seed=1')
  flags.add_distributed(made)
  return made


def _predict(prog: str) -> flags.Parser:
  made = flags.of_run(prog, _PREDICT)
  made.add_argument('--out', required=True, metavar='FILE.csv')
  flags.add_images(made, '+')
  return made


def _embed(prog: str) -> flags.Parser:
  made = flags.of_run(prog, _EMBED)
  made.add_argument('--out', required=True, metavar='FILE.npz')
  made.add_argument(
    '--part', choices=('train', 'val', 'test'), metavar='train|val|test',
    help="the run's own images, whose classes are known, instead of IMAGES",
  )  # fmt: skip
  made.add_argument(
    '--neighbours', metavar='FILE.html',
    help='a page that shows each image beside its nearest training leaves',
  )  # fmt: skip
  flags.add_images(made, '*')
  return made


def _export(prog: str) -> flags.Parser:
  made = flags.of_run(prog, _EXPORT)
  made.add_argument('--out', required=True, metavar='FILE')
  made.add_argument(
    '--format', required=True, choices=('stablehlo', 'safetensors', 'onnx'),
    metavar='FORMAT', help='stablehlo, safetensors or onnx',
  )  # fmt: skip
  return made


def _app(prog: str) -> flags.Parser:
  made = flags.of_run(prog, _APP)
  made.add_argument('--port', type=int, default=8000, help='8000; 0 is any')
  return made


def _cut(prog: str) -> flags.Parser:
  made = flags.Parser(prog, _CUT)
  made.add_argument('photographs', metavar='PHOTOS', help='their folder')
  made.add_argument(
    '--out', required=True, metavar='FOLDER', help='to be made; absent or empty'
  )
  made.add_argument(
    '--table', metavar='FILE',
    help='which photograph is of which class: columns photograph (or image) '
    'and label (or variety), with tabs or commas; without it the class is the '
    'folder of the photograph',
  )  # fmt: skip
  made.add_argument(
    '--encoding', metavar='NAME', default='utf-8',
    help='of the table, such as mac_roman or cp1252; utf-8 is the default',
  )  # fmt: skip
  made.add_argument(
    '--sheets', metavar='DIR',
    help='for the contact sheets; FOLDER_sheets is the default',
  )  # fmt: skip
  return made


def _data(prog: str) -> flags.Parser:
  made = flags.Parser(prog, _DATA)
  made.add_argument(
    'name', metavar='NAME', choices=('grape58',), help='grape58'
  )
  made.add_argument(
    '--out', required=True, metavar='DIR', help='to be made; absent or empty'
  )
  return made


def _models(prog: str) -> flags.Parser:
  made = flags.Parser(prog, _MODELS)
  made.add_argument('name', nargs='?', metavar='NAME', help='of a network')
  return made


def _add_config(parser: flags.Parser, fields: str) -> None:
  """Lists the flags that `parse` itself takes out of the arguments."""
  if parser.prog.endswith('train'):
    parser.add_argument('--config', metavar='NAME', help='what to train')
  parser.add_argument(_FIELD, metavar='VALUE', help=fields)


class Command(NamedTuple):
  """A subcommand: what it does, its parser, and the function that does it."""

  summary: str
  parser: Callable[[str], flags.Parser]
  module: str
  function: str = 'main'  # Takes the parsed arguments; its status, None is 0.


COMMANDS = {
  'train': Command(
    'make the best model of a folder, or train one network',
    _train, 'csdnet_jax.training.command_line', 'train',
  ),
  'evaluate': Command(
    'measure a finished run again, also on other images',
    _evaluate, 'csdnet_jax.training.command_line', 'evaluate',
  ),
  'predict': Command(
    'name the classes of new images, as a table',
    _predict, 'csdnet_jax.inference.predict',
  ),
  'embed': Command(
    'embed images, and show their nearest training leaves',
    _embed, 'csdnet_jax.inference.embed',
  ),
  'export': Command(
    'take the network out of this program, in one file',
    _export, 'csdnet_jax.inference.export',
  ),
  'app': Command(
    'a page on this computer: drop a leaf, see its cultivar',
    _app, 'csdnet_jax.inference.app',
  ),
  'cut': Command(
    'cut photographs of several leaves into one picture a leaf',
    _cut, 'csdnet_jax.data.photographs.command',
  ),
  'data': Command(
    'fetch an open data set and prepare it',
    _data, 'csdnet_jax.data.photographs.grape58',
  ),
  'models': Command(
    'list the networks, their costs, weights and licences',
    _models, 'csdnet_jax.models.listing',
  ),
}  # fmt: skip


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Returns the parsed arguments of a subcommand, and its name as `command`.

  Flags that start with --config are left as they are, in a list `config`.

  Args:
    argv: the subcommand and its flags.

  Raises:
    UserError: for a subcommand or a flag that does not exist, a value that is
      missing or wrong.
  """
  name, *given = argv
  if name not in COMMANDS:
    raise UserError(
      f'There is no command {name!r}; the commands are {", ".join(COMMANDS)}.'
      f'{nearest(name, COMMANDS)}'
    )
  parser = COMMANDS[name].parser(f'csdnet {name}')
  plain, config = [], []
  for i, argument in enumerate(given):
    flag = argument.partition('=')[0]
    if argument == '--':
      plain += given[i:]
      break
    if config and '=' not in config[-1] and not flag.startswith('-'):
      config[-1] += f'={argument}'  # --config NAME is --config=NAME.
    elif flag.startswith('--config') and _FIELD in parser.flags:
      config.append(argument)
    elif flag.startswith('-') and flag not in parser.flags:
      raise UserError(
        f'{parser.prog} has no flag {flag}.{_meant(flag, parser.flags)}'
      )
    else:
      plain.append(argument)
  args = parser.parse_args(plain)
  args.command, args.config = name, config
  return args


def _meant(flag: str, known: list[str]) -> str:
  """What may have been meant by a flag: a field of the config, or another."""
  if _FIELD in known:
    from csdnet_jax.config import RUN

    word = flag.lstrip('-')
    for key in flat(RUN):
      if word in (key, key.rpartition('.')[2]):
        return f' Did you mean "--config.{key}"?'
  return nearest(flag, known)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit status.

  Args:
    argv: the arguments, those of the process where None.
  """
  argv = sys.argv[1:] if argv is None else argv
  if not argv or argv[0] in ('-h', '--help'):
    lines = (f'  {name:10}{c.summary}' for name, c in COMMANDS.items())
    print(_HELP.format(commands='\n'.join(lines)), end='')
    return 0 if argv else 2
  if argv[0] == '--version':
    print(f'csdnet_jax {csdnet_jax.__version__}')
    return 0
  again = ''
  try:
    args = parse(argv)
    if args.command == 'train':
      again = ' What was saved is kept, and the same command continues.'
    # What follows waits for JAX.
    from csdnet_jax.runtime import commands

    commands.quiet()
    command = COMMANDS[args.command]
    with commands.explained():
      module = importlib.import_module(command.module)
      return getattr(module, command.function)(args) or 0
  except UserError as error:
    return _fail(str(error))
  except KeyboardInterrupt:
    return _fail(f'Interrupted.{again}')


def _fail(sentence: str) -> int:
  """Prints the sentence; returns the exit status."""
  from csdnet_jax.runtime.console import console

  console.print(f'error: {sentence}', style='red', markup=False)
  sys.stdout.flush()
  return 2


if __name__ == '__main__':
  sys.exit(main())
