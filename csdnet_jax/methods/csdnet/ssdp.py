"""SSDP: augmented views that spotlight what tells a subcategory.

CSDNet, arXiv 2311.06056, first module; instance level. Reachable material says
that the augmented samples are adaptive and that their masks come from a
"content-aware kernel"; the form below is our choice (docs/paper.md). A saliency
map S of the raw view is smoothed by a kernel made from the features themselves,
brought to the size of the image, and the image is shown where S ranks high
('spotlight') or where it ranks low ('erase').
"""

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax.methods.losses import normalise


def similarity_map(features: jax.Array, embedding: jax.Array) -> jax.Array:
  """Saliency S = cos(F, z): how close each place is to the pooled embedding.

  Args:
    features: F, [B, h, w, C].
    embedding: z, [B, C].

  Returns:
    [B, h, w] float32 in [-1, 1].
  """
  return jnp.einsum(
    'bhwc,bc->bhw',
    normalise(features),
    normalise(embedding),
    precision='highest',
  )


def margin_map(
  features: jax.Array, kernel: jax.Array, logits: jax.Array, labels: jax.Array
) -> jax.Array:
  """Saliency S = F (w_y - w_y'): what tells y from its nearest neighbour y'.

  The class activation (CAM) of the label minus that of its most confused other
  class, y' = argmax over c != y of the logits.

  Args:
    features: F, [B, h, w, C]. Their mean is the embedding of a pooled network,
      so S averages to the difference of the two logits; a class-token network
      gives its patch tokens, for which this is an approximation.
    kernel: the head's weights, [C, classes].
    logits: [B, classes].
    labels: y, [B] int32.

  Returns:
    [B, h, w] float32.
  """
  is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  rival = jnp.argmax(jnp.where(is_label, -jnp.inf, logits), axis=-1)
  direction = kernel[:, labels] - kernel[:, rival]
  return jnp.einsum('bhwc,cb->bhw', features, direction, precision='highest')


def _neighbours(x: jax.Array, size: int) -> list[jax.Array]:
  """[B, h, w, ...] shifted size^2 ways; outside the map it is 0."""
  r = size // 2
  h, w = x.shape[1:3]
  widths = [(0, 0), (r, r), (r, r)] + [(0, 0)] * (x.ndim - 3)
  x = jnp.pad(x, widths)
  shifts = [(i, j) for i in range(size) for j in range(size)]
  return [x[:, i : i + h, j : j + w] for i, j in shifts]


def _stacked(saliency: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """The neighbours [size^2, B, h, w] of each place, and which there are."""
  inside = _neighbours(jnp.ones_like(saliency), size)
  return jnp.stack(_neighbours(saliency, size)), jnp.stack(inside) > 0


def content_kernel(
  features: jax.Array,
  saliency: jax.Array,
  *,
  size: int = 3,
  temperature: float = 0.1,
) -> jax.Array:
  """Smooths S by weights that the content gives: like mixes with like.

  S'(u) = sum_v a(u, v) S(v), with a(u, .) the softmax over the size x size
  neighbours v of u of cos(F(u), F(v)) / temperature.

  Args:
    features: F, [B, h, w, C].
    saliency: S, [B, h, w].
    size: odd width of the neighbourhood; places outside the map take no part.
    temperature: > 0.

  Returns:
    S', [B, h, w] float32.
  """
  unit = normalise(features)
  values, inside = _stacked(saliency, size)
  # Shift by shift: size^2 copies of the features would be the step's largest.
  cosine = jnp.stack(
    [jnp.sum(unit * other, axis=-1) for other in _neighbours(unit, size)]
  )
  score = jnp.where(inside, cosine / temperature, -jnp.inf)
  return jnp.sum(jax.nn.softmax(score, axis=0) * values, axis=0)


def content_upsample(
  fine: jax.Array,
  saliency: jax.Array,
  *,
  size: int = 3,
  temperature: float = 0.1,
) -> jax.Array:
  """Brings S to a finer grid by weights that the finer features give.

  S'(u) = sum_v a(u, v) S(v), with a(u, .) the softmax over the size x size
  coarse cells v around u of cos(G(u), G(v)) / temperature, where G(v) is the
  mean of G over the cell v. Upsampling by a kernel predicted from the content
  is CARAFE's idea (Wang et al., ICCV 2019), whose kernel is learned; that of
  likeness is joint bilateral upsampling's (Kopf et al., SIGGRAPH 2007).

  Args:
    fine: G, [B, h', w', C].
    saliency: S, [B, h, w], of the same view; h <= h' and w <= w'.
    size: odd width of the neighbourhood, in coarse cells; those outside the map
      take no part.
    temperature: > 0; infinite for a plain mean.

  Returns:
    S', [B, h', w'] float32.
  """
  grids = zip(fine.shape[1:3], saliency.shape[1:], strict=True)
  cells = [np.arange(n) * coarse // n for n, coarse in grids]
  rows, columns = (
    np.abs(own[:, None] - np.arange(coarse))
    for own, coarse in zip(cells, saliency.shape[1:], strict=True)
  )
  near = (rows <= size // 2)[:, None, :, None] & (columns <= size // 2)[:, None]
  down, across = (
    (distance == 0) / np.sum(distance == 0, axis=0, dtype=np.float32)
    for distance in (rows, columns)
  )
  means = jnp.einsum(
    'byxc,yv,xu->bvuc', fine, down, across, precision='highest'
  )
  cosine = jnp.einsum(
    'byxc,bvuc->byxvu', normalise(fine), normalise(means), precision='highest'
  )
  score = jnp.where(near, cosine / temperature, -jnp.inf)
  weight = jax.nn.softmax(score, axis=(-2, -1))
  return jnp.einsum('byxvu,bvu->byx', weight, saliency, precision='highest')


def box_kernel(saliency: jax.Array, *, size: int = 3) -> jax.Array:
  """Smooths S by the plain mean of its neighbours: the ablation.

  Args:
    saliency: S, [B, h, w].
    size: odd width of the neighbourhood; places outside the map take no part.

  Returns:
    S', [B, h, w] float32.
  """
  values, inside = _stacked(saliency, size)
  return jnp.sum(values, axis=0) / jnp.sum(inside, axis=0)


def saliency_map(
  features: jax.Array,
  embedding: jax.Array,
  head_kernel: jax.Array,
  logits: jax.Array,
  labels: jax.Array,
  fine: jax.Array | None = None,
  *,
  saliency: str = 'similarity',
  kernel: str = 'content',
  size: int = 3,
) -> jax.Array:
  """The smoothed saliency of B raw views, with its gradient stopped.

  Args:
    features: F, [B, h, w, C].
    embedding: z, [B, C].
    head_kernel: [C, classes].
    logits: [B, classes].
    labels: [B] int32.
    fine: an earlier map, [B, h', w', C'], to whose grid the kernel brings the
      saliency; None to smooth it where it is.
    saliency: 'similarity' or 'margin'; the margin falls back to the similarity
      while the head is still zero, when no class activates anything.
    kernel: 'content' or 'box'.
    size: odd width of the kernel.

  Returns:
    [B, h, w] float32, at the resolution of the features, or of `fine`.
  """
  args = features, embedding, head_kernel, logits, fine
  features, embedding, head_kernel, logits, fine = jax.lax.stop_gradient(args)
  score = similarity_map(features, embedding)
  if saliency == 'margin':
    untrained = jnp.all(head_kernel == 0)
    margin = margin_map(features, head_kernel, logits, labels)
    score = jnp.where(untrained, score, margin)
  elif saliency != 'similarity':
    raise ValueError(f"saliency is 'similarity' or 'margin', not {saliency!r}.")
  if kernel not in ('content', 'box'):
    raise ValueError(f"kernel is 'content' or 'box', not {kernel!r}.")
  if fine is not None:
    temperature = 0.1 if kernel == 'content' else jnp.inf
    return content_upsample(fine, score, size=size, temperature=temperature)
  if kernel == 'content':
    return content_kernel(features, score, size=size)
  return box_kernel(score, size=size)


def ranked_side(places: int, size: int) -> int:
  """Returns on how many places a side a map is ranked, at most 64.

  Twice its own, and 32 of a small one, whose mask is made smooth by `enlarge`:
  sorting every pixel would cost a sixth of a step on a CPU.

  Args:
    places: of the map, on its longer side.
    size: of the view, in pixels.
  """
  return min(size, max(32, min(2 * places, 64)))


def upsample(saliency: jax.Array, height: int, width: int) -> jax.Array:
  """[B, h, w] -> [B, height, width], bilinear, in 2^16 steps of its range.

  The steps make the flat rim of the result flat: ranks would else tell apart
  what differs by a rounding error.
  """
  large = enlarge(saliency, height, width)
  low = jnp.min(saliency, axis=(1, 2), keepdims=True)
  step = (jnp.max(saliency, axis=(1, 2), keepdims=True) - low) / 2**16
  return low + step * jnp.round((large - low) / jnp.maximum(step, 1e-20))


def enlarge(mask: jax.Array, height: int, width: int) -> jax.Array:
  """[B, h, w] -> [B, height, width], bilinear; whole factors keep the mean."""
  shape = (mask.shape[0], height, width)
  return jax.image.resize(mask, shape, 'bilinear')


def rank_mask(
  keys: jax.Array,
  saliency: jax.Array,
  hidden: jax.Array,
  where: jax.Array | None = None,
  *,
  keep: str = 'high',
  edge: float = 0.05,
) -> jax.Array:
  """A soft mask that hides an exact share of the area, by rank.

  Ranks always spread evenly, whatever the values of S, so the hidden share
  holds for any map; ties, even a constant map, are broken by the key.

    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> saliency = jnp.array([[[1.0, 2.0], [8.0, 0.0]]])
    >>> rank_mask(keys, saliency, jnp.array([0.5])).tolist()
    [[[0.0, 1.0], [1.0, 0.0]]]

  Args:
    keys: [B] PRNG keys.
    saliency: S, [B, H, W].
    hidden: [B] float32 in [0, 1], the share to hide.
    where: [B, H, W] bool, what alone can be hidden, and of which `hidden` is
      the share; None for all of it.
    keep: 'high' shows where S is high (spotlight), 'low' where it is low
      (erase).
    edge: the share of the ranks over which the mask rises from 0 to 1; less
      where so much is not hidden, or not shown, on both sides of it.

  Returns:
    [B, H, W] float32: 1 is shown, 0 hidden; its mean, over `where`, is 1 -
    hidden.
  """
  b, h, w = saliency.shape
  flat = saliency.reshape(b, h * w)
  if keep == 'low':
    flat = -flat
  elif keep != 'high':
    raise ValueError(f"keep is 'high' or 'low', not {keep!r}.")
  hidden = hidden[:, None]
  edge = jnp.minimum(edge, 2 * jnp.minimum(hidden, 1 - hidden))
  if where is not None:
    where = where.reshape(b, h * w)
    flat = jnp.where(where, flat, jnp.inf)
    share = jnp.mean(where, axis=1, keepdims=True)
    hidden, edge = share * hidden, share * edge

  y, x = jnp.meshgrid(jnp.linspace(-1, 1, h), jnp.linspace(-1, 1, w),
                      indexing='ij')  # fmt: skip

  def ranks(key, values):
    # Ties are ordered along a random direction: plateaus, such as the rim of
    # an upsampled map, are cut by a line instead of dissolving into dots.
    angle = jax.random.uniform(key, maxval=2 * jnp.pi)
    ramp = (jnp.cos(angle) * x + jnp.sin(angle) * y).ravel()
    order = jnp.lexsort((ramp, values))
    return (
      jnp.zeros(values.shape)
      .at[order]
      .set((jnp.arange(h * w) + 0.5) / (h * w), unique_indices=True)
    )

  rank = jax.vmap(ranks)(keys, flat)
  # An edge of 0 is a hard one.
  mask = jnp.clip((rank - hidden) / jnp.maximum(edge, 1e-6) + 0.5, 0.0, 1.0)
  return mask.reshape(b, h, w)


def apply_mask(images: jax.Array, mask: jax.Array, fill) -> jax.Array:
  """Puts something else where nothing is shown: x_a = M x_r + (1 - M) fill.

  Args:
    images: x_r, [B, H, W, 3].
    mask: M, [B, H, W] in [0, 1].
    fill: what broadcasts to the images, such as [3], one colour.

  Returns:
    x_a, [B, H, W, 3].
  """
  mask = mask[..., None]
  return mask * images + (1.0 - mask) * jnp.asarray(fill, images.dtype)
