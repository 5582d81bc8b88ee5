"""PyTorch twins: random weights, and ours filled with them."""

import jax
import jax.numpy as jnp

LIMIT = 1e-4


def randomise(torch, net):
  """Values of the size that training leaves, BatchNorm's averages too."""
  torch.manual_seed(0)
  scales = {
    f'{name}.weight'
    for name, module in net.named_modules()
    if isinstance(module, torch.nn.BatchNorm2d)
  }
  with torch.no_grad():
    for name, x in net.state_dict().items():
      noise = torch.randn(x.shape)
      if name.endswith('running_var') or name in scales:
        x.copy_(1 + 0.1 * noise.abs())
      elif x.ndim == 4:
        x.copy_(noise / x[0].numel() ** 0.5)
      elif x.ndim:
        x.copy_(0.1 * noise)
  return net.eval()


def state_dict(net):
  return {name: x.numpy() for name, x in net.state_dict().items()}


def fill(model, arrays, size):
  """Our parameters and state with `arrays`, each of which is used."""
  params, state = jax.eval_shape(
    lambda key: model.init(key, size), jax.random.key(0)
  )
  left = {k: x for k, x in arrays.items() if 'num_batches_tracked' not in k}

  def take(path, slot):
    array = left.pop('/'.join(key.key for key in path))
    assert array.shape == slot.shape
    return jnp.array(array)

  params = jax.tree.map_with_path(take, params)
  stats = jax.tree.map_with_path(take, state['batch_stats'])
  assert not left
  return params, {'batch_stats': stats}
