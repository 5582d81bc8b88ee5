"""APD's losses against the release's own values and against plain loops."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.data import resample
from csdnet_jax.methods.apd import perspective

DIRECTORY = pathlib.Path(__file__).parents[2] / 'golden'
GOLDEN = np.load(DIRECTORY / 'apd_release.npz')
CASES = 'plain', 'absent_and_ignore', 'three_images_T4', 'one_image'
LAYERS = 'w0', 'b0', 'w1', 'b1'
B, S, D, C = 2, 5, 7, 6  # Images, side, width, classes.
SIDE = 33


def terms(student, teacher, labels, classes, mask=None):
  """The three losses of one group of projected features [b, h, w, D]."""
  small = resample.subsample(labels, *student.shape[1:3]).reshape(-1)

  def seen(x):
    flat = x.reshape(-1, x.shape[-1])
    p, present = perspective.prototypes(flat, small, classes=classes)
    return perspective.observe(x, p), p, present

  zs, ps, present = seen(student)
  zt, pt, _ = seen(teacher)
  return {
    'observation_kl': perspective.observation_kl(zs, zt, present, mask=mask),
    'alignment': perspective.alignment(ps, pt, present),
    'teacher_ce': perspective.cross_entropy(zt, labels),
  }


fast = jax.jit(terms, static_argnums=3)
find = jax.jit(perspective.prototypes, static_argnames=('classes', 'ignore'))
kd = jax.jit(perspective.logit_kd, static_argnums=2)
kd_grad = jax.jit(
  jax.value_and_grad(perspective.logit_kd, (0, 1)), static_argnums=2
)


def everything(arrays, labels, temperature):
  """The sum of all four losses, each beside it."""
  projected = {
    name: perspective.project(
      arrays[f'{name}_features'], *(arrays[f'{name}_{x}'] for x in LAYERS)
    )
    for name in ('student', 'teacher')
  }
  logits = arrays['student_logits'], arrays['teacher_logits']
  parts = terms(**projected, labels=labels, classes=logits[0].shape[-1])
  parts['logit_kd'] = perspective.logit_kd(
    *logits, labels.shape[-2:], temperature=temperature
  )
  return sum(parts.values()), parts


def golden(case):
  """The inputs of a case in our layouts, and its labels."""
  arrays = {}
  for name in GOLDEN.files:
    if name.startswith(f'{case}/') and 'grad' not in name:
      x, key = GOLDEN[name], name.split('/')[1]
      if x.ndim == 4:
        arrays[key] = x.transpose(0, 2, 3, 1)
      elif key[-2:] in LAYERS:
        arrays[key] = x.T
  return arrays, GOLDEN[f'{case}/labels']


def relative(got, wanted):
  return np.abs(np.asarray(got) - wanted).max() / np.abs(wanted).max()


def run(case, dtype):
  """Deviations of values and gradients, relative to max |.|."""
  arrays, labels = golden(case)
  arrays = {k: jnp.asarray(x, dtype) for k, x in arrays.items()}
  labels = jnp.asarray(labels, jnp.int32)
  grad = jax.jit(jax.value_and_grad(everything, has_aux=True), static_argnums=2)
  (_, parts), grads = grad(arrays, labels, 4.0 if 'T4' in case else 1.0)
  assert all(x.dtype == dtype for x in parts.values())
  values = {k: relative(x, GOLDEN[f'{case}/{k}']) for k, x in parts.items()}
  gradients = {}
  # The losses have no parameter in common: one sum gives all gradients.
  for key, x in grads.items():
    if f'{case}/grad_{key}' in GOLDEN.files:
      x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x.T
      gradients[key] = relative(x, GOLDEN[f'{case}/grad_{key}'])
  assert len(values) == 4 and len(gradients) == 5
  return values, gradients


@pytest.mark.parametrize('case', CASES)
def test_the_release_in_float32(case):
  values, gradients = run(case, jnp.float32)
  assert max(values.values()) < 2e-6, values
  assert max(gradients.values()) < 2e-5, gradients


@pytest.mark.parametrize('case', CASES)
def test_the_release_in_float64(case):
  with jax.enable_x64(True):
    values, gradients = run(case, jnp.float64)
  assert max(values.values()) < 1e-10, values
  assert max(gradients.values()) < 1e-10, gradients


# Plain loops, in NumPy and float64.


def unit(x):
  return x / max(np.sqrt((x * x).sum()), 1e-6)


def unit_rows(x):
  x = np.float64(x.reshape(-1, D))
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_prototypes(features, labels, weights=None):
  weights = np.ones(len(labels)) if weights is None else weights
  found = {}
  for k in sorted(set(labels.tolist())):
    rows = [i for i in range(len(labels)) if labels[i] == k and weights[i] > 0]
    if rows and 0 <= k < C:
      mean = sum(weights[i] * unit(features[i]) for i in rows)
      found[k] = unit(mean / sum(weights[i] for i in rows))
  return found


def slow_small(labels):
  index = [int(np.floor(i * SIDE / S)) for i in range(S)]
  return np.array([[[y[i, j] for j in index] for i in index] for y in labels])


def slow_upsample(x):
  scale = (S - 1) / (SIDE - 1)
  out = np.zeros((len(x), SIDE, SIDE, x.shape[-1]))
  for i in range(SIDE):
    for j in range(SIDE):
      a, b = min(int(i * scale), S - 2), min(int(j * scale), S - 2)
      u, v = i * scale - a, j * scale - b
      top = (1 - v) * x[:, a, b] + v * x[:, a, b + 1]
      low = (1 - v) * x[:, a + 1, b] + v * x[:, a + 1, b + 1]
      out[:, i, j] = (1 - u) * top + u * low
  return out


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def slow_kl(student, teacher):
  """The mean over all elements, the class axis included."""
  p, q = softmax(teacher), softmax(student)
  return (p * (np.log(p) - np.log(q))).mean()


def slow_terms(student, teacher, labels):
  small = slow_small(labels).reshape(-1)
  flat_s, flat_t = student.reshape(-1, D), teacher.reshape(-1, D)
  ps, pt = slow_prototypes(flat_s, small), slow_prototypes(flat_t, small)
  zs, zt = (
    np.array([[10 * unit(x) @ p[k] for k in p] for x in f])
    for f, p in ((flat_s, ps), (flat_t, pt))
  )
  full = np.zeros((B * S * S, C))
  full[:, list(pt)] = zt
  large = np.log(softmax(slow_upsample(full.reshape(B, S, S, C))))
  costs = [-large[i][labels[i] == k, k] for k in range(C) for i in range(B)]
  return {
    'observation_kl': slow_kl(zs, zt),
    'alignment': np.mean([0.5 * (1 - ps[k] @ pt[k]) for k in ps]),
    'teacher_ce': np.concatenate(costs).mean(),
  }


def draw(seed=0, among=(0, 1, 3, 5, 255)):
  """Features of both nets and labels, in which classes 2 and 4 are absent."""
  rng = np.random.default_rng(seed)
  student, teacher = rng.normal(size=(2, B, S, S, D))
  labels = rng.choice(among, size=(B, SIDE, SIDE))
  return np.float32(student), np.float32(teacher), np.int32(labels)


@pytest.mark.parametrize('seed', range(3))
def test_terms_equal_loops(seed):
  student, teacher, labels = draw(seed)
  if seed == 2:  # A target that has no prototype: its logit is 0.
    labels[0, 1, 1] = 4
    assert 4 not in slow_small(labels)
  got = fast(student, teacher, labels, C)
  wanted = slow_terms(np.float64(student), np.float64(teacher), labels)
  for name, value in wanted.items():
    np.testing.assert_allclose(got[name], value, rtol=5e-6, err_msg=name)


def test_prototypes_of_regions_with_weights_equal_loops():
  rng = np.random.default_rng(3)
  features = np.float32(rng.normal(size=(40, D)))
  labels = rng.choice([-1, 0, 1, 3, 5, 6, 255], size=40)
  weights = np.float32(rng.choice([0.0, 0.1, 0.7, 2.0], size=40))
  weights[labels == 3] = 0  # Present in the labels only.
  for w in (None, weights):
    p, present = find(features, labels, classes=C, weights=w)
    wanted = slow_prototypes(np.float64(features), labels, w)
    assert np.flatnonzero(present).tolist() == list(wanted)
    assert not np.any(p[~present])
    for k, direction in wanted.items():
      np.testing.assert_allclose(p[k], direction, atol=1e-6)


def test_ignore_may_be_a_class_id_too():
  p, present = find(jnp.eye(3), jnp.array([0, 1, 2]), classes=3, ignore=0)
  assert present.tolist() == [False, True, True] and not p[0].any()
  logits = np.zeros((1, 1, 3, 4), np.float32)
  logits[0, 0, 0] = 9
  entropy = jax.jit(perspective.cross_entropy)
  loss = entropy(logits, np.array([[[0, 1, 2]]]), ignore=0)
  np.testing.assert_allclose(loss, np.log(4), rtol=1e-6)


def test_logit_kd_equals_loops():
  rng = np.random.default_rng(4)
  s, t = np.float32(rng.normal(size=(2, B, S, S, C)))
  got = kd(s, t, (SIDE, SIDE), temperature=2.0)
  large = slow_upsample(np.float64(s)), slow_upsample(np.float64(t))
  wanted = 4 * slow_kl(*(x / 2 for x in large))
  np.testing.assert_allclose(got, wanted, rtol=5e-6)
  mask = jnp.arange(SIDE)[:, None] * jnp.ones((B, 1, SIDE)) < 7
  got = kd(s, t, (SIDE, SIDE), mask=mask)
  wanted = slow_kl(*(x[:, :7] for x in large))
  np.testing.assert_allclose(got, wanted, rtol=5e-6)


def test_the_masked_kl_times_the_classes_is_that_of_a_feature():
  student, teacher, labels = draw()
  mask = np.broadcast_to((np.arange(S) < 2)[:, None], (B, S, S))
  got = fast(student, teacher, labels, C, mask)['observation_kl']
  small = slow_small(labels).reshape(-1)
  q, p = (
    softmax(10 * x @ np.array(list(slow_prototypes(x, small).values())).T)
    for x in (unit_rows(student), unit_rows(teacher))
  )
  kl = (p * np.log(p / q)).sum(-1)[mask.reshape(-1)]
  np.testing.assert_allclose(4 * got, kl.mean(), rtol=5e-6)


def test_order_of_pixels_copies_of_an_image_and_lengths_do_not_matter():
  student, _, labels = draw()
  f, y = student.reshape(-1, D), slow_small(labels).reshape(-1)
  order = np.random.default_rng(5).permutation(len(y))
  p, present = find(f, y, classes=C)
  for features, ids in (
    (f[order], y[order]),
    (np.concatenate([f, f]), np.concatenate([y, y])),
    (f * np.linspace(0.1, 9, len(y), dtype=np.float32)[:, None], y),
  ):
    again, seen = find(features, ids, classes=C)
    np.testing.assert_allclose(again, p, atol=1e-6)
    np.testing.assert_array_equal(seen, present)


def test_names_of_the_classes_do_not_matter():
  student, teacher, labels = draw()
  names = np.random.default_rng(6).permutation(C)
  renamed = np.where(labels == 255, 255, names[np.minimum(labels, C - 1)])
  one = fast(student, teacher, labels, C)
  other = fast(student, teacher, np.int32(renamed), C)
  for name, value in one.items():
    np.testing.assert_allclose(other[name], value, rtol=1e-5, err_msg=name)


@jax.jit
def gradients(student, teacher, labels):
  """d term / d (student, teacher) of each term, and its value."""

  def vector(s, t):
    return terms(s, t, labels, C)

  return jax.jacrev(vector, (0, 1))(student, teacher), vector(student, teacher)


@pytest.mark.parametrize('among', [(0, 3, 255), (255,), (2,), (2, 255)])
@pytest.mark.parametrize('zero', [False, True])
def test_gradients_are_finite_and_stay_on_their_side(among, zero):
  student, teacher, labels = draw(7, among)
  if zero:  # Whole images of zeros, which a ReLU may give.
    student[0], teacher[0] = 0, 0
  grads, values = gradients(student, teacher, labels)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((grads, values)))
  for name in ('observation_kl', 'alignment'):
    assert not np.any(grads[name][1])
  assert not np.any(grads['teacher_ce'][0])
  classes = len(set(among) - {255})
  assert np.any(grads['alignment'][0]) == (classes > 0)
  assert np.any(grads['teacher_ce'][1]) == (classes > 0)
  assert np.any(grads['observation_kl'][0]) == (classes > 1)
  if classes < 2:
    assert values['observation_kl'] == 0
  if classes < 1:
    assert values['alignment'] == values['teacher_ce'] == 0


def test_logits_of_the_teacher_get_no_gradient():
  s, t = np.float32(np.random.default_rng(8).normal(size=(2, 1, S, S, C)))
  value, (ours, theirs) = kd_grad(s, t, (SIDE, SIDE))
  assert value > 0 and np.any(ours) and not np.any(theirs)
  assert abs(kd_grad(t, t, (SIDE, SIDE))[0]) < 1e-8


def test_half_precision_is_computed_in_float32():
  student, teacher, labels = draw()
  half = jnp.bfloat16
  student, teacher = jnp.asarray(student, half), jnp.asarray(teacher, half)
  got = fast(student, teacher, labels, C)
  wanted = fast(np.float32(student), np.float32(teacher), labels, C)
  for name, value in got.items():
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, wanted[name], rtol=1e-6)


def test_groups_are_mapped():
  groups = [draw(9), draw(10, (1, 2, 255))]
  batch = [np.stack(x) for x in zip(*groups, strict=True)]
  got = jax.jit(jax.vmap(lambda *x: terms(*x, C)))(*batch)
  for i, group in enumerate(groups):
    for name, value in fast(*group, C).items():
      np.testing.assert_allclose(got[name][i], value, rtol=1e-5, err_msg=name)


def test_full_size_logits_are_made_by_blocks(monkeypatch):
  rng = np.random.default_rng(11)
  logits, teacher = np.float32(rng.normal(size=(2, B, S, S, C)))
  labels = rng.choice([0, 1, 5, 255], size=(B, SIDE, SIDE))

  def both(logits):
    return perspective.cross_entropy(logits, labels) + perspective.logit_kd(
      logits, teacher, labels.shape[1:], mask=labels != 255
    )

  run = jax.value_and_grad(both)
  value, gradient = jax.jit(run)(logits)
  monkeypatch.setattr(resample, '_BLOCK', 7 * B * SIDE * C)
  again, same = jax.jit(lambda x: run(x))(logits)
  np.testing.assert_allclose(again, value, rtol=2e-6)
  np.testing.assert_allclose(same, gradient, atol=2e-5 * np.abs(gradient).max())


def test_a_papers_crop_of_150_classes_takes_a_fraction_of_its_logits():
  logits = jax.ShapeDtypeStruct((2, 90, 90, 150), jnp.float32)
  labels = jax.ShapeDtypeStruct((2, 713, 713), jnp.int32)

  def losses(student, teacher, labels):
    return perspective.cross_entropy(student, labels) + perspective.logit_kd(
      student, teacher, labels.shape[1:]
    )

  compiled = jax.jit(jax.grad(losses)).lower(logits, logits, labels).compile()
  full = 4 * 2 * 713 * 713 * 150
  assert compiled.memory_analysis().temp_size_in_bytes < full / 2
