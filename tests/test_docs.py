"""README and docs/: what they name exists, and their tables are generated."""

import ast
import importlib
import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from csdnet_jax.__main__ import parse
from csdnet_jax.config import default
from csdnet_jax.runtime.fields import flat
from csdnet_jax.training.command_line import resolve
from experiments import marks
from experiments.bench import table
from experiments.report import networks, parity, places

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
# Words of the examples: files and modules that the reader has.
OWN = re.compile(r'\bmy_')
# A block with one of these is a script for machines elsewhere.
LAUNCHER = re.compile(r'^(srun|gcloud)\b', re.M)


def _commands(text):
  """The commands of the shell's blocks, and those in the midst of a line."""
  lines = [
    re.sub(r'^(\w+=\S* )+', '', part.split(' #')[0].strip())
    for block in re.findall(r'```(?:bash|sh)\n(.*?)```', text, re.S)
    if not LAUNCHER.search(block)
    for line in block.replace('\\\n', ' ').splitlines()
    for part in line.split('&&')
  ]
  return [x for x in lines if x] + re.findall(
    r'`((?:python -m|csdnet) [^`]+)`', text
  )


KNOWN = flat(default().to_dict())
COMMANDS = sorted({c for text in TEXT.values() for c in _commands(text)})


def _is_own(word):
  """Whether an argument names a config or a field of the reader's."""
  return bool(re.match(r'--config(=|\.[\w.]*)my_', word))


def _preset(value):
  """The config of what --config gives, a name or a path, with its argument."""
  name, _, argument = value.partition(':')
  path = ROOT / (name if name.endswith('.py') else f'configs/{name}.py')
  assert path.is_file(), value
  module = importlib.import_module(f'csdnet_jax.configs.{path.stem}')
  return module.get_config(*[argument] * bool(argument))


def test_there_are_commands():
  assert len(COMMANDS) > 30


@pytest.mark.parametrize('text', COMMANDS)
def test_a_command_names_what_exists(text):
  words = shlex.split(text)
  if words[:2] == ['python', '-m']:
    assert importlib.util.find_spec(words[2]), words[2]
  elif words[0] == 'csdnet' and len(words) > 2:
    args = parse(words[1:])
    if args.command == 'train' and not any(map(_is_own, args.config)):
      resolve([*['--config=folder'] * bool(args.folder), *args.config])
  for word in words:
    name, _, value = word.lstrip('-').partition('=')
    if _is_own(word):
      continue
    if name == 'config' and value:
      _preset(value)
    elif name.startswith('config.'):
      assert name.removeprefix('config.') in KNOWN, word


@pytest.mark.parametrize('page', TEXT)
def test_its_programs_exist(page):
  for module in re.findall(r'python -m (\w+(?:\.\w+)*)', TEXT[page]):
    assert OWN.search(module) or importlib.util.find_spec(module), module


@pytest.mark.parametrize('page', TEXT)
def test_its_fields_exist(page):
  for key in re.findall(r'(?<![\w/])config\.((?:\w+\.)*\w+)[=`]', TEXT[page]):
    if key not in ('py', 'json') and not OWN.search(key):
      assert key in KNOWN or any(k.startswith(key + '.') for k in KNOWN), key


@pytest.mark.parametrize('page', TEXT)
def test_its_files_exist(page):
  folders = r'\b(?:configs|experiments|csdnet_jax|tests|docs)'
  for path in re.findall(rf'{folders}/[\w/.-]+\.\w+', TEXT[page]):
    assert (ROOT / path).exists(), path
  for link in re.findall(r'\]\(([^)#]+)[^)]*\)', TEXT[page]):
    if '://' not in link:
      assert ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize('page', TEXT)
def test_its_python_imports_what_exists(page):
  for block in re.findall(r'```python\n(.*?)```', TEXT[page], re.S):
    for node in ast.walk(ast.parse(block)):
      if isinstance(node, ast.ImportFrom):
        module = importlib.import_module(node.module)
        for alias in node.names:
          assert hasattr(module, alias.name), (node.module, alias.name)


def test_every_page_can_be_reached():
  links = set(re.findall(r'\]\(docs/(\w[\w-]*\.md)\)', TEXT['README.md']))
  links |= set(re.findall(r'\]\((\w[\w-]*\.md)\)', TEXT['docs/README.md']))
  assert links == {page.name for page in PAGES[1:]}


def test_the_readme_is_short():
  assert len(TEXT['README.md'].splitlines()) <= 150


@pytest.mark.parametrize(
  ('path', 'name', 'text'),
  [
    *((path, places.NAME, text) for path, text in places.generated().items()),
    (table.PLACE, table.NAME, table.table(table.kept())),
    (networks.PLACE, networks.NAME, networks.table()),
    (parity.PLACE, parity.NAME, parity.table(parity.kept())),
  ],
)
def test_a_table_is_the_generated_one(path, name, text):
  assert marks.inside(path, name) == text


@pytest.mark.slow
def test_the_quickstart_runs_as_written(tmp_path):
  """The first command, for one epoch instead of all."""
  first, *_ = [c for c in _commands(TEXT['README.md']) if 'csdnet' in c]
  assert first == 'csdnet train --config=quickstart'
  done = subprocess.run(
    [
      sys.executable, '-m', 'csdnet_jax', *shlex.split(first)[1:],
      '--config.epochs=1', f'--config.data.cache={tmp_path}',
      f'--workdir={tmp_path / "run"}',
    ],
    cwd=ROOT, env=os.environ | {'COLUMNS': '500'},
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout
  assert 'linear probe, initial features' in done.stdout
  assert (tmp_path / 'run' / 'summary.json').exists()
