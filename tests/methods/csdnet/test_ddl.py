"""DDL against loops, against the peers' own values, and over devices."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax import memory
from csdnet_jax.methods.csdnet import ddl
from csdnet_jax.methods.losses import normalise

import reference

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'clevit_contrast.npz'
A, D, K = 8, 4, 6


def draw(seed=0, n=A, classes=3):
  """n embeddings that are close enough to pass the margin, labels, ids."""
  rng = np.random.default_rng(seed)
  embeddings = rng.normal(size=(n, D)) + 0.7
  labels = rng.integers(0, classes, n)
  return embeddings.astype(np.float32), np.int32(labels), np.int32(labels * 2)


def queue(filled, garbage=0.0, seed=1):
  state = memory.init(K, D)
  if filled:
    state = memory.push(state, *draw(seed, filled))
  empty = np.arange(K) >= filled
  keys = jnp.where(empty[:, None], garbage, state.keys)
  return state._replace(keys=keys)


def listed(embeddings, labels, ids, n=None):
  return list(zip(embeddings, labels, ids, strict=True))[:n]


def contrast(embeddings, labels, ids, state=(), **options):
  args = normalise(embeddings), labels, ids
  return ddl.loss(*args, *args, state, **options)[0]


STATIC = 'averaging', 'exclude_same_image'
one_device = jax.jit(contrast, static_argnames=STATIC)
value_and_grad = jax.jit(jax.value_and_grad(contrast), static_argnames=STATIC)


@pytest.mark.parametrize('averaging', ['separate', 'joint'])
@pytest.mark.parametrize(
  'filled,margin', [(None, 0.4), (0, 0.4), (4, 0.4), (4, 0.0), (6, 0.4)]
)
def test_value_and_gradient_equal_loops(averaging, filled, margin):
  embeddings, labels, ids = draw()
  state = () if filled is None else queue(filled)
  rows = listed(*draw(1, filled)) if filled else []
  options = {'margin': margin, 'averaging': averaging}

  def expected(x):
    return reference.contrast(listed(x, labels, ids), rows, **options)

  value, grad = value_and_grad(embeddings, labels, ids, state, **options)
  assert value.shape == () and value.dtype == jnp.float32
  np.testing.assert_allclose(value, expected(embeddings), rtol=1e-5)
  wanted = reference.gradient(expected, embeddings)
  assert np.abs(wanted).max() > 1e-3
  np.testing.assert_allclose(grad, wanted, atol=1e-5)


@pytest.mark.parametrize('seed', ['1', '2', '3'])
def test_joint_without_queue_is_what_the_peers_train_with(seed):
  golden = np.load(GOLDEN)
  features = np.float32(golden[f'{seed}/features'])
  labels = np.int32(golden[f'{seed}/labels'])
  value, grad = value_and_grad(
    features, labels, np.arange(len(labels)), averaging='joint', margin=0.4
  )
  assert abs(value - golden[f'{seed}/loss']) < 2e-6
  wanted = golden[f'{seed}/grad']
  assert np.abs(grad - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_the_margin_is_04_and_the_averaging_separate_unless_said():
  batch = draw()
  assert one_device(*batch, queue(4)) == one_device(
    *batch, queue(4), margin=0.4, averaging='separate'
  )


@pytest.mark.parametrize('averaging', ['separate', 'joint'])
def test_empty_rows_never_matter(averaging):
  batch = draw()
  clean = value_and_grad(*batch, queue(3), averaging=averaging)
  dirty = value_and_grad(*batch, queue(3, garbage=1e3), averaging=averaging)
  jax.tree.map(np.testing.assert_array_equal, clean, dirty)
  empty = value_and_grad(*batch, queue(0, garbage=-7.0), averaging=averaging)
  none = value_and_grad(*batch, (), averaging=averaging)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), empty, none
  )


def test_no_memory_may_be_written_none():
  batch = draw()
  assert one_device(*batch, None) == one_device(*batch, ())


@pytest.mark.parametrize('averaging', ['separate', 'joint'])
def test_the_order_of_rows_does_not_matter(averaging):
  batch = draw()
  order = np.random.default_rng(2).permutation(A)
  turn = np.random.default_rng(3).permutation(K)
  state = queue(K)
  turned = state._replace(
    keys=state.keys[turn], labels=state.labels[turn], ids=state.ids[turn]
  )
  np.testing.assert_allclose(
    one_device(*(x[order] for x in batch), turned, averaging=averaging),
    one_device(*batch, state, averaging=averaging),
    rtol=1e-6,
  )


@pytest.mark.parametrize('averaging', ['separate', 'joint'])
def test_only_the_direction_of_an_embedding_counts(averaging):
  embeddings, labels, ids = draw()
  scale = np.linspace(0.1, 30, A, dtype=np.float32)[:, None]
  np.testing.assert_allclose(
    one_device(scale * embeddings, labels, ids, queue(4), averaging=averaging),
    one_device(embeddings, labels, ids, queue(4), averaging=averaging),
    rtol=1e-5,
  )


def test_a_zero_embedding_has_a_finite_gradient():
  embeddings, labels, ids = draw()
  embeddings[2] = 0.0
  value, grad = value_and_grad(embeddings, labels, ids, queue(4))
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_low_precision_embeddings_are_contrasted_in_float32():
  embeddings, labels, ids = draw()
  low = jnp.asarray(embeddings, jnp.bfloat16)
  value = one_device(low, labels, ids)
  assert value.dtype == jnp.float32
  assert value == one_device(low.astype(jnp.float32), labels, ids)


@pytest.mark.parametrize('averaging', ['separate', 'joint'])
def test_no_gradient_reaches_the_queue(averaging):
  state = queue(4)

  def through(keys):
    return one_device(*draw(), state._replace(keys=keys), averaging=averaging)

  np.testing.assert_array_equal(jax.grad(through)(state.keys), 0.0)


def test_a_kind_without_a_pair_adds_nothing():
  embeddings, _, ids = draw()
  same, apart = np.zeros(A, np.int32), np.arange(A, dtype=np.int32)
  for labels in (same, apart):
    rows = listed(embeddings, labels, ids)
    np.testing.assert_allclose(
      one_device(embeddings, labels, ids), reference.contrast(rows), rtol=1e-5
    )
  alone = one_device(embeddings[:1], same[:1], ids[:1])
  assert alone == 0.0


def test_the_same_image_can_be_left_out():
  """In the batch (its other view) and in the queue (its older keys)."""
  embeddings, labels, _ = draw()
  ids = np.int32([0, 1, 2, 3, 0, 1, 2, 3])
  labels = labels[ids]
  keys, _, _ = draw(1, 4)
  old_ids = np.int32([3, 0, 9, 2])
  old_labels = np.int32([labels[3], labels[0], labels[0], labels[2]])
  state = memory.push(memory.init(K, D), keys, old_labels, old_ids)
  rows = listed(keys, old_labels, old_ids)

  def expected(x):
    return reference.contrast(
      listed(x, labels, ids), rows, exclude_same_image=True
    )

  value, grad = value_and_grad(
    embeddings, labels, ids, state, exclude_same_image=True
  )
  np.testing.assert_allclose(value, expected(embeddings), rtol=1e-5)
  np.testing.assert_allclose(
    grad, reference.gradient(expected, embeddings), atol=1e-5
  )
  assert value != pytest.approx(
    float(one_device(embeddings, labels, ids, state))
  )


def test_the_means_of_both_kinds_are_reported():
  batch = draw()
  batch = normalise(batch[0]), *batch[1:]
  args = (*batch, *batch, queue(4))
  loss = jax.jit(ddl.loss, static_argnames=STATIC)
  value, figures = loss(*args)
  assert figures.keys() == {'positive', 'negative'}
  np.testing.assert_allclose(sum(figures.values()), value, rtol=1e-6)
  _, joint = loss(*args, averaging='joint')
  jax.tree.map(np.testing.assert_array_equal, figures, joint)


@pytest.mark.parametrize(
  'averaging,exclude',
  [('separate', False), ('separate', True), ('joint', False)],
)
def test_four_devices_agree_with_one(averaging, exclude):
  inputs, labels, _ = draw()
  ids = np.int32(np.arange(A) % 5)
  labels[5:] = labels[:3]
  state = queue(4)
  weights = np.random.default_rng(4).normal(size=(D, D)).astype(np.float32)
  options = {'averaging': averaging, 'exclude_same_image': exclude}

  def whole(weights):
    return one_device(inputs @ weights, labels, ids, state, **options)

  def part(weights, inputs, labels, ids):
    def local(weights):
      anchors = normalise(inputs @ weights), labels, ids
      candidates = (jax.lax.all_gather(x, 'data', tiled=True) for x in anchors)
      offset = jax.lax.axis_index('data') * len(labels)
      value, _ = ddl.loss(
        *anchors,
        *candidates,
        state,
        self_offset=offset,
        axis='data',
        **options,
      )
      return value

    return jax.lax.pmean(jax.value_and_grad(local)(weights), 'data')

  mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), 'data')
  split, every = (
    jax.sharding.PartitionSpec('data'),
    jax.sharding.PartitionSpec(),
  )
  shared = jax.jit(
    jax.shard_map(
      part,
      mesh=mesh,
      in_specs=(every, split, split, split),
      out_specs=every,
      # Gradients are averaged by hand, as under pmap.
      check_vma=False,
    )
  )
  value, grad = shared(weights, inputs, labels, ids)
  expected, wanted = jax.jit(jax.value_and_grad(whole))(weights)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(grad, wanted, rtol=1e-4, atol=1e-6)


def test_an_unknown_averaging_is_refused():
  with pytest.raises(ValueError, match='median'):
    one_device(*draw(), averaging='median')
