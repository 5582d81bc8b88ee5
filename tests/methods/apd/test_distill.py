"""The distillers' losses against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csdnet_jax.methods.apd import distill


def maps(d, d2=None, h=5, w=7):
  rng = np.random.default_rng(0)
  student = rng.normal(size=(3, h, w, d)).astype(np.float32)
  return student, rng.normal(size=(3, h, w, d2 or d)).astype(np.float32)


def slow_pairwise(student, teacher, share):
  def affinity(x):
    rows, columns = int(share * x.shape[0]), int(share * x.shape[1])
    vectors = []
    for i in range(0, x.shape[0], rows):
      for j in range(0, x.shape[1], columns):
        cell = x[i : i + rows, j : j + columns]
        v = cell.reshape(-1, x.shape[2]).max(axis=0).astype(np.float64)
        vectors.append(v / np.linalg.norm(v))
    return np.array([[a @ b for b in vectors] for a in vectors])

  losses = []
  for s, t in zip(student, teacher, strict=True):
    losses.append(np.mean((affinity(s) - affinity(t)) ** 2))
  return np.mean(losses)


def slow_channelwise(student, teacher, temperature):
  total, count = 0.0, 0
  for s, t in zip(student, teacher, strict=True):
    for c in range(s.shape[2]):
      p = np.exp(t[..., c].astype(np.float64) / temperature)
      q = np.exp(s[..., c].astype(np.float64) / temperature)
      p, q = p / p.sum(), q / q.sum()
      total += np.sum(p * np.log(p / q))
      count += 1
  return temperature**2 * total / count


@pytest.mark.parametrize('share', [0.5, 0.34])
def test_pairwise_is_the_loops(share):
  # Odd sides: the last cells are smaller.
  student, teacher = maps(6, 9)
  loss = distill.pairwise(student, teacher, share=share)
  expected = slow_pairwise(student, teacher, share)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_channelwise_is_the_loops(temperature):
  student, teacher = maps(6)
  loss = distill.channelwise(student, teacher, temperature=temperature)
  expected = slow_channelwise(student, teacher, temperature)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize('loss', [distill.pairwise, distill.channelwise])
def test_equal_maps_cost_nothing_and_the_teacher_gets_no_gradient(loss):
  student, teacher = maps(6)
  assert float(loss(student, student)) == pytest.approx(0, abs=1e-6)
  to_student, to_teacher = jax.grad(loss, argnums=(0, 1))(
    jnp.asarray(student), jnp.asarray(teacher)
  )
  assert np.abs(to_student).max() > 0
  assert np.abs(to_teacher).max() == 0


@pytest.mark.parametrize('loss', [distill.pairwise, distill.channelwise])
def test_an_image_that_does_not_count_changes_nothing(loss):
  student, teacher = maps(6)
  counted = np.array([True, False, True])
  found = loss(student, teacher, counted=counted)
  expected = loss(student[counted], teacher[counted])
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert float(loss(student, teacher, counted=np.zeros(3, bool))) == 0


def test_channelwise_ignores_a_channels_level_and_pairwise_its_scale():
  student, teacher = maps(6)
  loss = distill.channelwise(student, teacher)
  shifted = distill.channelwise(student + np.arange(6), teacher)
  np.testing.assert_allclose(shifted, loss, rtol=1e-4)
  loss = distill.pairwise(student, teacher)
  np.testing.assert_allclose(
    distill.pairwise(3 * student, teacher), loss, rtol=1e-4
  )


def test_dead_features_have_finite_gradients():
  student, teacher = maps(6)
  gradient = jax.grad(distill.pairwise)(jnp.zeros_like(student), teacher)
  assert np.isfinite(gradient).all()


def test_maps_that_do_not_pair_are_refused():
  student, teacher = maps(6, 9)
  with pytest.raises(ValueError, match='6 and 9 channels'):
    distill.channelwise(student, teacher)
  with pytest.raises(ValueError, match='positions'):
    distill.pairwise(student, teacher[:, :4])
  with pytest.raises(ValueError, match='0.1 of a map of 5 x 7 is less'):
    distill.pairwise(student, teacher, share=0.1)
