"""The ring buffer is a deque of fixed length that lives on the device."""

import collections

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from csdnet_jax import memory

WIDTH = 3

push = jax.jit(memory.push)


def rows(start, n):
  """n rows that are told apart by their number."""
  number = np.arange(start, start + n)
  keys = number[:, None] + np.arange(WIDTH) / 10
  return keys.astype(np.float32), np.int32(number % 7), np.int32(number)


def by_age(state):
  """The rows from the oldest to the newest, as a user of the queue sees them.

  The oldest of a full queue is the one that is written over next.
  """
  state = jax.tree.map(np.asarray, state)
  size, count = len(state.ids), int(state.count)
  slots = (int(state.ptr) - count + np.arange(count)) % size
  return [
    (tuple(state.keys[k]), int(state.labels[k]), int(state.ids[k]))
    for k in slots
  ]


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(data=st.data())
def test_any_sequence_of_pushes_equals_a_deque(data):
  # Few sizes, so that few programs are compiled.
  size = data.draw(st.sampled_from([1, 5]))
  lengths = data.draw(st.lists(st.integers(0, size), max_size=9))
  state = memory.init(size, WIDTH)
  expected = collections.deque(maxlen=size)
  total = 0
  for n in lengths:
    keys, labels, ids = rows(total, n)
    state = push(state, keys, labels, ids)
    expected.extend(
      zip(map(tuple, keys), labels.tolist(), ids.tolist(), strict=True)
    )
    total += n
    assert by_age(state) == list(expected)
    assert int(state.count) == len(expected)
    assert int(state.ptr) == total % size
    filled = np.asarray(memory.valid(state))
    assert filled.sum() == len(expected)
    np.testing.assert_array_equal(filled, np.asarray(state.ids) >= 0)


def test_an_empty_memory_is_marked_as_such():
  state = memory.init(5, WIDTH)
  assert state.keys.shape == (5, WIDTH) and state.keys.dtype == jnp.float32
  for marked in (state.labels, state.ids):
    assert marked.dtype == jnp.int32
    np.testing.assert_array_equal(marked, -1)
  for scalar in (state.ptr, state.count):
    assert scalar.shape == () and scalar.dtype == jnp.int32 and scalar == 0
  assert not memory.valid(state).any()


def test_shapes_and_types_never_change():
  state = memory.init(4, WIDTH)
  pushed = push(
    state,
    jnp.ones((3, WIDTH), jnp.bfloat16),
    jnp.ones(3, jnp.int32),
    jnp.ones(3, jnp.int32),
  )
  chex.assert_trees_all_equal_shapes_and_dtypes(state, pushed)


def test_more_rows_than_slots_stop_at_trace_time():
  with pytest.raises(ValueError, match='5.*4'):
    jax.eval_shape(memory.push, memory.init(4, WIDTH), *rows(0, 5))


def test_no_gradient_enters():
  def through(keys):
    state = memory.push(memory.init(4, WIDTH), keys, *rows(0, 3)[1:])
    return jnp.sum(state.keys**2)

  keys = jnp.ones((3, WIDTH))
  assert through(keys) == 3 * WIDTH
  np.testing.assert_array_equal(jax.grad(through)(keys), 0.0)


def test_the_buffer_is_donated_and_traced_once():
  step = jax.jit(chex.assert_max_traces(memory.push, 1), donate_argnums=0)
  state = memory.init(4, WIDTH)
  for i in range(3):
    old = state
    state = step(state, *rows(3 * i, 3))
    assert old.keys.is_deleted()
  assert [row[2] for row in by_age(state)] == [5, 6, 7, 8]
