"""Every program lowers for a GPU and for a TPU, seen on a CPU without them."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from csdnet_jax.evaluation import windows
from csdnet_jax.inference import export
from csdnet_jax.methods import base
from csdnet_jax.models import segments, target
from csdnet_jax.training.build import build
from csdnet_jax.training.together import pool, program
from experiments.bench import step

PLATFORMS = ('cuda', 'tpu')
CLASSES = 7
TINY = (
  'efficientnet_tiny', 'resnet_tiny', 'vit_tiny', 'vit_tiny_gap',
  'dinov2_tiny_reg', 'swin_micro', 'psp_tiny', 'dinov3_tiny',
  'dinov3_tiny_gated', 'clip_tiny', 'convnext_micro',
)  # fmt: skip
# Their attention is that of those above.
ALIKE = ('vit_tiny_gap', *TINY[-4:])
PUBLISHED = {
  'vit_b16': 448, 'deit_s16': 224, 'vit_l14_dinov2_reg': 518, 'swin_b': 448,
  'swin_l_w12': 384, 'efficientnet_lite2': 448, 'resnet101': 448,
}  # fmt: skip
# Half precision on a GPU is what can fail: of each family it is seen at once.
CASES = [
  pytest.param(
    name, dtype, platform,
    marks=()
    if (dtype, platform) == ('bfloat16', 'cuda') and name not in ALIKE
    else pytest.mark.slow,
  )
  for name in TINY
  for dtype in ('float32', 'bfloat16')
  for platform in PLATFORMS
]  # fmt: skip


@pytest.fixture(autouse=True)
def a_gpu_with_cudnn(monkeypatch):
  """What cuDNN's attention asks a machine for, before it is traced."""
  monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91000)
  monkeypatch.setattr(cudnn, 'check_compute_capability', lambda least: True)


def _lowered(
  name, dtype, platform, *, size, method='', teacher='psp_tiny', **fields
):
  """The text of the training step and of the evaluation of a network."""
  batch = 8  # APD's group.
  config = step.make_config(
    backbone=name, size=size, batch=batch, dtype=dtype, queue=16,
    method=method or ('apd' if segments(name) else 'csdnet'), teacher=teacher,
    width=16 * segments(name),
  )  # fmt: skip
  config.update_from_flattened_dict(fields)
  run = build(config, classes=CLASSES, n_train=16, devices=jax.devices()[:1])
  state = jax.eval_shape(run.init)
  train_batch = step.synthetic_batch(config, CLASSES)
  frozen = ()
  if run.method.teacher is not None:
    frozen = jax.eval_shape(
      lambda: run.method.teacher.init(jax.random.key(0), size)
    )
  shape = (batch, size, size, 3)
  test_batch = {
    'image': jax.ShapeDtypeStruct(shape, jnp.uint8),
    'label': jax.ShapeDtypeStruct((batch,), jnp.int32),
    'mask': jax.ShapeDtypeStruct((batch,), jnp.bool),
  }
  with target.compiled_for(platform):
    traced = [run.train_step.trace(state, train_batch, frozen)]
    if segments(name):
      images = jax.ShapeDtypeStruct(shape, jnp.float32)
      weights = state.params, state.model_state
      traced.append(
        windows._probabilities.trace(run.eval_step, True, weights, images)
      )
    else:
      traced.append(run.eval_step.trace(state, test_batch))
  return [t.lower(lowering_platforms=(platform,)).as_text() for t in traced]


def _calls(text):
  """How often cuDNN's attention is called, forward and backward."""
  return tuple(
    text.count(f'call @__cudnn$fmhaSoftmax{part}(') for part in ('', 'Backward')
  )


@pytest.mark.parametrize(('name', 'dtype', 'platform'), CASES)
def test_a_step_and_an_evaluation_lower(name, dtype, platform):
  # A ViT of 32 px has 17 tokens, 16 without a class token, 19 with registers.
  size = 17 if segments(name) else 32
  train, evaluate = _lowered(name, dtype, platform, size=size)
  half = dtype == 'bfloat16'
  assert ('bf16' in train, 'bf16' in evaluate) == (half, half)
  attends = name.startswith(('vit', 'dino', 'clip'))
  flash = half and platform == 'cuda' and attends
  # Of two blocks; the training step forwards the raw view and the hidden one.
  assert _calls(train) == (4 * flash, 4 * flash)
  assert _calls(evaluate) == (2 * flash, 0)


@pytest.mark.slow
@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    ('vit_tiny', {'method': 'supervised'}),
    ('vit_tiny', {'method': 'supervised2'}),
    ('vit_tiny', {'method.name': 'supcon'}),
    ('vit_tiny', {'method.csdnet.mode': 'none'}),
    ('vit_tiny', {'method.csdnet.mode': 'erase'}),
    ('vit_tiny', {'method.csdnet.mode': 'views'}),
    ('vit_tiny', {'method.csdnet.saliency': 'margin'}),
    ('vit_tiny', {'parallel': 'pmap', 'accumulate': 2, 'ema': 0.9}),
    ('psp_tiny', {'method': 'apd_kd'}),
    ('psp_tiny', {'method': 'apd_student'}),
    ('deeplab_mobilenet_v2', {'teacher': 'psp_efficientnet_lite0'}),
  ],
)
def test_every_method_lowers(name, fields, platform):
  size = 17 if segments(name) else 32
  train, evaluate = _lowered(name, 'bfloat16', platform, size=size, **fields)
  assert 'bf16' in train and 'bf16' in evaluate


@pytest.mark.slow
@pytest.mark.parametrize('platform', PLATFORMS)
@pytest.mark.parametrize(
  ('name', 'size'), [*PUBLISHED.items(), ('psp_resnet18', 713)]
)
def test_published_sizes_lower(name, size, platform):
  teacher = {'teacher': 'psp_resnet101'} if segments(name) else {}
  train, _ = _lowered(name, 'bfloat16', platform, size=size, **teacher)
  flash = platform == 'cuda' and ('vit' in name or 'deit' in name)
  assert bool(_calls(train)[1]) == flash


@pytest.mark.slow
def test_many_runs_of_a_vit_lower_for_a_gpu(monkeypatch):
  monkeypatch.setattr(target, 'of', lambda device: 'cuda')
  runs, size = 2, 32
  config = step.make_config(
    backbone='vit_tiny', size=size, batch=4, dtype='bfloat16', queue=16,
    method='csdnet',
  )  # fmt: skip
  made = program.make(config, classes=CLASSES, n_train=16)
  arguments = program.Arguments(
    jnp.arange(runs), {}, jnp.zeros((runs, 16), jnp.int32)
  )
  weights = jax.eval_shape(
    jax.vmap(lambda key: made.model.init(key, size)),
    jax.random.split(jax.random.key(0), runs),
  )
  states = jax.eval_shape(made.init, arguments, *weights)
  pixels = jnp.zeros((16, size, size, 3), jnp.uint8)
  images = pool.Images(
    pixels, jnp.full((16, 2), size), pixels, jnp.zeros(16, jnp.int32)
  )
  rows = jnp.zeros((3, runs, 4), jnp.int32)
  for traced in (
    made.advance.trace(states, arguments, images, rows, 0, 0),
    made.evaluate.trace(states, arguments, images, rows),
  ):
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
    assert 'bf16' in text and _calls(text) == (0, 0)


@pytest.mark.slow
def test_an_export_has_no_kernel_of_the_machine_that_makes_it():
  config = step.make_config(
    backbone='vit_tiny', size=16, batch=2, method='supervised', dtype='bfloat16'
  )
  run = build(config, classes=CLASSES, n_train=16, devices=jax.devices()[:1])
  predict = target.traced_for('cuda', base.predictor(run.model))
  state = run.init()
  image = np.zeros((2, 16, 16, 3), np.uint8)
  here = jax.make_jaxpr(predict)(state.params, {}, {'image': image})
  exported = jax.make_jaxpr(
    export.program(
      types.SimpleNamespace(
        params=state.params,
        model_state={},
        method=types.SimpleNamespace(predict=predict),
        calibration=types.SimpleNamespace(temperature=1.0),
      )  # fmt: skip
    )
  )(image)
  assert 'dot_product_attention_fwd' in str(here)
  assert 'dot_product_attention_fwd' not in str(exported)
