"""The README: its commands exist, its files exist, its table is generated."""

import importlib.util
import pathlib
import re
import shlex

import pytest

from csdnet_jax.config import default
from csdnet_jax.runtime.fields import flat
from experiments.report import collect

import command

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```bash\n(.*?)```', README, re.S)
COMMANDS = [
  part.split('#')[0].strip()
  for block in BLOCKS
  for line in block.replace('\\\n', ' ').splitlines()
  for part in line.split('&&')
  if part.split('#')[0].strip()
] + re.findall(r'`(python -m [^`]+)`', README)


def test_there_are_commands():
  assert len(COMMANDS) > 8


@pytest.mark.parametrize('text', sorted(set(COMMANDS)))
def test_a_command_names_what_exists(text):
  words = shlex.split(text)
  if words[:2] == ['python', '-m']:
    assert words[2] == 'pytest' or importlib.util.find_spec(words[2])
  known = flat(default().to_dict())
  for word in words:
    name, _, value = word.lstrip('-').partition('=')
    if name == 'config':
      assert (ROOT / value.partition(':')[0]).exists(), word
    elif name.startswith('config.'):
      assert name.removeprefix('config.') in known, word


def test_what_it_names_exists():
  for path in re.findall(
    r'\b(?:configs|experiments|csdnet_jax|tests)/[\w/.-]+\.\w+', README
  ):
    assert (ROOT / path).exists(), path


def test_its_fields_exist():
  known = flat(default().to_dict())
  for key in re.findall(r'config\.((?:\w+\.)*\w+)[=`]', README):
    assert key in known or any(k.startswith(key + '.') for k in known), key


def test_its_table_is_the_generated_one():
  inside = README.split(collect.BEGIN)[1].split(collect.END)[0]
  assert inside == collect.readme()


@pytest.mark.slow
def test_the_quickstart_runs_as_written(tmp_path):
  """The first command, for one epoch instead of all."""
  (first,) = [
    c
    for c in COMMANDS
    if c.startswith('python -m csdnet_jax.main --config=configs/quickstart.py')
  ]
  args = shlex.split(first)[3:]
  status, output = command.run(
    *args,
    '--config.epochs=1',
    f'--config.data.cache={tmp_path}',
    f'--workdir={tmp_path / "run"}',
  )
  assert status == 0, output
  assert 'linear probe, initial features' in output
  assert (tmp_path / 'run' / 'summary.json').exists()
