"""Exact counts: ties, NaN, padding, sums over batches and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.evaluation import metrics

classification_sums = jax.jit(metrics.classification_sums, static_argnums=3)


def draw(n, classes, seed=0):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(n, classes)).astype(np.float32)
  labels = rng.integers(0, classes, n).astype(np.int32)
  return logits, labels, np.ones(n, bool)


def figures(logits, labels, mask, classes):
  sums = classification_sums(logits, labels, mask, classes)
  return metrics.classification_figures(sums), sums


@pytest.mark.parametrize('classes', [1, 3, 5, 12])
def test_counts_equal_numpy(classes):
  logits, labels, mask = draw(57, classes)
  mask[50:] = False
  found, sums = figures(logits, labels, mask, classes)

  confusion = np.zeros((classes, classes), int)
  top1 = top5 = loss = 0
  for row, label in zip(logits[mask].astype(float), labels[mask], strict=True):
    order = np.argsort(-row, kind='stable')
    top1 += order[0] == label
    top5 += label in order[:5]
    confusion[label, order[0]] += 1
    loss -= np.log(np.exp(row[label]) / np.exp(row).sum())
  assert int(sums['top1']) == top1
  assert int(sums['top5']) == top5
  assert int(sums['weight']) == 50
  np.testing.assert_array_equal(sums['correct'], np.diagonal(confusion))
  np.testing.assert_array_equal(sums['images'], confusion.sum(1))
  np.testing.assert_allclose(sums['loss'], loss, rtol=1e-5, atol=1e-5)
  assert found['n'] == 50
  assert found['top1'] == pytest.approx(100 * top1 / 50)
  assert found['top5'] == pytest.approx(100 * top5 / 50)
  assert found['loss'] == pytest.approx(loss / 50, abs=1e-6)
  if classes <= 5:
    assert found['top5'] == 100.0


def test_mean_per_class_is_sklearns_balanced_accuracy():
  from sklearn import metrics as peer

  logits, labels, mask = draw(200, 7)
  labels = np.minimum(labels, 5)  # class 6 has no image
  logits[:, 6] = -9.0  # sklearn warns of predictions without a label
  found, _ = figures(logits, labels, mask, 7)
  expected = peer.balanced_accuracy_score(labels, logits.argmax(1))
  assert found['mean_per_class'] == pytest.approx(100 * expected)
  assert found['mean_per_class'] != pytest.approx(found['top1'])


def test_equal_logits_rank_by_class_as_argmax_does():
  logits, labels = np.zeros((8, 8), np.float32), np.arange(8)
  found, sums = figures(logits, labels, np.ones(8, bool), 8)
  assert found['top1'] == pytest.approx(100 / 8)
  assert found['top5'] == pytest.approx(500 / 8)
  np.testing.assert_array_equal(sums['correct'], [1, *[0] * 7])


def test_nan_is_never_correct():
  nan = np.nan
  logits = np.array(
    [[nan, nan, nan], [nan, 0, 1], [5, nan, 1], [5, 0, 1]], np.float32
  )
  labels = np.zeros(4, np.int32)
  found, sums = figures(logits, labels, np.ones(4, bool), 3)
  assert found['top1'] == found['top5'] == found['mean_per_class'] == 25.0
  assert int(sums['correct'].sum()) == 1
  assert np.isnan(found['loss'])


def test_infinite_logits_are_ranked():
  logits = np.array([[np.inf, 0], [-np.inf, 0]], np.float32)
  labels = np.zeros(2, np.int32)
  found, _ = figures(logits, labels, np.ones(2, bool), 2)
  assert found['top1'] == 50.0


@pytest.mark.parametrize('garbage', [np.nan, np.inf, 1e30])
def test_padded_rows_add_nothing(garbage):
  logits, labels, mask = draw(9, 4)
  _, expected = figures(logits, labels, mask, 4)
  logits = np.concatenate([logits, np.full((3, 4), garbage, np.float32)])
  labels = np.concatenate([labels, [-1, 0, 99]]).astype(np.int32)
  mask = np.concatenate([mask, [False] * 3])
  _, found = figures(logits, labels, mask, 4)
  jax.tree.map(np.testing.assert_array_equal, expected, found)


def test_sums_add_over_batches():
  logits, labels, mask = draw(40, 6)
  whole, _ = figures(logits, labels, mask, 6)
  parts = [
    classification_sums(
      logits[i : i + 10], labels[i : i + 10], mask[i : i + 10], 6
    )
    for i in range(0, 40, 10)
  ]
  found = metrics.classification_figures(
    jax.tree.map(lambda *xs: sum(np.asarray(x) for x in xs), *parts)
  )
  assert found == pytest.approx(whole)
  assert {k: found[k] for k in ('top1', 'top5', 'mean_per_class', 'n')} == {
    k: whole[k] for k in ('top1', 'top5', 'mean_per_class', 'n')
  }


def test_sums_add_over_devices():
  logits, labels, mask = draw(40, 6)
  mask[-3:] = False
  _, whole = figures(logits, labels, mask, 6)
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), 'data')
  spec = jax.sharding.PartitionSpec('data')
  found = jax.jit(
    jax.shard_map(
      lambda *batch: jax.lax.psum(
        metrics.classification_sums(*batch, 6), 'data'
      ),
      mesh=mesh,
      in_specs=(spec, spec, spec),
      out_specs=jax.sharding.PartitionSpec(),
    )
  )(logits, labels, mask)
  for name in whole.keys() - {'loss'}:
    np.testing.assert_array_equal(found[name], whole[name])
    assert found[name].dtype == jnp.int32
  np.testing.assert_allclose(found['loss'], whole['loss'], rtol=1e-5)


def test_low_precision_logits_are_accepted():
  logits, labels, mask = draw(20, 4)
  low = jnp.asarray(logits, jnp.bfloat16)
  found, _ = figures(low, labels, mask, 4)
  expected, _ = figures(low.astype(jnp.float32), labels, mask, 4)
  assert found == expected


def test_other_classes_than_logits_stop_at_trace_time():
  with pytest.raises(ValueError, match='4 columns for 5 classes'):
    figures(*draw(3, 4), 5)


def test_no_image_is_no_result():
  logits, labels, _ = draw(3, 4)
  with pytest.raises(ValueError, match='No image'):
    figures(logits, labels, np.zeros(3, bool), 4)
