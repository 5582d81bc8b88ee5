"""The mathematics once more, in NumPy float64, as plainly as it can be said."""

import numpy as np


def cosine(a, b):
  """The cosine of two vectors; 0 if one of them is 0."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  return a @ b / (max(np.sqrt(a @ a), 1e-6) * max(np.sqrt(b @ b), 1e-6))


def contrast(
  anchors,
  queue=(),
  *,
  margin=0.4,
  averaging='separate',
  exclude_same_image=False,
):
  """DDL of anchors among themselves and with a queue, pair by pair.

  Both are lists of (embedding, label, id); the queue's rows are all filled.
  """
  sums = {'positive': 0.0, 'negative': 0.0}
  counts = {'positive': 0, 'negative': 0}
  for i, (z, label, image) in enumerate(anchors):
    others = [row for j, row in enumerate(anchors) if j != i]
    for other, other_label, other_image in [*others, *queue]:
      if exclude_same_image and image == other_image:
        continue
      similarity = cosine(z, other)
      if label == other_label:
        kind, value = 'positive', 1 - similarity
      else:
        kind, value = 'negative', max(similarity - margin, 0)
      sums[kind] += value
      counts[kind] += 1
  if averaging == 'joint':
    # A pair with itself counts, with the value 0.
    pairs = len(anchors) * (len(anchors) + len(queue))
    return sum(sums.values()) / pairs
  return sum(sums[kind] / max(counts[kind], 1) for kind in sums)


def gradient(function, x, step=1e-6):
  """Central differences of a function of an array."""
  x = np.array(x, np.float64)
  result = np.zeros_like(x)
  for index in np.ndindex(x.shape):
    value = x[index]
    x[index] = value + step
    above = function(x)
    x[index] = value - step
    result[index] = (above - function(x)) / (2 * step)
    x[index] = value
  return result


def softmax(x):
  x = np.exp(np.asarray(x, np.float64) - np.max(x))
  return x / x.sum()


def divergence(target, source, temperature):
  """T^2 KL(target || source) of logits, averaged over images."""
  total = 0.0
  for t, s in zip(target, source, strict=True):
    p, q = softmax(t / temperature), softmax(s / temperature)
    total += sum(
      pk * (np.log(pk) - np.log(qk)) for pk, qk in zip(p, q, strict=True)
    )
  return temperature**2 * total / len(target)


def similarity_map(features, embedding):
  """cos(F, z) at each place."""
  b, h, w, _ = features.shape
  result = np.zeros((b, h, w))
  for n, y, x in np.ndindex(b, h, w):
    result[n, y, x] = cosine(features[n, y, x], embedding[n])
  return result


def margin_map(features, kernel, logits, labels):
  """Activation of the label less that of its most confused other class."""
  b, h, w, _ = features.shape
  result = np.zeros((b, h, w))
  for n in range(b):
    others = [k for k in range(kernel.shape[1]) if k != labels[n]]
    rival = max(others, key=lambda k: logits[n, k])
    for y, x in np.ndindex(h, w):
      activation = features[n, y, x] @ kernel
      result[n, y, x] = activation[labels[n]] - activation[rival]
  return result


def neighbours(y, x, h, w, size):
  """The places of a size x size neighbourhood that lie inside the map."""
  reach = size // 2
  return [
    (i, j)
    for i in range(y - reach, y + reach + 1)
    for j in range(x - reach, x + reach + 1)
    if 0 <= i < h and 0 <= j < w
  ]


def content_kernel(features, saliency, size, temperature):
  """Each place takes the mean of its neighbours, the more so the more alike."""
  b, h, w, _ = features.shape
  result = np.zeros((b, h, w))
  for n, y, x in np.ndindex(b, h, w):
    places = neighbours(y, x, h, w, size)
    alike = [cosine(features[n, y, x], features[n, i, j]) for i, j in places]
    weights = softmax(np.array(alike) / temperature)
    values = [saliency[n, i, j] for i, j in places]
    result[n, y, x] = weights @ np.array(values, np.float64)
  return result


def content_upsample(fine, saliency, size, temperature):
  """Each fine place takes the coarse cells around it, the more so the more
  their mean is like it."""
  b, h, w = saliency.shape
  height, width = fine.shape[1:3]
  result = np.zeros((b, height, width))
  places = list(np.ndindex(height, width))
  cell = {(y, x): (y * h // height, x * w // width) for y, x in places}
  for n in range(b):
    means = {
      v: np.mean([fine[n][u] for u in places if cell[u] == v], axis=0)
      for v in np.ndindex(h, w)
    }
    for u in places:
      around = neighbours(*cell[u], h, w, size)
      alike = [cosine(fine[n][u], means[v]) for v in around]
      values = np.array([saliency[n][v] for v in around], np.float64)
      result[n][u] = softmax(np.array(alike) / temperature) @ values
  return result


def box_kernel(saliency, size):
  """Each place takes the plain mean of its neighbours."""
  b, h, w = saliency.shape
  result = np.zeros((b, h, w))
  for n, y, x in np.ndindex(b, h, w):
    places = neighbours(y, x, h, w, size)
    result[n, y, x] = np.mean([saliency[n, i, j] for i, j in places])
  return result
