"""SSDP's saliency, its kernels, and masks that hide an exact share."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from csdnet_jax.methods.csdnet import ssdp

import reference

rank_mask = jax.jit(ssdp.rank_mask, static_argnames='keep')
content_upsample = jax.jit(ssdp.content_upsample, static_argnames='temperature')
content_kernel = jax.jit(ssdp.content_kernel, static_argnames='size')
box_kernel = jax.jit(ssdp.box_kernel, static_argnames='size')
similarity_map = jax.jit(ssdp.similarity_map)
margin_map = jax.jit(ssdp.margin_map)
saliency_map = jax.jit(
  ssdp.saliency_map, static_argnames=('saliency', 'kernel')
)


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_similarity_is_the_cosine_to_the_embedding():
  features, embedding = normal(2, 4, 5, 6), normal(2, 6, seed=1)
  found = similarity_map(features, embedding)
  expected = reference.similarity_map(features, embedding)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  # A cosine: no scale, and 0 where there is no feature.
  np.testing.assert_allclose(
    similarity_map(50 * features, embedding / 50), found, atol=1e-6
  )
  empty = similarity_map(np.zeros_like(features), embedding)
  np.testing.assert_array_equal(empty, 0.0)


def test_margin_is_against_the_most_confused_other_class():
  features, kernel = normal(4, 3, 4, 6), normal(6, 5, seed=1)
  logits, labels = normal(4, 5, seed=2), np.array([0, 3, 4, 1], np.int32)
  # An image that is classified rightly, and one that is not.
  logits[0, 0], logits[1, 3] = 9.0, -9.0
  found = margin_map(features, kernel, logits, labels)
  expected = reference.margin_map(features, kernel, logits, labels)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_margin_sums_to_the_margin_of_the_logits():
  """The logits are the mean activation: a check of meaning, not of code."""
  features, kernel = normal(1, 3, 3, 6), normal(6, 4, seed=1)
  logits = features.mean((1, 2)) @ kernel
  label = np.array([2], np.int32)
  margin = margin_map(features, kernel, logits, label).mean()
  rival = np.delete(logits[0], 2).max()
  np.testing.assert_allclose(margin, logits[0, 2] - rival, atol=1e-5)


@pytest.mark.parametrize('size,temperature', [(3, 0.1), (3, 1.0), (5, 0.1)])
def test_content_kernel_equals_numpy(size, temperature):
  features, saliency = normal(2, 4, 6, 5), normal(2, 4, 6, seed=1)
  found = content_kernel(features, saliency, size=size, temperature=temperature)
  expected = reference.content_kernel(features, saliency, size, temperature)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('shape', [(8, 12), (7, 5)])
def test_content_upsampling_equals_numpy(shape):
  fine, saliency = normal(2, *shape, 5), normal(2, 4, 3, seed=1)
  for temperature in (0.2, np.inf):
    found = content_upsample(fine, saliency, temperature=temperature)
    expected = reference.content_upsample(fine, saliency, 3, temperature)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_upsampled_map_follows_the_outline_of_fine_features():
  """A leaf whose edge lies within the coarse cells, not between them."""
  leaf = np.zeros((16, 16), np.float32)
  leaf[:, 6:] = 1.0
  fine = np.stack([leaf, 1 - leaf], -1)[None]
  coarse = leaf.reshape(4, 4, 4, 4).mean((1, 3))[None]
  found = content_upsample(fine, coarse, temperature=0.05)[0]
  assert found[:, :6].max() < 0.1 and found[:, 6:].min() > 0.9


@pytest.mark.parametrize('size', [1, 3, 5])
def test_box_kernel_equals_numpy(size):
  saliency = normal(2, 4, 6)
  found = box_kernel(saliency, size=size)
  expected = reference.box_kernel(saliency, size)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_both_kernels_keep_a_constant_map_up_to_its_border():
  features, saliency = normal(1, 4, 4, 5), np.full((1, 4, 4), 0.7, np.float32)
  for smooth in (
    box_kernel(saliency),
    content_kernel(features, saliency),
  ):
    np.testing.assert_allclose(smooth, 0.7, atol=1e-6)


def test_content_stays_apart_where_the_box_blurs():
  """Two textures side by side, a bright and a dark one."""
  features = np.zeros((1, 6, 6, 2), np.float32)
  features[:, :, :3, 0] = features[:, :, 3:, 1] = 1.0
  saliency = np.zeros((1, 6, 6), np.float32)
  saliency[:, :, 3:] = 1.0
  content = content_kernel(features, saliency)
  np.testing.assert_allclose(content, saliency, atol=1e-3)
  assert np.abs(box_kernel(saliency) - saliency).max() > 0.3


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  kind=st.sampled_from(['noise', 'constant', 'two values', 'huge', 'ramp']),
  shares=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2),
  keep=st.sampled_from(['high', 'low']),
  seed=st.integers(0, 99),
)
def test_the_hidden_share_holds_for_any_map(kind, shares, keep, seed):
  shape = (2, 24, 20)
  saliency = {
    'noise': normal(*shape, seed=seed),
    'constant': np.full(shape, seed, np.float32),
    'two values': (normal(*shape, seed=seed) > 0.5).astype(np.float32),
    'huge': 1e30 * normal(*shape, seed=seed),
    'ramp': np.arange(2 * 480, dtype=np.float32).reshape(shape),
  }[kind]
  mask = rank_mask(keys(2, seed), saliency, np.float32(shares), keep=keep)
  assert mask.shape == shape
  assert mask.min() >= 0 and mask.max() <= 1
  np.testing.assert_allclose(1 - mask.mean((1, 2)), shares, atol=1e-3)


@pytest.mark.parametrize('edge', [0.01, 0.05, 0.2])
def test_the_soft_edge_is_as_wide_as_asked(edge):
  saliency = normal(1, 64, 64)
  mask = np.asarray(rank_mask(keys(1), saliency, jnp.array([0.3]), edge=edge))
  soft = ((mask > 0) & (mask < 1)).mean()
  assert soft == pytest.approx(edge, abs=2e-3)
  # Outside the edge: entirely hidden, entirely shown.
  assert (mask == 0).mean() == pytest.approx(0.3 - edge / 2, abs=2e-3)
  assert (mask == 1).mean() == pytest.approx(0.7 - edge / 2, abs=2e-3)


def test_spotlight_shows_and_erase_hides_the_most_telling():
  saliency, hidden = normal(1, 16, 16), jnp.array([0.3])
  order = np.argsort(saliency.ravel())
  for keep, best, worst in (('high', 1.0, 0.0), ('low', 0.0, 1.0)):
    mask = np.asarray(rank_mask(keys(1), saliency, hidden, keep=keep)).ravel()
    assert mask[order[-1]] == best and mask[order[0]] == worst
    steps = np.diff(mask[order])
    assert np.all(steps >= 0) if keep == 'high' else np.all(steps <= 0)


@pytest.mark.parametrize('keep', ['high', 'low'])
@pytest.mark.parametrize('share', [0.0, 0.02, 0.3, 1.0])
def test_a_share_of_some_places_is_hidden_and_nothing_else(keep, share):
  saliency, leaf = normal(2, 24, 20), np.zeros((2, 24, 20), bool)
  leaf[0, 5:15, 5:15] = leaf[1, 2:20] = True
  shares = np.full(2, share, np.float32)
  mask = np.asarray(rank_mask(keys(2), saliency, shares, leaf, keep=keep))
  for m, inside in zip(mask, leaf, strict=True):
    np.testing.assert_array_equal(m[~inside], 1.0)
    assert 1 - m[inside].mean() == pytest.approx(share, abs=2e-3)
  nowhere = rank_mask(keys(2), saliency, shares, np.zeros_like(leaf), keep=keep)
  np.testing.assert_array_equal(nowhere, 1.0)


def test_the_mask_follows_ranks_not_values():
  saliency, hidden = normal(1, 16, 16), jnp.array([0.3])
  np.testing.assert_array_equal(
    rank_mask(keys(1), saliency, hidden),
    rank_mask(keys(1), np.exp(3 * saliency), hidden),
  )


def test_ties_are_broken_by_the_key_alone():
  flat, hidden = np.zeros((2, 16, 16), np.float32), jnp.array([0.3, 0.3])
  mask = rank_mask(keys(2), flat, hidden)
  assert not np.array_equal(mask[0], mask[1])
  np.testing.assert_array_equal(rank_mask(keys(2), flat, hidden), mask)
  # A line in any direction: over many keys each quarter is hidden alike.
  many = jnp.zeros((64, 16, 16))
  mask = rank_mask(keys(64), many, jnp.full(64, 0.3))
  quarters = np.asarray(mask).reshape(64, 2, 8, 2, 8).mean((0, 2, 4))
  assert np.abs(quarters - 0.7).max() < 0.15
  # Where nothing ties, the key has no say.
  saliency = normal(2, 16, 16)
  np.testing.assert_array_equal(
    rank_mask(keys(2, 1), saliency, hidden),
    rank_mask(keys(2), saliency, hidden),
  )


def test_a_mask_depends_on_its_own_row_alone():
  saliency, hidden = np.zeros((3, 8, 8), np.float32), jnp.array([0.2, 0.3, 0.4])
  k = keys(3)
  mask = rank_mask(k, saliency, hidden)
  order = np.array([2, 0])
  np.testing.assert_array_equal(
    rank_mask(k[order], saliency[order], hidden[order]), mask[order]
  )


def test_hidden_pixels_take_the_fill_colour():
  images, fill = normal(2, 4, 4, 3), np.array([0.1, 0.2, 0.3], np.float32)
  mask = np.random.default_rng(0).random((2, 4, 4), np.float32)
  mask[:, 0], mask[:, 1] = 0.0, 1.0
  shown = np.asarray(ssdp.apply_mask(images, mask, fill))
  np.testing.assert_array_equal(shown[:, 0], np.broadcast_to(fill, (2, 4, 3)))
  np.testing.assert_array_equal(shown[:, 1], images[:, 1])
  m = mask[..., None]
  np.testing.assert_allclose(shown, m * images + (1 - m) * fill, atol=1e-6)


@pytest.mark.parametrize(
  'saliency,kernel,fine',
  [
    ('similarity', 'content', False),
    ('margin', 'box', False),
    ('margin', 'content', True),
    ('similarity', 'box', True),
  ],
)
def test_the_saliency_is_composed_and_its_gradient_stopped(
  saliency, kernel, fine
):
  features, embedding = normal(2, 4, 4, 6), normal(2, 6, seed=1)
  head, logits = normal(6, 5, seed=2), normal(2, 5, seed=3)
  labels = np.array([1, 4], np.int32)

  @jax.jit
  def composed(args, fine):
    def total(args, fine):
      options = {'saliency': saliency, 'kernel': kernel}
      found = ssdp.saliency_map(*args, labels, fine, **options)
      return found.sum(), found

    return jax.grad(total, argnums=(0, 1), has_aux=True)(args, fine)

  args = features, embedding, head, logits
  if saliency == 'similarity':
    expected = reference.similarity_map(features, embedding)
  else:
    expected = reference.margin_map(features, head, logits, labels)
  fine = normal(2, 8, 8, 3, seed=4) if fine else None
  if fine is not None:
    temperature = 0.1 if kernel == 'content' else np.inf
    expected = reference.content_upsample(fine, expected, 3, temperature)
  elif kernel == 'content':
    expected = reference.content_kernel(features, expected, 3, 0.1)
  else:
    expected = reference.box_kernel(expected, 3)
  grads, found = composed(args, fine)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  for grad in jax.tree.leaves(grads):
    np.testing.assert_array_equal(grad, 0.0)


def test_the_margin_falls_back_while_the_head_is_zero():
  args = normal(2, 4, 4, 6), normal(2, 6, seed=1)
  rest = np.zeros((6, 5), np.float32), np.zeros((2, 5)), np.array([1, 4])
  np.testing.assert_array_equal(
    saliency_map(*args, *rest, saliency='margin'),
    saliency_map(*args, *rest, saliency='similarity'),
  )


def test_upsampling_is_bilinear_and_keeps_the_places():
  ramp = np.tile(np.arange(4, dtype=np.float32), (1, 4, 1))
  large = np.asarray(ssdp.upsample(ramp, 16, 32))
  assert large.shape == (1, 16, 32)
  centres = (np.arange(32) + 0.5) / 8 - 0.5
  # The steps are 3 / 2^16.
  np.testing.assert_allclose(large[0, 5], np.clip(centres, 0, 3), atol=3e-5)


def test_the_rim_of_an_upsampled_map_is_flat_bit_for_bit():
  large = np.asarray(ssdp.upsample(normal(3, 5, 5), 40, 40))
  for corner in (large[:, :4, :4], large[:, -4:, :4], large[:, -4:, -4:]):
    np.testing.assert_array_equal(corner, corner[:, :1, :1] + 0 * corner)


@pytest.mark.parametrize('option', ['saliency', 'kernel'])
def test_unknown_options_are_refused(option):
  args = normal(1, 2, 2, 3), normal(1, 3), normal(3, 2), normal(1, 2)
  with pytest.raises(ValueError, match='nonsense'):
    ssdp.saliency_map(*args, np.array([0]), **{option: 'nonsense'})
  with pytest.raises(ValueError, match='nonsense'):
    ssdp.rank_mask(keys(1), args[0][..., 0], jnp.ones(1), keep='nonsense')


@pytest.mark.parametrize(
  ('places', 'size', 'side'),
  [(4, 128, 32), (16, 128, 32), (28, 224, 56), (56, 448, 64), (2, 24, 24)],
)
def test_a_map_is_ranked_on_twice_its_places_within_bounds(places, size, side):
  assert ssdp.ranked_side(places, size) == side


@pytest.mark.parametrize('side', [16, 64])
def test_an_enlarged_mask_hides_the_same_share(side):
  shares = np.float32([0.2, 0.4])
  mask = rank_mask(keys(2), normal(2, 16, 16), shares)
  large = ssdp.enlarge(mask, side, side)
  np.testing.assert_allclose(large.mean((1, 2)), 1 - shares, atol=1e-3)
