"""`csdnet export`: takes a finished run out of this project, in one file.

  stablehlo    FILE.zip: `model.stablehlo`, the program with its weights, for
               `jax.export` on any CPU, CUDA or TPU; and `model.json`
  safetensors  FILE.safetensors: the weights alone under their names
  onnx         FILE.onnx: the program with its weights, for ONNX Runtime

Each holds what `describe` returns: class names, the way from a file to the
input, the temperature and the config. experiments/examples/run_stablehlo.py
uses the first without this package.
"""

import argparse
import io
import json
import logging
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save as save_safetensors

import csdnet_jax
from csdnet_jax import methods
from csdnet_jax.inference import calibrated, command
from csdnet_jax.models import target
from csdnet_jax.runtime import commands, writers
from csdnet_jax.runtime.errors import UserError, first_line
from csdnet_jax.runtime.terminal import say

_TOLERANCE = 1e-4


def program(run) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """Returns the forward pass of a run, with its weights as constants.

  Args:
    run: a `TrainedRun`.

  Returns:
    A function of B test views, uint8 [B, S, S, 3], to float32 `logits`
    [B, classes], `probabilities` = softmax(logits / T) [B, classes] and
    `embedding` [B, C]. Of segmentation the first two are [B, h, w, classes].
    Its kernels are those of a CPU, which run on every platform and in every
    version, whatever device the run is on; how fast they are on an accelerator
    has not been measured.
  """
  params, model_state = jax.device_get((run.params, run.model_state))
  temperature = run.calibration.temperature

  def forward(image):
    outputs = run.method.predict(params, model_state, {'image': image})
    logits = outputs['logits']
    return {
      'logits': logits,
      'probabilities': jax.nn.softmax(logits / temperature),
      'embedding': outputs['embedding'],
    }

  return target.traced_for('cpu', forward)


def describe(run) -> dict[str, Any]:
  """Returns what a stranger must know to use the weights, as plain data."""
  config = json.loads(run.config.to_json())
  # Paths of the machine that trained it are nobody else's business.
  for section, key in (
    ('data', 'root'), ('data', 'table'), ('data', 'cache'), ('teacher', 'run'),
    ('teacher', 'weights'),
  ):  # fmt: skip
    del config[section][key]
  config['init_from'] = pathlib.PurePath(config['init_from']).name
  if methods.task(run.config) == 'segmentation':
    about = _of_windows(run)
  else:
    about = _of_images(run)
  return {
    'made_by': f'csdnet_jax {csdnet_jax.__version__}, jax {jax.__version__}',
    'class_names': list(run.class_names),
    **about,
    'temperature': run.calibration.temperature,
    'calibration': calibrated.without_paths(run.calibration),
    'steps': run.step,
    'config': config,
  }


def _of_images(run):
  """What goes into a classifier and comes out of it."""
  square = run.config.data.aspect == 'square'
  means = methods.fitted(run.config) == 'prototypes'
  return {
    'preprocessing': {
      'square': square,
      'resize': None if square else run.config.data.test_resize,
      'size': run.config.model.size,
    },
    'input': 'uint8 [B, size, size, 3], RGB. Upright by EXIF, 16-bit grey '
    'scaled to 8 bits, transparency over white; then, by '
    "Pillow's BICUBIC: if square, to size x size; otherwise the shorter side "
    'to resize, and the central size x size. The bytes as they are: '
    'normalisation is in the program.',
    'outputs': {
      'logits': '[B, classes], '
      f'embedding{" / its L2 norm" if means else ""} @ kernel + bias of the '
      'head',
      'probabilities': '[B, classes], softmax(logits / temperature)',
      'embedding': '[B, C], before the head',
    },
  }


def _of_windows(run):
  """What goes into a segmentation network and comes out of it."""
  return {
    'preprocessing': {'size': run.config.model.size},
    'input': 'uint8 [B, size, size, 3], RGB windows of an image as large as '
    'the training images were. The bytes as they are: normalisation is in the '
    'program.',
    'outputs': {
      'logits': '[B, h, w, classes], of every eighth pixel, the first and the '
      'last of a window included',
      'probabilities': '[B, h, w, classes], softmax(logits / temperature)',
      'embedding': '[B, C], the mean of the map before the head',
    },
  }


def stablehlo(run) -> bytes:
  """Returns a zip of `model.stablehlo` and `model.json`.

  The batch is symbolic and matrix products are in full float32 everywhere.

  Args:
    run: a `TrainedRun`.

  Raises:
    UserError: if flatbuffers is not installed.
  """
  commands.require('flatbuffers', 'export')
  size = run.config.model.size
  (batch,) = jax.export.symbolic_shape('B')
  with jax.default_matmul_precision('highest'):
    exported = jax.export.export(
      jax.jit(program(run)), platforms=('cpu', 'cuda', 'tpu')
    )(jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8))
  about = json.dumps(describe(run), indent=2, ensure_ascii=False)
  archive = io.BytesIO()
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr('model.stablehlo', exported.serialize())
    file.writestr('model.json', about)
  return archive.getvalue()


def tensors(run) -> dict[str, np.ndarray]:
  """Returns every weight and BatchNorm average of a run, by name.

  Names are paths such as 'params/head/kernel' and
  'batch_stats/stem_bn/mean'.
  """
  tree = {'params': run.params, **run.model_state}
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree.leaves_with_path(tree)
  }


def safetensors(run) -> bytes:
  """Returns `tensors` as a safetensors file; its metadata holds `describe`.

  Metadata is text: the key 'csdnet_jax' holds JSON.

  Args:
    run: a `TrainedRun`.
  """
  about = json.dumps(describe(run), ensure_ascii=False)
  return save_safetensors(tensors(run), metadata={'csdnet_jax': about})


def onnx(run) -> bytes:
  """Returns an ONNX model, checked: ONNX Runtime agrees with the run to 1e-4.

  Its input is `image`, its outputs have the names of `program`, and its
  metadata property 'csdnet_jax' holds `describe` as JSON.

  Args:
    run: a `TrainedRun`.

  Raises:
    UserError: if jax2onnx or onnxruntime is not installed, cannot convert or
      run this network, or gives other figures.
  """
  commands.require('jax2onnx', 'onnx')
  commands.require('onnxruntime', 'onnx')
  # It reports each converter of a library that it misses, with a traceback;
  # whether what is needed here was converted is checked below.
  logging.getLogger('jax2onnx').setLevel(logging.CRITICAL)
  logging.getLogger('onnx_ir').setLevel(logging.ERROR)
  import jax2onnx
  import onnxruntime
  from onnx import helper

  name, size = run.config.model.name, run.config.model.size
  views = np.random.default_rng(0).integers(
    0, 256, (3, size, size, 3), np.uint8
  )
  expected = run.forward(views)
  expected['probabilities'] = run.probabilities(expected['logits'])
  try:
    model = jax2onnx.to_onnx(
      program(run),
      [jax.ShapeDtypeStruct(('B', size, size, 3), jnp.uint8)],
      input_names=['image'],
      output_names=sorted(expected),  # The order in which JAX flattens them.
    )
    about = json.dumps(describe(run), ensure_ascii=False)
    helper.set_model_props(model, {'csdnet_jax': about})
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(
      data, providers=['CPUExecutionProvider']
    )
    names = sorted(expected)
    found = dict(zip(names, session.run(names, {'image': views}), strict=True))
  except Exception as error:  # A converter fails in its own many ways.
    raise UserError(
      f'{name} cannot be converted to ONNX: '
      f'{first_line(error)} ({type(error).__name__} in jax2onnx or ONNX '
      'Runtime); take --format=stablehlo.'
    ) from error
  worst = max(np.abs(found[k] - expected[k]).max() for k in expected)
  if not worst <= _TOLERANCE:
    raise UserError(
      f'The ONNX model of {name} differs from the run by {worst:.2g}, more '
      f'than {_TOLERANCE:g}, and was not written; take --format=stablehlo.'
    )
  return data


FORMATS = {
  'stablehlo': (stablehlo, '.zip'),
  'safetensors': (safetensors, '.safetensors'),
  'onnx': (onnx, '.onnx'),
}


def main(args: argparse.Namespace) -> None:
  """Runs the command."""
  write, suffix = FORMATS[args.format]
  out = commands.out_path('--out', args.out, suffix)
  # Needs no accelerator, and the file does not depend on having one.
  jax.config.update('jax_platforms', 'cpu')
  # Else the program names every source file with its folder on this machine.
  jax.config.update('jax_hlo_source_file_canonicalization_regex', '.*/')
  run = command.open_run(args, segments=True)
  data = write(run)
  writers.write_bytes(out, data)
  say(run.calibration.how)
  say(f'{args.format}, {len(data) / 1e6:.1f} MB: {out}')
