"""A method, a source and a network from outside, as docs/extend.md has them."""

import json
import os
import re
import shutil
import sys

import jax
import numpy as np
import pytest

from csdnet_jax import load_run, models
from csdnet_jax.config import default, from_json, outside, to_json, validate
from csdnet_jax.runtime import terminal
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.command_line import resolve

import command
import images

GUIDE = (command.ROOT / 'docs' / 'extend.md').read_text()
FILES = dict(
  re.findall(r'^`(my_\w+\.py)`.*?```python\n(.*?)```', GUIDE, re.M | re.S)
)
MODULES = {
  'config.method.name': 'my_method',
  'config.data.source': 'my_source',
  'config.model.name': 'my_network',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The files of the guide in a folder of their own, forgotten afterwards."""
  for name, text in FILES.items():
    (tmp_path / name).write_text(text)
  monkeypatch.setattr(sys, 'path', [*sys.path])
  yield tmp_path
  for name in FILES:
    sys.modules.pop(name.removesuffix('.py'), None)


def test_the_guide_has_a_file_of_each_kind():
  assert FILES.keys() == {
    'my_method.py', 'my_source.py', 'my_network.py', 'my_config.py',
    'my_grid.py',
  }  # fmt: skip


def test_their_fields_are_merged_checked_and_kept(folder):
  config = resolve([f'--config={folder}/my_config.py'])
  validate(config)
  assert outside(config.to_dict()) == MODULES
  assert config.method.my_method.strength == 0.5
  # Ours are there beside them.
  assert config.method.csdnet.margin == 0.4
  again = from_json(to_json(config))
  assert again.to_dict() == config.to_dict()
  given = json.loads(to_json(config))
  del given['method']['my_method']  # Of a time before the field.
  assert from_json(json.dumps(given)).method.my_method.strength == 1.0
  config.method.my_method.strength = -1.0
  with pytest.raises(UserError, match=r'my_method\.strength is -1, .* 0 or'):
    validate(config)


def test_a_name_without_its_fields_says_where_they_come_from(folder):
  sys.path.insert(0, str(folder))
  config = default()
  config.method.name = 'my_method'
  with pytest.raises(UserError, match=r'lacks .*my_method\.strength.*default'):
    validate(config)


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('SPEC = 3', 'defines no SPEC = MethodSpec'),
    ('1 / 0', 'importing that module failed .ZeroDivisionError'),
  ],
)
def test_a_module_that_is_no_method_ends_in_a_sentence(folder, text, words):
  (folder / 'my_method.py').write_text(text)
  sys.path.insert(0, str(folder))
  with pytest.raises(UserError, match=words):
    default(method='my_method')


@pytest.mark.parametrize('name', ['my_absent_method', 'no.such', '../evil', ''])
def test_an_absent_module_ends_in_a_sentence(name):
  with pytest.raises(UserError, match='config.method.name is .* neither one'):
    default(method=name)


def test_a_misspelt_method_is_told_the_right_one():
  with pytest.raises(UserError, match='Did you mean "csdnet"'):
    default(method='csdnett')


def _stranger(workdir, module):
  config = json.loads(to_json(default()))
  config['method']['name'] = module
  (workdir / 'config.json').write_text(json.dumps(config))
  (workdir / 'split.json').write_text('{"class_names": [], "train": {}}')
  return workdir


def test_a_stranger_s_run_says_what_it_would_import(tmp_path):
  workdir = _stranger(tmp_path, 'absent_module')
  with (
    terminal.console.capture() as captured,
    pytest.raises(UserError, match=r"'absent_module'.*nor a module"),
  ):
    load_run(workdir)
  said = captured.get()
  assert 'imports the module absent_module (config.method.name)' in said


def test_code_is_never_taken_from_inside_a_run(tmp_path, monkeypatch):
  workdir = _stranger(tmp_path, 'evil')
  (workdir / 'evil.py').write_text('raise SystemExit("imported")')
  monkeypatch.syspath_prepend(str(workdir))
  with pytest.raises(UserError, match='inside the run itself'):
    load_run(workdir)
  assert 'evil' not in sys.modules


def test_nor_from_a_folder_in_it_that_python_takes_for_a_package(
  tmp_path, monkeypatch
):
  workdir = _stranger(tmp_path, 'evil_folder.module')
  (workdir / 'evil_folder').mkdir()
  (workdir / 'evil_folder' / 'module.py').write_text('raise SystemExit(1)')
  monkeypatch.syspath_prepend(str(workdir))
  with pytest.raises(UserError, match='inside the run itself'):
    load_run(workdir)


def test_a_package_that_fails_ends_in_a_sentence(tmp_path, monkeypatch):
  (tmp_path / 'broken_package').mkdir()
  (tmp_path / 'broken_package' / '__init__.py').write_text('1 / 0')
  monkeypatch.syspath_prepend(str(tmp_path))
  with pytest.raises(UserError, match='failed .ZeroDivisionError'):
    default(method='broken_package.method')


def test_a_flag_may_name_another_method_and_its_fields(folder):
  """So that a grid may compare somebody's method with ours."""
  sys.path.insert(0, str(folder))
  config = resolve(
    [
      '--config=quickstart', '--config.method.name=my_method',
      '--config.method.my_method.strength=0.25',
    ]
  )  # fmt: skip
  validate(config)
  assert config.method.my_method.strength == 0.25
  config = resolve(
    [
      f'--config={folder}/my_config.py', '--config.method.name=csdnet',
      '--config.model.name=efficientnet_tiny',
    ]
  )  # fmt: skip
  validate(config)
  assert outside(config.to_dict()) == {'config.data.source': 'my_source'}


def test_a_network_without_a_head_ends_in_a_sentence(folder):
  text = FILES['my_network.py'].replace("name='head'", "name='classifier'")
  (folder / 'my_network.py').write_text(text)
  sys.path.insert(0, str(folder))
  model = models.build(
    'my_network', classes=3, drop_rate=0.0, drop_path=0.0, width=4
  )
  with pytest.raises(UserError, match="has no layer 'head'"):
    jax.eval_shape(lambda: model.init(jax.random.key(0), 32))


@pytest.mark.slow
def test_the_files_of_the_guide_do_all_that_ours_do(folder, tmp_path_factory):
  """Trained, killed, resumed, predicted, embedded, exported, in a grid."""
  cache = tmp_path_factory.mktemp('cache')
  env = {'PYTHONPATH': str(command.ROOT), 'XDG_CACHE_HOME': str(cache)}
  fields = [
    '--config=my_config.py', '--config.save_every=2', '--config.log_every=1',
  ]  # fmt: skip
  workdir = folder / 'runs' / 'mine'
  process = command.start(*fields, f'--workdir={workdir}', cwd=folder, env=env)
  command.kill_when(
    process, workdir / 'metrics.jsonl', '"step": 5, "kind": "train"',
    command.kill,
  )  # fmt: skip
  process.communicate()
  assert not (workdir / 'summary.json').exists()
  # From elsewhere, by the console command, which has no folder on its path.
  console = shutil.which('csdnet', path=os.path.dirname(sys.executable))
  assert console, 'pip install -e . brings the command'
  args = [f'--config={folder}/my_config.py', *fields[1:]]
  status, output = command.program(
    console, 'train', *args, f'--workdir={workdir}', cwd=cache, env=env
  )
  assert status == 0, output
  assert 'Continuing from step' in output
  whole = folder / 'runs' / 'whole'
  status, output = command.run(
    *fields, f'--workdir={whole}', cwd=folder, env=env
  )
  assert status == 0, output
  assert json.loads((workdir / 'summary.json').read_text()) == json.loads(
    (whole / 'summary.json').read_text()
  )

  pictures = images.class_folders(folder / 'pictures', {'a': 2, 'b': 1})
  run = f'--run={workdir}'
  for name, *args in (
    ('predict', '--out=names.csv', str(pictures)),
    ('embed', '--out=vectors.npz', '--part=test'),
    ('export', '--out=net.safetensors', '--format=safetensors'),
    ('export', '--out=net.zip', '--format=stablehlo'),
    ('evaluate',),
  ):
    status, output = command.csdnet(name, run, *args, cwd=folder, env=env)
    assert status == 0, output
    assert 'imports the module my_method' in output
  assert len((folder / 'names.csv').read_text().splitlines()) == 4
  vectors = np.load(folder / 'vectors.npz')
  assert vectors['vector'].shape == (48, 16)

  status, output = command.run(
    '--grid=my_grid:strength', '--seeds=1', '--config=my_config.py',
    '--config.epochs=1', f'--results={folder / "results.jsonl"}',
    module='experiments.run', cwd=folder, env=env,
  )  # fmt: skip
  assert status == 0, output
  rows = [
    json.loads(line)
    for line in (folder / 'results.jsonl').read_text().splitlines()
  ]
  assert [row['config']['method.my_method.strength'] for row in rows] == [
    0.0, 0.5, 1.0,
  ]  # fmt: skip
  assert all('my_method' in row['code'] for row in rows)
