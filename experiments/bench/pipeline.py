r"""The host side: images a second decoded, and from the cache.

  python -m experiments.bench.pipeline --size=448

draws leaves as JPEG files, decodes them into an empty cache, and reads training
batches back from it, the canvases on the host and then on the device. Prints
one JSON line; `step_images_per_s` is the fastest step at this size among the
results kept so far, and `ratio` what the cache gives over what it eats.
"""

import json
import pathlib
import tempfile
import time

import jax
import numpy as np
from absl import app, flags
from PIL import Image

from csdnet_jax.data import leaves
from csdnet_jax.data.images import draw, labelled_folders, pipeline, splits
from csdnet_jax.runtime import commands
from experiments.bench import measure


def write_jpegs(root: pathlib.Path, *, images: int, side: int) -> None:
  """Writes `images` leaves as JPEG files of `side` pixels, in two classes."""
  drawn = [
    Image.fromarray(leaves.draw(leaves.cultivar(i, 0), (0, i, 1), 192))
    for i in range(2)
  ]
  rng = np.random.default_rng(0)
  for i in range(images):
    folder = root / f'cultivar_{i % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    # Drawing at full size takes far longer than decoding: turned and enlarged.
    image = drawn[i % 2].rotate(rng.uniform(0, 360)).resize((side, side))
    image.save(folder / f'{i}.jpg', quality=90)


def decoded_and_cached(
  root: pathlib.Path, cache: pathlib.Path, *, size: int, batch: int, steps: int
) -> dict[str, float]:
  """Images a second of the two halves of the host's work.

  Args:
    root: a folder of images, one folder a class.
    cache: an empty folder.
    size: of the views; canvases are 10 / 7 of it.
    batch: images a batch.
    steps: batches read from the cache.

  Returns:
    `decoded_per_s`, from files into the cache, canvases and test views; then
    `cached_per_s`, whole batches in shuffled order, read once on the host, and
    `on_device_per_s`, the same batches brought to the device.
  """
  drawn = draw.draw_split(
    labelled_folders.open_folder(root),
    test_fraction=0.5,
    val_fraction=0.0,
    shots=0,
    seed=0,
  )
  parts = splits.parts_of(drawn)
  digests = {name: pipeline.digests(part) for name, part in parts.items()}
  start = time.perf_counter()
  prepared = pipeline.prepare(
    drawn, digests, canvas=size * 10 // 7, size=size, resize=size * 8 // 7,
    square=False, cache_dir=cache,
  )  # fmt: skip
  decoding = time.perf_counter() - start
  # The training images are decoded twice: as canvases and in the test view.
  decoded = len(drawn.train.names) * 2 + len(drawn.test.names)

  def images_per_s(use):
    batches = pipeline.train_batches(
      prepared.canvases, batch=batch, seed=0, start=0, stop=steps + 1
    )
    use(next(batches))  # Threads start, pages are read.
    start = time.perf_counter()
    for one in batches:
      use(one)
    return batch * steps / (time.perf_counter() - start)

  rates = {
    'decoded_per_s': decoded / decoding,
    'cached_per_s': images_per_s(lambda one: one['image'].max()),
    'on_device_per_s': images_per_s(
      lambda one: jax.block_until_ready(jax.device_put(one))
    ),
  }
  return {name: round(rate, 1) for name, rate in rates.items()}


def fastest_step(size: int, folder: str) -> float | None:
  """The most images a second of the steps kept of this device, or None."""
  kept = [
    json.loads(p.read_text()) for p in pathlib.Path(folder).glob('*.json')
  ]
  rates = [
    r['images_per_s']
    for r in kept
    if r['bench'] == 'step'
    and (r['method'], r['size'], r['device'])
    == ('csdnet', size, measure.device_name())
  ]
  return max(rates, default=None)


FLAGS = flags.FLAGS


def main(argv) -> None:
  """Measures and prints."""
  del argv
  commands.quiet()
  size, batch = FLAGS.size, FLAGS.batch
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder) / 'images'
    write_jpegs(root, images=FLAGS.images, side=size * 10 // 7)
    rates = decoded_and_cached(
      root, pathlib.Path(folder) / 'cache', size=size, batch=batch, steps=20
    )
  eaten = fastest_step(size, FLAGS.results)
  result = {'size': size, 'batch': batch, 'images': FLAGS.images} | rates
  result |= {
    'step_images_per_s': eaten,
    'ratio': eaten and round(rates['cached_per_s'] / eaten, 2),
  }
  result = measure.record('pipeline', result)
  measure.publish(result, f'pipeline {size} {batch}', FLAGS.results)


if __name__ == '__main__':
  flags.DEFINE_integer('size', 448, 'Pixels a side of the views.')
  flags.DEFINE_integer('batch', 32, 'Images a batch.')
  flags.DEFINE_integer('images', 128, 'Images that are drawn and decoded.')
  flags.DEFINE_string(
    'results', str(measure.RESULTS), 'Where the JSON is kept; empty for none.'
  )
  app.run(main)
