"""The benchmarks: what they count, print and keep. Nothing here is timed."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from csdnet_jax import memory, methods, models, sharding
from csdnet_jax.data import augment
from csdnet_jax.methods import base
from csdnet_jax.models import target
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training.build import build
from experiments.bench import (
  flops,
  gpu,
  measure,
  peer,
  pipeline,
  queue,
  step,
  table,
  together,
)

import command

FIELDS = {'backbone': 'vit_tiny', 'size': 16, 'batch': 2}


def _count(method):
  """The operations of a step, traced and not compiled."""
  config = step.make_config(**FIELDS, method=method, queue=64)
  run = build(
    config, classes=step.CLASSES, n_train=64, devices=jax.devices()[:1]
  )
  arguments = jax.eval_shape(run.init), step.synthetic_batch(config), ()
  return flops.count(run.train_step.trace(*arguments).jaxpr)


def test_a_tiny_vit_counts_what_a_hand_counts():
  b, width, mlp, tokens = 2, 32, 128, 5
  embedding = b * 4 * (3 * 8 * 8) * width
  products = b * tokens * width * (4 * width + 2 * mlp)
  attention = 2 * b * tokens**2 * width
  head = b * width * step.CLASSES
  # Forward, and a gradient for either factor; images need none.
  total = 3 * (2 * (products + attention) + head) + 2 * embedding
  assert _count('supervised') == 2 * total


def test_two_views_of_csdnet_cost_the_products_of_two_views():
  two = _count('supervised2')
  # DDL over 4 keys, which have gradients, and 64 of the queue, which have not.
  ddl = 4 * 32 * (3 * 4 + 2 * 64)
  # SSDP: the cosines of 2 x 2 places, and their map brought to 16 x 16.
  ssdp = 2 * (4 * 32 + 16 * 2 * 2 + 16 * 16 * 2)
  assert _count('csdnet') == two + 2 * (ddl + ssdp)


def test_a_scan_counts_each_turn_and_a_convolution_its_taps():
  def f(x, kernel):
    def body(x, _):
      return x @ x, ()

    y = jax.lax.conv(x, kernel, (2, 2), 'VALID')
    return jax.lax.scan(body, y[0, 0], length=3)

  x, kernel = jnp.ones((1, 4, 8, 8)), jnp.ones((6, 4, 2, 2))
  convolution = 2 * (6 * 4 * 4) * (4 * 2 * 2)
  jaxpr = jax.make_jaxpr(f)(x, kernel).jaxpr
  assert flops.count(jaxpr) == convolution + 3 * 2 * 4**3


@pytest.mark.parametrize(
  ('name', 'own', 'tokens'), [('vit_tiny_gap', 16, 16), ('vit_tiny', 17, 18)]
)
def test_products_inside_cudnns_attention_count(name, own, tokens, monkeypatch):
  monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91000)
  monkeypatch.setattr(cudnn, 'check_compute_capability', lambda least: True)
  model = models.build(
    name, classes=3, drop_rate=0.0, drop_path=0.0, dtype='bfloat16'
  )
  params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), 32))
  x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

  def counted(platform):
    def loss(params, x):
      return model.apply(params, {}, x, train=True)[0].logits.sum()

    with target.compiled_for(platform):
      return flops.count(jax.make_jaxpr(jax.grad(loss))(params, x).jaxpr)

  # 17 tokens are 18 for cuDNN: two blocks of six products of width 32.
  more = 2 * 6 * 2 * 2 * 32 * (tokens**2 - own**2)
  assert counted('cuda') == counted('cpu') + more


def test_the_peak_of_a_device_is_measured_once(tmp_path, monkeypatch):
  monkeypatch.setattr(measure, '_matmul_flops_per_s', lambda dtype: 5e9)
  assert measure.matmul_flops_per_s('float32', str(tmp_path)) == 5e9
  monkeypatch.setattr(measure, '_matmul_flops_per_s', lambda dtype: 7e9)
  assert measure.matmul_flops_per_s('float32', str(tmp_path)) == 5e9
  assert measure.matmul_flops_per_s('bfloat16', str(tmp_path)) == 7e9
  assert measure.matmul_flops_per_s('float32', '') == 7e9


def test_a_peer_that_ends_is_told():
  process = subprocess.Popen(
    [sys.executable, '-c', 'raise SystemExit(3)'], stdout=subprocess.PIPE,
    text=True,
  )  # fmt: skip
  with pytest.raises(UserError, match='ended with status 3'):
    peer.answer(process, 60)
  process.communicate()


def test_a_part_without_time_is_ended_and_told(tmp_path, monkeypatch, capfd):
  monkeypatch.setitem(gpu.PARTS, 'check', (*gpu.PARTS['check'][:2], 0.1))
  assert not gpu.run_part('check', tmp_path, tiny=True)
  assert '=== check: status out of time' in capfd.readouterr().out


def test_turns_are_taken_in_turn():
  seen = []
  contenders = {
    name: lambda n, name=name: seen.append((name, n)) for name in 'ab'
  }
  timed = measure.turns(contenders, pairs=3, steps=7)
  assert seen[-6:] == [('a', 7), ('b', 7)] * 3
  assert {name: len(seconds) for name, seconds in timed.items()} == {
    'a': 3, 'b': 3,
  }  # fmt: skip


def test_speed_is_of_the_median_turn_and_a_ratio_of_neighbours():
  assert measure.speed([0.1, 0.2, 0.4], 4) == {
    'images_per_s': 20.0, 'ms_per_step': 200.0, 'spread': 0.75,
  }  # fmt: skip
  assert measure.ratio([1.0, 2.0, 9.0], [2.0, 2.0, 3.0]) == 1.0


def test_a_measurement_made_again_replaces_the_one_before(tmp_path, capsys):
  for value in (1, 2):
    result = measure.record('step', {'value': value})
    measure.publish(result, 'step vit', str(tmp_path))
    assert json.loads(capsys.readouterr().out) == result
  (file,) = tmp_path.iterdir()
  assert json.loads(file.read_text())['value'] == 2
  assert result.keys() == {'bench', 'value', 'device', 'jax', 'date'}


def _result(**fields):
  result = {
    'bench': 'step', 'method': 'csdnet', 'backbone': 'vit_b16', 'size': 448,
    'batch': 32, 'dtype': 'bfloat16', 'device': 'NVIDIA H100 80GB HBM3',
    'jax': '0.10.2', 'mfu': 0.62, 'compile_s': 50.0, 'compile_cached_s': 10.0,
  }  # fmt: skip
  return result | fields


def test_the_table_tells_goals_that_were_not_measured():
  rows = table.table([]).splitlines()
  assert len(rows) == 2 + len(table.GOALS)
  assert all('| not measured |' in row for row in rows[2:])


def test_the_table_says_what_was_reached_and_on_what():
  rows = table.table([_result()]).splitlines()
  (mfu,) = [r for r in rows if 'random matrices' in r]
  assert '| 62 % | yes | vit_b16, 448, 32, bfloat16 | NVIDIA H100' in mfu
  (again,) = [r for r in rows if 'compile seconds' in r]
  assert '| 20 % | no |' in again
  # Without a peer there is no ratio, and another card is neither of the two.
  assert sum('not measured' in r for r in rows) == len(table.GOALS) - 2
  for device, measured in (('NVIDIA H200', True), ('NVIDIA A100', False)):
    rows = table.table([_result(device=device)]).splitlines()
    (mfu,) = [r for r in rows if 'random matrices' in r]
    assert ('not measured' not in mfu) == measured
  apd = {
    'method': 'apd', 'backbone': 'psp_resnet18', 'teacher': 'psp_resnet101',
    'size': 713, 'peak_memory': 4, 'peer': {'peak_memory': 10},
  }  # fmt: skip
  rows = table.table([_result(**apd)]).splitlines()
  (memory,) = [r for r in rows if 'that step' in r]
  assert '| 0.4x | yes |' in memory


def test_the_pipeline_is_compared_with_the_fastest_step(tmp_path):
  here = measure.device_name()
  for i, (size, rate, device) in enumerate(
    [(448, 9.0, here), (448, 7.0, here), (224, 99.0, here), (448, 99.0, 'chip')]
  ):
    result = _result(size=size, images_per_s=rate, device=device)
    (tmp_path / f'{i}.json').write_text(json.dumps(result))
  assert pipeline.fastest_step(448, str(tmp_path)) == 9.0
  assert pipeline.fastest_step(160, str(tmp_path)) is None


def test_the_host_side_is_decoded_and_read(tmp_path):
  pipeline.write_jpegs(tmp_path / 'images', images=12, side=40)
  rates = pipeline.decoded_and_cached(
    tmp_path / 'images', tmp_path / 'cache', size=28, batch=2, steps=2
  )
  assert rates.keys() == {'decoded_per_s', 'cached_per_s', 'on_device_per_s'}
  assert all(rate > 0 for rate in rates.values())


def test_the_queue_is_donated():
  compiled, _ = queue.compile_contrast(64, 4, 8)
  found = queue.copies(compiled, 64, 8)
  assert found['donated'] and found.keys() == {'temporary', 'copies', 'donated'}


def test_a_field_out_of_range_is_refused():
  with pytest.raises(UserError, match='batch_size'):
    step.make_config(backbone='vit_tiny', size=16, batch=0, method='csdnet')


def _peer(name, size):
  """A step of ours and the peer's net, with heads that tell classes apart."""
  from experiments.bench import torch_peer

  config = step.make_config(
    backbone=name, size=size, batch=4, method='csdnet', queue=16
  )
  program = step.prepare_config(config)
  params, model_state = jax.device_get(
    (program.state.params, program.state.model_state)
  )
  kernel = params['head']['kernel']
  rng = np.random.default_rng(0)
  params['head']['kernel'] = rng.normal(0, 0.3, kernel.shape).astype('f')
  net = torch_peer.build(config, params, model_state, 'cpu').train()
  return config, params, model_state, net


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'size'),
  [('vit_tiny', 32), ('efficientnet_tiny', 32), ('swin_micro', 40)],
)
@pytest.mark.parametrize('kind', ['csdnet', 'supervised', 'supervised2'])
def test_the_peer_computes_our_loss(name, size, kind):
  torch = pytest.importorskip('torch')
  from experiments.bench import torch_peer

  config, params, model_state, net = _peer(name, size)
  config.update_from_flattened_dict(step.METHODS[kind])
  model = models.build(name, classes=step.CLASSES, drop_rate=0.0, drop_path=0.0)
  method = methods.make(config, model)
  keys = sharding.row_keys(jax.random.key(1), 4, None)
  batch = step.synthetic_batch(config)
  batch['label'] %= 2  # Positive pairs among two images too.
  batch = method.views(keys, batch)
  width = params['head']['kernel'].shape[0]
  ours = method.init_memory(width)
  rng = np.random.default_rng(1)
  theirs = None
  if ours:
    old = rng.normal(size=(9, width)).astype('f')
    old /= np.linalg.norm(old, axis=1, keepdims=True)
    ours = memory.push(ours, old, jnp.arange(9) % 3, jnp.arange(9))
    theirs = torch_peer.Queue(16, width, 'cpu')
    theirs.push(torch.tensor(old), torch.arange(9) % 3)
  key = jax.random.key(2)
  context = base.Context(model_state, ours, (), None)
  (expected, aux), gradient = jax.value_and_grad(method.loss, has_aux=True)(
    params, context, batch, key
  )

  row_keys = sharding.row_keys(jax.random.fold_in(key, 2), 4, None)
  low, high = config.method.csdnet.hidden
  draws = torch_peer.Draws(
    None,
    *(
      torch.tensor(np.array(jax.vmap(draw)(base.fold_rows(row_keys, i))))
      for i, draw in enumerate(
        (
          lambda k: jax.random.uniform(k, minval=low, maxval=high),
          lambda k: jax.random.uniform(k, maxval=2 * jnp.pi),
        )
      )
    ),
  )

  def tensor(x):
    return torch.tensor(np.array(x)).permute(0, 3, 1, 2)

  total, push = torch_peer.loss(
    net, tensor(batch['raw']),
    tensor(batch['aug']) if 'aug' in batch else None,
    torch.tensor(np.array(batch['label'])).long(), draws, theirs, config,
  )  # fmt: skip
  assert abs(total.item() - float(expected)) < 1e-4
  total.backward()
  np.testing.assert_allclose(
    net.head.weight.grad.T, gradient['head']['kernel'], atol=1e-4
  )
  if ours:
    np.testing.assert_allclose(push[0], aux.push[0], atol=1e-4)


@pytest.mark.slow
def test_the_peer_draws_our_views():
  torch = pytest.importorskip('torch')
  from experiments.bench import torch_peer

  views = step.make_config(**FIELDS, method='csdnet').views
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (3, 24, 24, 3), np.uint8)
  extents = np.array([[24, 24], [24, 15], [9, 24]], np.int32)
  keys = jax.random.split(jax.random.key(0), 3)
  ours = augment.sample_views(keys, images, extents, size=16)
  draws = jax.vmap(lambda key: jax.random.uniform(key, (9,)))(keys)
  theirs = torch_peer.sample_views(
    torch.tensor(np.array(draws)), torch.tensor(images).permute(0, 3, 1, 2),
    torch.tensor(extents), size=16, views=views,
  )  # fmt: skip
  np.testing.assert_allclose(theirs.permute(0, 2, 3, 1), ours, atol=1e-5)


@pytest.mark.slow
def test_a_tiny_benchmark_prints_one_line(tmp_path):
  pytest.importorskip('torch')
  process = subprocess.run(
    [
      sys.executable, '-m', 'experiments.bench.step', '--backbone=vit_tiny',
      '--size=16', '--batch=2', '--queue=8', '--pairs=2', '--steps=1',
      '--peer=torch', '--against=supervised2', '--accumulate=2',
      f'--results={tmp_path}',
    ],
    cwd=command.ROOT, env=os.environ | {'JAX_NUM_CPU_DEVICES': '1'},
    capture_output=True, text=True,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  (line,) = process.stdout.splitlines()
  result = json.loads(line)
  assert result.keys() >= {
    'images_per_s', 'ms_per_step', 'spread', 'flops_per_step', 'mfu',
    'peak_memory', 'compile_s', 'compile_cached_s', 'device', 'ratio',
    'time_ratio', 'matmul_flops_per_s', 'backbone', 'size', 'batch', 'method',
    'dtype', 'jax', 'date', 'bench',
  }  # fmt: skip
  (file,) = tmp_path.glob('step_*')
  assert json.loads(file.read_text()) == result
  (file,) = tmp_path.glob('peak_*')
  peak = json.loads(file.read_text())
  assert peak['flops_per_s'] == result['matmul_flops_per_s']


@pytest.mark.slow
def test_runs_together_and_alone_step_on_from_turn_to_turn():
  fields = {
    'model.name': 'vit_tiny', 'model.size': 16, 'batch_size': 4, 'epochs': 3.0,
    'init_from': '', 'method.name': 'supervised',
  }  # fmt: skip
  runs = together.configs(2, 12, **fields)
  assert runs[0].optim.lr < runs[1].optim.lr
  images = together.drawn(runs[0], 12)
  alone, _ = together.one_by_one(runs[0], images, 12)
  joined, _, compiled = together.together(runs, images, 12)
  # More steps than the order of images is long, too.
  for run in (alone, joined):
    for n in (1, 3, 8):
      run(n)
  assert measure.peak_memory(compiled)['peak_memory'] > 0
