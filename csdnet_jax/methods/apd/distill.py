r"""Losses of other segmentation distillers, beside which APD is measured.

Each compares a student with a detached teacher at the resolution of their
feature maps; means are over images, so that a device's mean can be averaged.
Plain KD is `csdnet_jax.methods.apd.perspective.logit_kd`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from csdnet_jax.methods.losses import at_least_float32


def pairwise(
  student: jax.Array,
  teacher: jax.Array,
  *,
  share: float = 0.5,
  counted: jax.Array | None = None,
) -> jax.Array:
  r"""Pair-wise distillation of SKD (Liu et al., CVPR 2019, section 3.2).

  Features are pooled by their maximum over cells of `share` of the map, rounded
  down; what is left over at the far sides makes cells of its own. With the
  vector a_i of each of the n cells,

    L = 1/n^2 sum_ij (cos(a_i^s, a_j^s) - cos(a_i^t, a_j^t))^2

  whose gradient takes the lengths |a_i| for constants: both as in the release.

  Args:
    student: [b, h, w, D].
    teacher: [b, h, w, D'], detached here; D' may differ from D.
    share: in 0 .. 1; the release has half the map.
    counted: [b] bool, the images that count; None: all.

  Returns:
    [] in 0 .. 4, the mean over images; 0 if none counts.

  Raises:
    ValueError: the maps differ in size, or have less than a row in a cell.
  """
  _same_size(student, teacher)

  def affinity(x):
    x = _max_pool(at_least_float32(x), share)
    length = jnp.linalg.norm(jax.lax.stop_gradient(x), axis=-1, keepdims=True)
    x = x / jnp.maximum(length, 1e-8)
    return jnp.einsum('bic,bjc->bij', x, x, precision='highest')

  target = affinity(jax.lax.stop_gradient(teacher))
  return _mean((affinity(student) - target) ** 2, counted)


def _max_pool(x, share):
  """[b, h, w, D] to [b, n, D]; the last cells of a side may be smaller."""
  b, h, w, d = x.shape
  cell = int(share * h), int(share * w)
  if min(cell) < 1:
    raise ValueError(f'{share} of a map of {h} x {w} is less than a row.')
  rest = [(0, -n % size) for n, size in zip((h, w), cell, strict=True)]
  window, padding = (1, *cell, 1), ((0, 0), *rest, (0, 0))
  x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, padding)
  return x.reshape(b, -1, d)


def _mean(x, counted):
  """The mean over the images of [b, ...] that count."""
  if counted is None:
    return jnp.mean(x)
  of_images = jnp.mean(x.reshape(x.shape[0], -1), axis=1)
  total = jnp.sum(jnp.where(counted, of_images, 0))
  return total / jnp.maximum(jnp.sum(counted), 1)


def channelwise(
  student: jax.Array,
  teacher: jax.Array,
  *,
  temperature: float = 4.0,
  counted: jax.Array | None = None,
) -> jax.Array:
  r"""CWD, channel-wise distillation (Shu et al., ICCV 2021, equation 3).

    L = T^2 / C sum_c KL(softmax_x(t_c / T) || softmax_x(s_c / T))

  with the softmax of each channel over the h w positions x: where a channel
  looks, not how strongly. Of logits a channel is a class.

  Args:
    student: [b, h, w, C].
    teacher: [b, h, w, C], detached here.
    temperature: T > 0.
    counted: [b] bool, the images that count; None: all.

  Returns:
    [] >= 0, the mean over images and channels; 0 if none counts.

  Raises:
    ValueError: the maps differ in size or channels.
  """
  _same_size(student, teacher)
  if student.shape[-1] != teacher.shape[-1]:
    raise ValueError(
      f'{student.shape[-1]} and {teacher.shape[-1]} channels do not pair.'
    )

  def log_shares(x):
    x = at_least_float32(x).reshape(x.shape[0], -1, x.shape[-1])
    return jax.nn.log_softmax(x / temperature, axis=1)

  target = log_shares(jax.lax.stop_gradient(teacher))
  source = log_shares(student)
  divergence = jnp.sum(jnp.exp(target) * (target - source), axis=1)
  return temperature**2 * _mean(divergence, counted)


def _same_size(student, teacher):
  if student.shape[:-1] != teacher.shape[:-1]:
    raise ValueError(
      f'The student gives {student.shape[:-1]} and the teacher '
      f'{teacher.shape[:-1]} positions; they must be the same.'
    )
