r"""DDL: contrast of this step's embeddings with the batch and a memory queue.

CSDNet, arXiv 2311.06056, second module; feature level. The paper names a
margin xi and a queue of length iota; the exact form is our choice: the cosine
loss that its closest peers train with (TransFG, CLE-ViT), over batch and queue.

Over pairs (i, j) of an anchor z_i and a candidate q_j,

  positive, y_i = y_j:   1 - cos(z_i, q_j)
  negative, y_i != y_j:  max(cos(z_i, q_j) - xi, 0)
"""

import jax
import jax.numpy as jnp

from csdnet_jax.memory import valid


def _cosines(a: jax.Array, b: jax.Array) -> jax.Array:
  # Full precision: TF32 or bfloat16 products would blur a margin of 0.4.
  return jnp.matmul(a, b.T, precision='highest')


def _sums(cosine, same, other, margin):
  """The loss [2] and the number of pairs [2] of each kind."""
  positive = jnp.sum(jnp.where(same, 1.0 - cosine, 0.0))
  negative = jnp.sum(jnp.where(other, jnp.maximum(cosine - margin, 0.0), 0.0))
  pairs = jnp.stack([jnp.sum(same), jnp.sum(other)])
  return jnp.stack([positive, negative]), pairs


def loss(
  anchors: jax.Array,
  anchor_labels: jax.Array,
  anchor_ids: jax.Array,
  candidates: jax.Array,
  candidate_labels: jax.Array,
  candidate_ids: jax.Array,
  memory=(),
  *,
  margin: float = 0.4,
  averaging: str = 'separate',
  exclude_same_image: bool = False,
  self_offset=0,
  axis: str | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The contrastive loss L_qc of A anchors over C candidates and a queue.

  Of three embeddings the last two are a class: their cosine is 0, which costs
  1, and the cosine of the first two is 1, which costs 1 - 0.4 in two of the
  four negative pairs.

    >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> y, ids = jnp.array([0, 1, 1]), jnp.arange(3)
    >>> total, parts = loss(z, y, ids, z, y, ids)
    >>> {name: round(float(x), 3) for name, x in parts.items()}
    {'positive': 1.0, 'negative': 0.3}
    >>> round(float(total), 3)
    1.3

  Args:
    anchors: [A, D] float32, embeddings of length 1, as `losses.normalise`
      makes them and the queue keeps them.
    anchor_labels: [A] int32.
    anchor_ids: [A] int32, which image each anchor shows.
    candidates: [C, D], those of all devices; on one device the anchors.
    candidate_labels: [C] int32.
    candidate_ids: [C] int32.
    memory: a `csdnet_jax.memory.Memory` of K keys, or `()` for none. Empty
      slots take no part.
    margin: xi in [-1, 1].
    averaging: 'separate': the mean over positive pairs plus the mean over
      negative pairs, an anchor's pair with itself left out (our choice: a long
      queue would drown the few positives). 'joint': the sum over all pairs,
      self included, divided by their number, as the peers do.
    exclude_same_image: leaves out pairs of an anchor with another view, or an
      older key, of the same image; the divisor of 'joint' still counts them.
    self_offset: anchor i is candidate `self_offset + i`.
    axis: the mapped device axis over which A is split, or None.

  Returns:
    The loss [], whose mean over `axis` is the loss of the whole batch (and so
    for its gradient), and `{'positive', 'negative'}`: the mean of each kind.
  """
  own = jnp.arange(candidates.shape[0]) == (
    self_offset + jnp.arange(anchors.shape[0])[:, None]
  )

  def kinds(labels, ids, filled):
    """Which pairs are positive and which negative, [A, n] bool each."""
    same = anchor_labels[:, None] == labels
    use = jnp.broadcast_to(filled, same.shape)
    if exclude_same_image:
      use = use & (anchor_ids[:, None] != ids)
    return same & use, ~same & use

  same, other = kinds(candidate_labels, candidate_ids, ~own)
  sums, pairs = _sums(_cosines(anchors, candidates), same, other, margin)
  filled = 0
  if memory:
    # Two products, never one over a concatenation, which would copy the queue.
    filled = memory.count
    slots = valid(memory)
    # The columns of the product are scaled, not the keys, whose normalised
    # copy would be as large as the queue. Empty slots hold zeros.
    keys = jax.lax.stop_gradient(memory.keys)
    scale = jax.lax.rsqrt(jnp.maximum(jnp.sum(keys * keys, axis=1), 1e-12))
    same, other = kinds(memory.labels, memory.ids, slots)
    cosines = _cosines(anchors, keys) * scale
    queued, queued_pairs = _sums(cosines, same, other, margin)
    sums, pairs = sums + queued, pairs + queued_pairs

  devices = 1 if axis is None else jax.lax.axis_size(axis)
  pairs = pairs if axis is None else jax.lax.psum(pairs, axis)
  means = devices * sums / jnp.maximum(pairs, 1)
  if averaging == 'separate':
    total = jnp.sum(means)
  elif averaging == 'joint':
    every = devices * anchors.shape[0] * (candidates.shape[0] + filled)
    total = devices * jnp.sum(sums) / every
  else:
    raise ValueError(f"averaging is 'separate' or 'joint', not {averaging!r}.")
  return total, {'positive': means[0], 'negative': means[1]}
