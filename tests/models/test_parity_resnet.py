"""ResNet computes what transformers does with the same weights."""

import functools

import jax
import numpy as np
import pytest

from csdnet_jax import models
from csdnet_jax.models import resnet

from torch_twins import fill, randomise, state_dict

pytestmark = [
  pytest.mark.slow,
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),
  pytest.mark.filterwarnings('ignore::FutureWarning'),
]

CLASSES = 7


def transformers_resnet(torch, name):
  transformers = pytest.importorskip('transformers')
  sizes = models.MODELS[name].sizes
  wide = 4 if sizes['bottleneck'] else 1
  config = transformers.ResNetConfig(
    depths=sizes['depths'],
    hidden_sizes=[64 * wide * 2**i for i in range(4)],
    layer_type='bottleneck' if sizes['bottleneck'] else 'basic',
    num_labels=CLASSES,
  )
  net = transformers.ResNetForImageClassification(config)
  return randomise(torch, net)


# PyTorch in float64. Where the input of a ReLU is nearly zero, rounding decides
# its side, and the gradient of a few pixels is off by a hundredth of the
# largest, PyTorch's own float32 gradient as well. So the largest case is also
# run with a smooth activation on both sides.
@pytest.mark.parametrize(
  ('name', 'size', 'activation'),
  [
    ('resnet18', 224, 'relu'),
    ('resnet50', 224, 'relu'),
    ('resnet50', 448, 'relu'),
    ('resnet50', 448, 'silu'),
  ],
)
def test_features_logits_and_input_gradient(
  torch, monkeypatch, record, name, size, activation
):
  net = transformers_resnet(torch, name)
  kind = {'relu': torch.nn.ReLU, 'silu': torch.nn.SiLU}[activation]
  for module in list(net.modules()):
    if isinstance(getattr(module, 'activation', None), torch.nn.ReLU):
      module.activation = kind()
  monkeypatch.setattr(resnet.nn, 'relu', getattr(jax.nn, activation))
  model = models.build(name, classes=CLASSES, drop_rate=0.0, drop_path=0.0)
  params, state = fill(model, resnet.from_torch(state_dict(net)), size)
  rng = np.random.default_rng(1)
  pixels = rng.random((1, size, size, 3), np.float32)
  weights = rng.standard_normal((1, CLASSES)).astype(np.float32)

  net.double()
  x = torch.from_numpy(pixels).double().requires_grad_()
  spec = models.MODELS['resnet18']
  mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
  features = net.resnet(((x - mean) / std).permute(0, 3, 1, 2))[0]
  logits = net.classifier(features.mean((2, 3)))
  (logits * torch.from_numpy(weights)).mean().backward()
  wanted = {
    'features': features.detach().numpy().transpose(0, 2, 3, 1),
    'logits': logits.detach().numpy(),
    'gradient': x.grad.numpy(),
  }
  assert np.abs(wanted['features']).max() > 1

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def run(x):
    outputs, _ = model.apply(params, state, x, train=False)
    return (outputs.logits * weights).mean(), outputs

  gradient, outputs = run(pixels)
  ours = outputs._asdict() | {'gradient': gradient}
  found = {key: np.abs(ours[key] - x).max() for key, x in wanted.items()}
  record(f'{name}, {activation}', size, found)


def test_a_training_step_normalises_and_averages_as_pytorch(torch):
  net = transformers_resnet(torch, 'resnet18').train()
  model = models.build(
    'resnet18', classes=CLASSES, drop_rate=0.0, drop_path=0.0
  )
  params, state = fill(model, resnet.from_torch(state_dict(net)), 64)
  pixels = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
  outputs, moved = jax.jit(functools.partial(model.apply, train=True))(
    params, state, pixels
  )
  spec = models.MODELS['resnet18']
  mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
  x = ((torch.from_numpy(pixels) - mean) / std).permute(0, 3, 1, 2)
  features = net.resnet(x)[0].detach().numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(outputs.features, features, atol=1e-4)
  _, averages = fill(model, resnet.from_torch(state_dict(net)), 64)
  # PyTorch stores n / (n - 1) of the variance; layer 4 has 16 pixels here.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=1e-4),
    moved,
    averages,
  )
