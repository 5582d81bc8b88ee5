r"""Whether class evidence finds what decides: the deletion test.

  python -m experiments.deletion --data_root=DIR --images=60

A linear probe on the pretrained EfficientNet-Lite0 names the test pictures of a
labelled folder. In each, the tenth of the places that speak most for its
likeliest class against the second is blurred (Samek et al., Evaluating the
visualization of what a deep neural network has learned, 2017; with our blur).
The more the margin between the two falls, the better the places. Beside the
package's occlusion stand rules by gradients, and as controls places at random,
equally smooth, and those with most detail. Occlusion is at an advantage, since
it asks square by square what the test asks of a tenth. Prints a row for each:
the mean fall in logits over pictures and its standard error; the share of
pictures in which it fell by more than random places made it fall; and the mean
of how much further it fell by occlusion, in the same pictures, with its error.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from sklearn.linear_model import LogisticRegression

from csdnet_jax import methods
from csdnet_jax.config import default
from csdnet_jax.data import decode
from csdnet_jax.data.images import inputs, splits
from csdnet_jax.evaluation import evidence
from csdnet_jax.tasks import classification
from csdnet_jax.training import build, initial

_ROOT = flags.DEFINE_string('data_root', None, 'A labelled folder with a test.')
_IMAGES = flags.DEFINE_integer('images', 60, 'Test pictures, evenly spread.')
_SIZE = flags.DEFINE_integer('size', 160, 'Pixels a side.')

_SHARE = 0.1  # Of the places, deleted.
_STEPS = 16  # Of integrated gradients (Sundararajan et al., ICML 2017).


def strongest(maps: np.ndarray) -> np.ndarray:
  """Returns which tenth of the places of maps [n, S, S] is highest, bool."""
  limit = np.quantile(maps, 1 - _SHARE, axis=(1, 2), keepdims=True)
  return maps > limit


def views(split: splits.Split, config) -> np.ndarray:
  """Returns the test views of a part, uint8 [n, S, S, 3]."""
  return np.stack([
    decode.eval_view(
      inputs.decoded(split, i), size=config.model.size,
      resize=config.data.test_resize, square=True,
    )
    for i in range(len(split.names))
  ])  # fmt: skip


def rules(predict, weights, x, chosen, rival) -> dict[str, np.ndarray]:
  """Returns {rule: maps [n, S, S]}, smoothed as they are shown."""
  n = len(x)

  def batched(f):
    f = jax.jit(f)
    rows = [slice(i, i + 4) for i in range(0, n, 4)]
    return np.concatenate([f(x[r], chosen[r], rival[r]) for r in rows])

  def gradient(x, a, b):
    def margin(x):
      logits = predict(*weights, {'image': x})['logits']
      rows = jnp.arange(len(logits))
      return jnp.sum(logits[rows, a] - logits[rows, b])

    return jax.grad(margin)(x)

  def summed(x):
    # Of single pixels; half as wide as the package's squares are smoothed.
    return evidence.blur(jnp.sum(x, -1, keepdims=True), 1 / 32)[..., 0]

  def occlusion(x, a, b):
    return evidence.places(predict, *weights, x, a, b)

  def integrated(x, a, b):
    blurred = evidence.without_detail(x)

    def add(i, total):
      t = (i + 0.5) / _STEPS
      return total + gradient(blurred + t * (x - blurred), a, b) / _STEPS

    total = jax.lax.fori_loop(0, _STEPS, add, jnp.zeros_like(x))
    return summed(total * (x - blurred))

  def times_detail(x, a, b):
    return summed(gradient(x, a, b) * (x - evidence.without_detail(x)))

  def times_input(x, a, b):
    return summed(gradient(x, a, b) * x)

  def detail(x, a, b):
    return summed((x - evidence.without_detail(x)) ** 2)

  noise = np.random.default_rng(0).normal(size=(*x.shape[:3], 1))
  return {
    'occlusion (ours)': batched(occlusion),
    'integrated gradients': batched(integrated),
    'gradient x detail': batched(times_detail),
    'gradient x input': batched(times_input),
    'most detail': batched(detail),
    'random': np.asarray(summed(jnp.float32(noise))),
  }


def main(_) -> None:
  config = default()
  config.model.update(name='efficientnet_lite0', size=_SIZE.value)
  config.data.update(
    source='folder', root=_ROOT.value, aspect='square',
    test_resize=_SIZE.value,
  )  # fmt: skip
  config.method.name = 'supervised'
  dataset = classification.load(config)
  names = dataset.class_names
  model = build.network(config, len(names))
  params, state, _ = initial.initial_weights(config, model, names)
  predict = methods.make(config, model).predict
  forward = jax.jit(predict)

  def outputs(x, name):
    parts = np.split(x, range(8, len(x), 8))
    return np.concatenate(
      [forward(params, state, {'image': part})[name] for part in parts]
    )

  train, test = views(dataset.train, config), views(dataset.test, config)
  probe = LogisticRegression(C=10, max_iter=5000)
  probe.fit(outputs(train, 'embedding'), dataset.train.labels)
  params['head'] = {
    'kernel': jnp.float32(probe.coef_.T), 'bias': jnp.float32(probe.intercept_)
  }  # fmt: skip
  right = outputs(test, 'logits').argmax(1) == dataset.test.labels
  print(f'{len(names)} classes; the probe names {100 * right.mean():.1f} %')
  rows = np.linspace(0, len(test) - 1, _IMAGES.value).astype(int)
  x = np.float32(test[rows])
  ranked = np.argsort(-outputs(x, 'logits'), 1)
  chosen, rival = np.int32(ranked[:, 0]), np.int32(ranked[:, 1])

  def margins(x):
    logits, i = outputs(x, 'logits'), np.arange(len(x))
    return logits[i, chosen] - logits[i, rival]

  blurred = np.asarray(evidence.without_detail(x))
  whole, without = margins(x), margins(blurred)
  print(f'mean margin {whole.mean():.3f}, blurred {without.mean():.3f}')
  begun, falls = time.monotonic(), {}
  maps = rules(predict, (params, state), x, chosen, rival)
  print(f'{time.monotonic() - begun:.0f} s for all maps')
  for rule, found in maps.items():
    gone = strongest(found)[..., None]
    falls[rule] = whole - margins(np.where(gone, blurred, x))
  for rule, fall in falls.items():
    more = 100 * np.mean(fall > falls['random'])
    by_ours = _with_error(falls['occlusion (ours)'] - fall)
    print(f'{rule:22} {_with_error(fall)}  {more:5.1f} %  {by_ours}')


def _with_error(x: np.ndarray) -> str:
  return f'{x.mean():7.3f} +- {x.std(ddof=1) / np.sqrt(len(x)):.3f}'


if __name__ == '__main__':
  app.run(main)
