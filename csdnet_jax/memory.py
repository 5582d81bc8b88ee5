"""A first-in, first-out memory of labelled keys, as a ring buffer.

The "dynamic memory queue" of CSDNet (arXiv 2311.06056, DDL; its length is the
paper's iota). A plain pytree: it lives in the train state, is donated, saved
and restored with it, and knows no method.

  >>> import jax.numpy as jnp
  >>> queue = init(4, 2)
  >>> queue = push(queue, jnp.ones((3, 2)), jnp.array([5, 6, 7]), jnp.arange(3))
  >>> queue = push(queue, jnp.ones((2, 2)), jnp.array([8, 9]), jnp.arange(2))
  >>> queue.labels.tolist(), int(queue.ptr), int(queue.count)
  ([9, 6, 7, 8], 1, 4)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Memory(NamedTuple):
  """The ring buffer's state; K slots of D features.

  Attributes:
    keys: [K, D] float32.
    labels: [K] int32, -1 where a slot is empty.
    ids: [K] int32, which image a key came from, -1 where a slot is empty.
    ptr: [] int32 in [0, K), the slot that is written next.
    count: [] int32 in [0, K], how many slots are filled.
  """

  keys: jax.Array
  labels: jax.Array
  ids: jax.Array
  ptr: jax.Array
  count: jax.Array


def init(size: int, width: int) -> Memory:
  """Returns an empty memory of `size` >= 1 slots for keys of `width`."""
  return Memory(
    keys=jnp.zeros((size, width), jnp.float32),
    labels=jnp.full((size,), -1, jnp.int32),
    ids=jnp.full((size,), -1, jnp.int32),
    ptr=jnp.zeros((), jnp.int32),
    count=jnp.zeros((), jnp.int32),
  )


def push(
  memory: Memory, keys: jax.Array, labels: jax.Array, ids: jax.Array
) -> Memory:
  """Writes n rows over the oldest ones; no gradient enters the memory.

  Args:
    memory: K slots of width D.
    keys: [n, D], n <= K; cast to float32.
    labels: [n] int32, >= 0.
    ids: [n] int32, >= 0.

  Returns:
    The memory in which row i sits at slot (ptr + i) mod K.

  Raises:
    ValueError: if n > K, when traced.
  """
  size, n = memory.keys.shape[0], keys.shape[0]
  if n > size:
    raise ValueError(f'{n} rows do not fit into a memory of {size} slots.')
  slots = (memory.ptr + jnp.arange(n)) % size
  keys = jax.lax.stop_gradient(keys).astype(jnp.float32)
  return Memory(
    keys=memory.keys.at[slots].set(keys, unique_indices=True),
    labels=memory.labels.at[slots].set(labels, unique_indices=True),
    ids=memory.ids.at[slots].set(ids, unique_indices=True),
    ptr=(memory.ptr + n) % size,
    count=jnp.minimum(memory.count + n, size),
  )


def valid(memory: Memory) -> jax.Array:
  """Returns [K] bool: which slots are filled (the first `count` ones)."""
  return jnp.arange(memory.labels.shape[0]) < memory.count
