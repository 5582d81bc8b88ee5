r"""APD's losses: prototypes of this very input as a second classifier.

Adaptive Perspective Distillation, TPAMI 2022 (10.1109/TPAMI.2022.3159581).
Where the paper's text could not be had, the formulas are those that its public
release computes. With f a projected feature, f~ = f / |f|, and M_k the
features whose label is k,

  prototype    p_k = normalise(mean over M_k of f~)
  observation  z_k = 10 cos(f, p_k)

Student and teacher are both observed so. One call is one group of images that
share prototypes (the release: the 2 or 3 of a GPU); `jax.vmap` runs over more.
All shapes are static: an absent class has a zero prototype, hence the logit 0.
Everything is float32, or float64 if that is what comes in; the products of
`project` are of JAX's default precision.
"""

import jax
import jax.numpy as jnp

from csdnet_jax.data.resample import sum_upsampled
from csdnet_jax.methods.losses import at_least_float32, normalise

_LOW = -1e30  # A logit whose probability is 0; its differences stay finite.


def project(features, w0, b0, w1, b1) -> jax.Array:
  """The projector relu(f w0 + b0) w1 + b1: two 1x1 convolutions, no norm.

  Args:
    features: f, [..., D], in front of the last classifier.
    w0: [D, hidden]; the release has 512 everywhere.
    b0: [hidden].
    w1: [hidden, D'].
    b1: [D']; student and teacher may differ in D, but not in D'.

  Returns:
    [..., D'].
  """
  return jax.nn.relu(features @ w0 + b0) @ w1 + b1


def prototypes(
  features: jax.Array,
  labels: jax.Array,
  *,
  classes: int,
  weights: jax.Array | None = None,
  ignore: int = 255,
  axis: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """normalise(mean over M_k of f~): one direction per class that is present.

    >>> f = jnp.array([[3.0, 0.0], [0.0, 5.0], [7.0, 7.0]])
    >>> directions, present = prototypes(f, jnp.array([1, 1, 255]), classes=2)
    >>> directions.round(3).tolist(), present.tolist()
    ([[0.0, 0.0], [0.7070000171661377, 0.7070000171661377]], [False, True])

  Args:
    features: f, [n, D], projected; pixels, regions or tokens alike.
    labels: [n] integers; other values than 0 .. classes - 1 are left out.
    classes: C.
    weights: [n], >= 0, of a weighted mean (ours); None: all 1, the release.
    ignore: the label that is left out even if it is less than `classes`.
    axis: a device axis, over which the means are taken too, or None.

  Returns:
    The prototypes [C, D], of length 1 or, where a class is absent, 0; and
    which classes are present, [C] bool.
  """
  features = normalise(features)
  masks = jax.nn.one_hot(labels, classes, dtype=features.dtype)
  masks = jnp.where((labels != ignore)[:, None], masks, 0)
  if weights is not None:
    masks = masks * weights.astype(masks.dtype)[:, None]
  total = jnp.sum(masks, axis=0)
  sums = jnp.einsum('nc,nd->cd', masks, features, precision='highest')
  if axis is not None:
    total, sums = jax.lax.psum((total, sums), axis)
  present = total > 0
  return normalise(sums / jnp.where(present, total, 1)[:, None]), present


def observe(
  features: jax.Array, prototypes: jax.Array, *, scale: float = 10.0
) -> jax.Array:
  """The adaptive observation scale * cos(f, p_k); 0 for absent classes.

  Args:
    features: f, [..., D], projected.
    prototypes: p, [C, D], from `prototypes`.
    scale: the release multiplies by 10.

  Returns:
    [..., C] in -scale .. scale.
  """
  cosines = jnp.matmul(normalise(features), prototypes.T, precision='highest')
  return scale * cosines


def _mean(x, mask):
  """The mean of x where mask is set; 0 where it is nowhere, all if None."""
  if mask is None:
    return jnp.mean(x)
  return jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(jnp.sum(mask), 1)


def _kl(student, teacher, present=True):
  """KL(teacher || student) [...] over the present classes, target detached."""
  teacher = at_least_float32(jax.lax.stop_gradient(teacher))
  source = jax.nn.log_softmax(
    jnp.where(present, at_least_float32(student), _LOW)
  )
  target = jax.nn.log_softmax(jnp.where(present, teacher, _LOW))
  share = jnp.where(present, jnp.exp(target), 0)
  return jnp.sum(share * jnp.where(present, target - source, 0), axis=-1)


def observation_kl(
  student: jax.Array,
  teacher: jax.Array,
  present: jax.Array,
  *,
  mask: jax.Array | None = None,
) -> jax.Array:
  """KL(softmax(z_teacher) || softmax(z_student)) over the present classes.

  Args:
    student: z [..., C] from `observe`; gradients reach its prototypes too.
    teacher: z [..., C]; detached here.
    present: [C] bool.
    mask: [...] bool, the features that count; None: all, as in the release,
      which has ignored pixels take part.

  Returns:
    [] >= 0, the mean over features and over the N present classes, as in the
    release: N times it is the KL of a feature. 0 if N is 0 or 1.
  """
  divergence = _mean(_kl(student, teacher, present), mask)
  return divergence / jnp.maximum(jnp.sum(present), 1)


def alignment(
  student: jax.Array, teacher: jax.Array, present: jax.Array
) -> jax.Array:
  """The mean over present classes of (1 - cos(p_student, p_teacher)) / 2.

  Args:
    student: [C, D] from `prototypes`.
    teacher: [C, D]; detached here.
    present: [C] bool.

  Returns:
    [] in 0 .. 1; 0 if no class is present.
  """
  cosine = jnp.sum(student * jax.lax.stop_gradient(teacher), axis=-1)
  return _mean(0.5 * (1 - cosine), present)


def cross_entropy(
  logits: jax.Array, labels: jax.Array, *, ignore: int = 255
) -> jax.Array:
  """Cross entropy of upsampled logits: the teacher projector's own loss.

  Of the teacher's observation all C classes count: absent ones have logit 0,
  and a class that `resample.subsample` lost is still a target. It trains the
  projector through features and prototypes. Also fits a network's own logits.

  Args:
    logits: [b, h, w, C].
    labels: [b, H, W]; other values than 0 .. C - 1 are ignored.
    ignore: the label that is ignored even if it is less than C.

  Returns:
    [] >= 0, the mean over labelled pixels; 0 if there is none.
  """
  logits = at_least_float32(logits)
  valid = (labels != ignore) & (labels >= 0) & (labels < logits.shape[-1])
  targets = jnp.where(valid, labels.astype(jnp.int32) + 1, 0)
  total = sum_upsampled(_entropies, logits, (), targets)
  return total / jnp.maximum(jnp.sum(valid), 1)


def _entropies(logits, fixed, targets):
  """The sum over pixels; targets are labels + 1, and 0 where none counts."""
  del fixed
  hit = targets[..., None] == jnp.arange(1, logits.shape[-1] + 1)
  picked = jnp.sum(jnp.where(hit, logits, 0), axis=-1)
  entropy = jax.nn.logsumexp(logits, axis=-1) - picked
  return jnp.sum(jnp.where(targets > 0, entropy, 0))


def logit_kd(
  student: jax.Array,
  teacher: jax.Array,
  size: tuple[int, int],
  *,
  temperature: float = 1.0,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Plain KD, T^2 KL(softmax(teacher / T) || softmax(student / T)) per pixel.

  Args:
    student: [b, h, w, C] logits.
    teacher: [b, h', w', C] logits; detached here.
    size: (H, W) of the labels, to which both are upsampled.
    temperature: T > 0; the release has 1.
    mask: [b, H, W] bool, the pixels that count; None: all, as in the release.

  Returns:
    [] >= 0, the mean over pixels and over the C classes, as in the release: C
    times it is the KL of a pixel.
  """
  if mask is None:
    mask = jnp.ones((student.shape[0], *size), bool)
  student, teacher = (
    at_least_float32(x) / temperature for x in (student, teacher)
  )
  total = sum_upsampled(
    _divergences, student, (jax.lax.stop_gradient(teacher),), mask
  )
  share = temperature**2 / student.shape[-1]
  return share * total / jnp.maximum(jnp.sum(mask), 1)


def _divergences(student, teacher, mask):
  """The sum over pixels where the mask is set."""
  return jnp.sum(jnp.where(mask, _kl(student, *teacher), 0))
