"""What the parity tests share: one file of weights in two networks."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax import models
from csdnet_jax.models.weights import pretrained

CLASSES = 7
LIMIT = 1e-4


def randomise(torch, net):
  """Values of the size that training leaves: no constants, no explosions."""
  torch.manual_seed(0)
  with torch.no_grad():
    for name, p in net.named_parameters():
      noise = torch.randn_like(p)
      scale = 'norm' in name and name.endswith('weight')
      if scale or re.search('lambda|gamma|layer_scale', name):
        p.copy_(1 + 0.1 * noise)
      elif p.ndim > 1 and name.endswith('weight'):
        p.copy_(noise / p[0].numel() ** 0.5)
      else:
        p.copy_(0.2 * noise)
  return net.eval()


def ours(path, name, size):
  """Our model with the weights of a file; every array of it is accounted."""
  model = models.build(name, classes=CLASSES, drop_rate=0.0, drop_path=0.0)
  made = jax.jit(model.init, static_argnums=1)(jax.random.key(0), size)
  params, state, report = pretrained.load(
    str(path), name, *made, classes=CLASSES
  )
  assert not report.missing + report.unexpected
  return model, params, state, report


def differences(torch, net, theirs, head, path, name, size):
  """max |ours - theirs| of features, logits, and of the input's gradient.

  Args:
    theirs: a batch [B, 3, H, W] to (features [B, C, h, w], embedding).
    head: PyTorch's linear layer over the embedding, put into our model.

  Returns:
    {'features', 'logits', 'gradient'}, the last over the largest gradient.
  """
  model, params, state, report = ours(path, name, size)
  params['head'] = {
    'kernel': jnp.asarray(head.weight.detach().numpy().T),
    'bias': jnp.asarray(head.bias.detach().numpy()),
  }
  rng = np.random.default_rng(0)
  pixels = rng.random((2, size, size, 3), np.float32)
  weights = rng.standard_normal((2, CLASSES)).astype(np.float32)
  spec = models.find(name)
  mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)

  x = torch.from_numpy(pixels).requires_grad_()
  features, embedding = theirs(((x - mean) / std).permute(0, 3, 1, 2))
  logits = head(embedding)
  (logits * torch.from_numpy(weights)).sum().backward()

  def loss(x):
    outputs, _ = model.apply(params, state, x, train=False)
    return (outputs.logits * weights).sum(), outputs

  (_, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    pixels
  )
  features = features.detach().numpy().transpose(0, 2, 3, 1)
  wanted = x.grad.numpy()
  assert np.abs(features).max() > 1
  return {
    'features': np.abs(outputs.features - features).max(),
    'logits': np.abs(outputs.logits - logits.detach().numpy()).max(),
    'gradient': np.abs(gradient - wanted).max() / np.abs(wanted).max(),
  }, report


def save(torch, net, path, arrays=None):
  """Writes safetensors: as `save_pretrained` names them, or `arrays`."""
  from safetensors.numpy import save_file

  if arrays is None:
    net.save_pretrained(path)
    return path / 'model.safetensors'
  path = path / 'other.safetensors'
  save_file({k: np.ascontiguousarray(x) for k, x in arrays.items()}, path)
  return path


def state_dict(net):
  return {name: x.numpy() for name, x in net.state_dict().items()}


def assert_same_weights(path, other, name, size):
  """Both files make the same parameters."""
  first, second = (ours(p, name, size)[1] for p in (path, other))
  jax.tree.map(np.testing.assert_array_equal, first, second)


def substitute(arrays, rules):
  """Arrays under new names; query, key and value joined as 'qkv'."""
  new, parts = {}, {}
  for name, x in arrays.items():
    for pattern, to in rules:
      name = re.sub(pattern, to, name)
    if match := re.fullmatch(r'(.*)\.([qkv])_proj\.(\w+)', name):
      parts.setdefault(f'{match[1]}.qkv.{match[3]}', {})[match[2]] = x
    else:
      new[name] = x
  for name, x in parts.items():
    new[name] = np.concatenate([x['q'], x['k'], x['v']])
  return new


def tokens_forward(hidden, registers=0):
  """`theirs` of `differences` for a vision transformer.

  Args:
    hidden: a batch to its tokens [B, 1 + registers + N, C], the class token
      first, behind the last LayerNorm.
    registers: tokens between it and the patches.
  """

  def forward(x):
    tokens = hidden(x)
    patches = tokens[:, 1 + registers :]
    side = int(patches.shape[1] ** 0.5)
    features = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return features, tokens[:, 0]

  return forward
