r"""Losses of other segmentation distillers, beside which APD is measured.

Each compares a student with a detached teacher at the resolution of their
feature maps; means are over images, so that a device's mean can be averaged.
Plain KD is `csdnet_jax.methods.apd.perspective.logit_kd`.
"""

import jax
import jax.numpy as jnp

from csdnet_jax.methods.cosine import at_least_float32, normalise


def pairwise(
  student: jax.Array, teacher: jax.Array, *, nodes: int = 2
) -> jax.Array:
  r"""Pair-wise distillation of SKD (Liu et al., CVPR 2019, section 3.2).

  Features are pooled by their maximum to a grid of `nodes` x `nodes`, each
  node's vector a_i is normalised, and

    L = 1/n^2 sum_ij (cos(a_i^s, a_j^s) - cos(a_i^t, a_j^t))^2

  over the n = nodes^2 nodes. The release pools by half the map, hence 2.

  Args:
    student: [b, h, w, D].
    teacher: [b, h, w, D'], detached here; D' may differ from D.
    nodes: of a side; h and w are at least as many.

  Returns:
    [] in 0 .. 4, the mean over images.

  Raises:
    ValueError: the maps differ in size, or have fewer rows than nodes.
  """
  _same_size(student, teacher)

  def affinity(x):
    x = normalise(_max_pool(at_least_float32(x), nodes))
    return jnp.einsum('bic,bjc->bij', x, x, precision='highest')

  target = affinity(jax.lax.stop_gradient(teacher))
  return jnp.mean((affinity(student) - target) ** 2)


def _max_pool(x, nodes):
  """[b, h, w, D] to [b, nodes^2, D]; the last rows may be in no node."""
  b, h, w, d = x.shape
  if min(h, w) < nodes:
    raise ValueError(f'A map of {h} x {w} has no {nodes} x {nodes} nodes.')
  rows, columns = h // nodes, w // nodes
  x = x[:, : rows * nodes, : columns * nodes]
  x = x.reshape(b, nodes, rows, nodes, columns, d)
  return jnp.max(x, axis=(2, 4)).reshape(b, nodes**2, d)


def channelwise(
  student: jax.Array, teacher: jax.Array, *, temperature: float = 4.0
) -> jax.Array:
  r"""CWD, channel-wise distillation (Shu et al., ICCV 2021, equation 3).

    L = T^2 / C sum_c KL(softmax_x(t_c / T) || softmax_x(s_c / T))

  with the softmax of each channel over the h w positions x: where a channel
  looks, not how strongly. Of logits a channel is a class.

  Args:
    student: [b, h, w, C].
    teacher: [b, h, w, C], detached here.
    temperature: T > 0.

  Returns:
    [] >= 0, the mean over images and channels.

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
  return temperature**2 * jnp.mean(divergence)


def _same_size(student, teacher):
  if student.shape[:-1] != teacher.shape[:-1]:
    raise ValueError(
      f'The student gives {student.shape[:-1]} and the teacher '
      f'{teacher.shape[:-1]} positions; they must be the same.'
    )
