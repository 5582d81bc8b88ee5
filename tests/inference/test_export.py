"""Exported runs give what the run gives, far from this package."""

import io
import json
import pathlib
import subprocess
import sys
import types
import zipfile

import jax
import numpy as np
import pytest

from csdnet_jax import load_run
from csdnet_jax.inference import calibrated, embed, export
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import train
from csdnet_jax.training.build import build
from experiments import grid as grids, results

import command
import images
import runs

EXAMPLE = (
  pathlib.Path(__file__).parents[2] / 'experiments/examples/run_stablehlo.py'
)
VIEWS = np.stack([images.pixels(i, 32, 32) for i in range(5)])


@pytest.fixture(scope='module')
def run(trained):
  return load_run(trained)


def _expected(run, views):
  outputs = run.forward(views)
  return outputs | {'probabilities': run.probabilities(outputs['logits'])}


def test_stablehlo_takes_any_batch(run, tmp_path):
  path = tmp_path / 'leaf.zip'
  path.write_bytes(export.stablehlo(run))
  with zipfile.ZipFile(path) as archive:
    program = bytearray(archive.read('model.stablehlo'))
    about = json.loads(archive.read('model.json'))
  exported = jax.export.deserialize(program)
  assert exported.platforms == ('cpu', 'cuda', 'tpu')
  for n in (1, 5):
    outputs = exported.call(VIEWS[:n])
    for name, x in _expected(run, VIEWS[:n]).items():
      np.testing.assert_allclose(outputs[name], x, atol=1e-4)
  assert about['class_names'] == list(run.class_names)
  assert about['preprocessing'] == {'square': False, 'resize': 36, 'size': 32}


def test_no_path_of_this_machine_is_told(run):
  told = json.dumps(export.describe(run))
  assert run.config.data.cache and run.config.data.cache not in told
  assert json.loads(told)['config']['model']['name'] == run.config.model.name
  config = run.config.copy_and_resolve_references()
  config.init_from = '/home/me/w.npz'
  config.teacher.run = config.teacher.weights = '/home/me/teacher'
  how = 'Not calibrated, for want of /home/me/leaves.'
  other = types.SimpleNamespace(
    config=config, class_names=run.class_names, step=run.step,
    calibration=calibrated.Calibration(1.0, how, run.step),
  )  # fmt: skip
  told = json.dumps(export.describe(other))
  assert '"w.npz"' in told and '/home' not in told


def test_the_folder_of_the_images_is_in_nothing_that_leaves_a_run(
  folder_run, tmp_path
):
  workdir, root = folder_run
  run = load_run(workdir)
  with zipfile.ZipFile(io.BytesIO(export.stablehlo(run))) as archive:
    out = [archive.read(name) for name in archive.namelist()]
  out += [export.safetensors(run), (workdir / 'predictions.csv').read_bytes()]
  page, vectors = tmp_path / 'page.html', tmp_path / 'test.npz'
  status, _ = command.here(
    embed.main, 'embed', f'--run={workdir}', f'--out={vectors}', '--part=test',
    f'--neighbours={page}',
  )  # fmt: skip
  assert status == 0
  out += [page.read_bytes(), vectors.read_bytes()]
  name, grid = grids.find('csdnet:saliency')
  flags = [f'--config.data.root={root}', '--config=configs/folder.py']
  point = grids.expand(name, grid, flags, seeds_of_each=1)[0]
  line = results.record(point, workdir)
  assert line['test']['n'] == 12
  out.append(json.dumps(line).encode())
  assert str(root) in (workdir / 'config.json').read_text()
  for data in out:
    assert str(root).encode() not in data
    assert str(root.parent).encode() not in data


def test_safetensors_come_back_bit_for_bit(run, tmp_path):
  import safetensors

  path = tmp_path / 'leaf.safetensors'
  path.write_bytes(export.safetensors(run))
  with safetensors.safe_open(path, 'numpy') as file:
    found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about = json.loads(file.metadata()['csdnet_jax'])
  tree = {'params': run.params, **run.model_state}
  assert len(found) == len(jax.tree.leaves(tree))
  for path, leaf in jax.tree.leaves_with_path(tree):
    name = '/'.join(key.key for key in path)
    assert found[name].dtype == leaf.dtype
    assert found[name].tobytes() == np.asarray(leaf).tobytes()
  assert about == export.describe(run)


@pytest.fixture
def converter(run, monkeypatch):
  """Stands for jax2onnx and ONNX Runtime; `converter.logits` is its answer."""
  fake = types.SimpleNamespace(logits=0.0, fails=False)

  def to_onnx(*args, **kwargs):
    if fake.fails:
      raise NotImplementedError('no such primitive: erf\nand more')
    return types.SimpleNamespace(SerializeToString=lambda: b'model')

  class Session:
    def __init__(self, *args, **kwargs):
      pass

    def run(self, names, feed):
      outputs = _expected(run, feed['image'])
      return [outputs[n] + fake.logits * (n == 'logits') for n in names]

  modules = {
    'jax2onnx': {'to_onnx': to_onnx},
    'onnxruntime': {'InferenceSession': Session},
    'onnx': {'helper': types.SimpleNamespace(set_model_props=lambda *a: None)},
  }
  for name, contents in modules.items():
    module = types.ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
  monkeypatch.setattr(commands, 'require', lambda *a: None)
  return fake


def test_onnx_is_checked_before_it_is_written(run, converter):
  assert export.onnx(run) == b'model'
  converter.logits = 2e-4
  with pytest.raises(UserError, match='differs from the run by 0.0002'):
    export.onnx(run)
  converter.logits = np.nan
  with pytest.raises(UserError, match='differs from the run by nan'):
    export.onnx(run)


def test_onnx_that_cannot_be_made_is_a_sentence(run, converter):
  converter.fails = True
  with pytest.raises(UserError, match='no such primitive: erf .*stablehlo'):
    export.onnx(run)


def test_a_missing_library_is_named(run, monkeypatch):
  monkeypatch.setattr(commands.importlib.util, 'find_spec', lambda name: None)
  for make, extra in (
    (export.stablehlo, 'export'),
    (export.onnx, 'onnx'),
  ):
    with pytest.raises(UserError, match=rf'not installed; .*\[{extra}\]'):
      make(run)


def test_the_suffix_must_fit_the_format(trained, tmp_path):
  with pytest.raises(UserError, match=r'must name a file that ends in \.zip'):
    command.here(
      export.main, 'export', f'--run={trained}', f'--out={tmp_path}/x.onnx',
      '--format=stablehlo',
    )  # fmt: skip


def _command(trained, out, kind):
  status, said = command.csdnet(
    'export', f'--run={trained}', f'--out={out}', f'--format={kind}'
  )
  assert status == 0, said


@pytest.mark.slow
@pytest.mark.parametrize('aspect', ['keep', 'square'])
def test_the_example_needs_nothing_of_this_package(trained, aspect, tmp_path):
  run = load_run(trained)
  run.config.data.aspect = aspect
  out = tmp_path / 'leaf.zip'
  out.write_bytes(export.stablehlo(run))
  paths = [tmp_path / f'{i}.png' for i in range(3)]
  for i, path in enumerate(paths):
    images.write(path, images.encode(images.pixels(i, 50 + i, 71)))
  # Importing the package, which is installed here, would raise ImportError.
  code = (
    'import runpy, sys; sys.modules["csdnet_jax"] = None; '
    'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, EXAMPLE, out, *paths],
    cwd=tmp_path, capture_output=True, text=True, check=True,
  )  # fmt: skip
  p, found = run.predict(paths).probabilities, 0
  for line in done.stdout.splitlines():
    path, name, probability = line.split('\t')
    row, column = paths.index(pathlib.Path(path)), run.class_names.index(name)
    assert abs(p[row, column] - float(probability)) < 1e-4
    found += 1
  assert found == p.size


@pytest.mark.slow
def test_the_command_tells_no_folder_of_this_machine(trained, tmp_path):
  out = tmp_path / 'leaf.zip'
  _command(trained, out, 'stablehlo')
  with zipfile.ZipFile(out) as archive:
    program = archive.read('model.stablehlo')
  assert b'efficientnet.py' in program
  assert bytes(EXAMPLE.parent.parent.parent) not in program


@pytest.mark.slow
def test_onnx_runtime_agrees(run, trained, tmp_path):
  onnxruntime = pytest.importorskip('onnxruntime')
  out = tmp_path / 'leaf.onnx'
  _command(trained, out, 'onnx')
  session = onnxruntime.InferenceSession(
    out, providers=['CPUExecutionProvider']
  )
  expected = _expected(run, VIEWS)
  outputs = session.run(list(expected), {'image': VIEWS})
  for found, (name, x) in zip(outputs, expected.items(), strict=True):
    np.testing.assert_allclose(found, x, atol=1e-4, err_msg=name)
  about = session.get_modelmeta().custom_metadata_map['csdnet_jax']
  assert json.loads(about)['class_names'] == list(run.class_names)


NEWER = ('clip_tiny', 'convnext_micro', 'dinov3_tiny', 'dinov3_tiny_gated')


@pytest.mark.slow
@pytest.mark.parametrize('name', NEWER)
def test_newer_networks_train_in_bfloat16_and_are_exported(name, tmp_path):
  config = runs.config(
    tmp_path / 'cache',
    **{'model.name': name, 'model.dtype': 'bfloat16', 'epochs': 1.0},
  )
  train.train(config, tmp_path / 'run', devices=jax.devices()[:1])
  run = load_run(tmp_path / 'run')
  with zipfile.ZipFile(io.BytesIO(export.stablehlo(run))) as archive:
    program = bytearray(archive.read('model.stablehlo'))
  outputs = jax.export.deserialize(program).call(VIEWS)
  for key, x in _expected(run, VIEWS).items():
    np.testing.assert_allclose(outputs[key], x, atol=0.02, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize('name', NEWER)
def test_newer_networks_keep_what_is_frozen_and_convert_to_onnx(name, tmp_path):
  pytest.importorskip('onnxruntime')
  config = runs.config(
    tmp_path / 'cache', **{'model.name': name, 'epochs': 1.0}
  )
  config.optim.groups = (('^(?!head/)', 0.0, False),)
  workdir = tmp_path / 'run'
  summary = train.train(config, workdir, devices=jax.devices()[:1])
  # The baselines on the frozen features.
  assert set(summary['start']) == {'knn', 'prototypes', 'linear_probe'}
  program = build(config, classes=4, n_train=12, devices=jax.devices()[:1])
  before, after = program.init().params, runs.saved_state(workdir).params
  assert np.abs(before.pop('head')['kernel']).max() == 0
  assert np.abs(after.pop('head')['kernel']).max() > 0
  jax.tree.map(np.testing.assert_array_equal, before, after)
  assert export.onnx(load_run(workdir))
