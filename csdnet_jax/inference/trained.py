"""A finished run, loaded to be used: `load_run`, `predict`, `embed`."""

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from csdnet_jax import methods
from csdnet_jax.data import decode, sources
from csdnet_jax.data.images import inputs, splits
from csdnet_jax.evaluation import calibration
from csdnet_jax.runtime import paths, writers
from csdnet_jax.runtime.errors import UserError, preview
from csdnet_jax.state import averaged
from csdnet_jax.training.restore import read_run, restore_run

Image = np.ndarray | str | os.PathLike
_MOST_VIEWS = 32  # At a time.


class Calibration(NamedTuple):
  """How the probabilities were made, as in a workdir's `calibration.json`.

  Attributes:
    temperature: T > 0, by which the logits are divided.
    how: it was found, or why it is 1, in a sentence.
    step: the optimiser steps of the weights.
    n: validation images that it was fitted on.
    nll_before: their mean negative log-likelihood at T = 1, in nats, or None.
    nll: the same at T.
  """

  temperature: float
  how: str
  step: int
  n: int = 0
  nll_before: float | None = None
  nll: float | None = None


class TrainedRun:
  """The trained network of a workdir, with its preprocessing and names.

  Attributes:
    workdir: of the run.
    config: of the run.
    class_names: of its data set, in the order of the logits.
    step: the optimiser steps that the weights have seen.
    params: the parameters, averaged where the run averages.
    model_state: BatchNorm's running averages, or {}.
    method: what was trained; its `predict` is the forward pass.
  """

  def __init__(self, workdir, config, split, step, params, model_state, method):
    self.workdir = workdir
    self.config = config
    self.class_names = tuple(split['class_names'])
    self.step = step
    self.params, self.model_state = params, model_state
    self.method: methods.Method = method
    self._split = split
    # A batch of training may have been spread over many devices.
    self._batch = min(config.batch_size, _MOST_VIEWS)
    self._forward = jax.jit(method.predict)

  def view(self, image: Image) -> np.ndarray:
    """Returns the test view of one image, [size, size, 3] uint8.

    Args:
      image: [H, W, 3] uint8, or the path of an image file.

    Raises:
      decode.ImageError: if a file cannot be read as an image.
      UserError: if an array is of another shape or type.
    """
    if not isinstance(image, np.ndarray):
      image = inputs.decoded(inputs.of_paths([image]), 0)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
      raise UserError(
        f'An image is an array [H, W, 3] of uint8, not {image.shape} of '
        f'{image.dtype}; convert it, or give the path of its file.'
      )
    c = self.config
    return decode.eval_view(
      image,
      size=c.model.size,
      resize=c.data.test_resize,
      square=c.data.aspect == 'square',
    )

  def forward(self, views: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the logits [n, classes] and embeddings [n, C] of n views.

    Args:
      views: [n, size, size, 3] uint8, what `view` returns.
    """
    n, batch = len(views), self._batch if len(views) > 1 else 1
    # Padded to whole batches, so that two programs do: of one view and of many.
    whole = -(-max(n, 1) // batch) * batch
    padded = np.zeros((whole, *views.shape[1:]), np.uint8)
    padded[:n] = views
    rows = [
      self._forward(self.params, self.model_state, {'image': part})
      for part in np.split(padded, whole // batch)
    ]
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *rows)

  def predict(self, images: Sequence[Image]) -> np.ndarray:
    """Returns probabilities [n, classes] float32, rows summing to 1.

    They are calibrated, see `calibration`.

    Args:
      images: n images, [H, W, 3] uint8 of any size, or paths.

    Raises:
      decode.ImageError: if a file cannot be read as an image.
      UserError: if an array is of another shape or type, or the run is of
        segmentation.
    """
    return self.probabilities(self.forward(self._views(images))['logits'])

  def probabilities(self, logits: np.ndarray) -> np.ndarray:
    """Returns softmax(logits / T) [n, classes], T that of `calibration`."""
    return calibration.softmax(logits, self.calibration.temperature)

  def embed(self, images: Sequence[Image]) -> np.ndarray:
    """Returns the pooled embeddings [n, C] float32, before the head.

    Args:
      images: n images, [H, W, 3] uint8 of any size, or paths.

    Raises:
      decode.ImageError: if a file cannot be read as an image.
      UserError: if an array is of another shape or type, or the run is of
        segmentation.
    """
    return self.forward(self._views(images))['embedding']

  def outputs(
    self,
    split: splits.Split,
    problems: list[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> Iterator[tuple[Sequence[int], dict[str, np.ndarray]]]:
    """Forwards many pictures, holding one batch at a time.

    Args:
      split: n pictures, of `part` or of `files.find`.
      problems: gets a sentence for each that cannot be read.
      progress: called as `(done, total)`, in pictures.

    Yields:
      Rows of `split`, and their `forward`.

    Raises:
      UserError: if none can be read.
    """
    done, failed = 0, []
    for rows, views, errors in inputs.batches(split, self.view, self._batch):
      failed += map(str, errors)
      if rows:
        yield rows, self.forward(views)
      done += len(rows) + len(errors)
      progress(done, len(split.names))
    problems += failed
    if len(failed) == done:
      raise UserError(f'None of {done} images can be read: {preview(failed)}')

  def part(self, name: str) -> splits.Split:
    """Returns the pictures of the run's own 'train', 'val' or 'test' part.

    Raises:
      UserError: if the run has no such part, or its pictures are not where it
        found them.
    """
    if name not in self._split:
      raise UserError(
        f'{self.workdir} has no {name} part; it was trained with '
        f'config.data.val_fraction={self.config.data.val_fraction:g}.'
      )
    dataset = sources.load_images(self.config.data, split=self._split)
    return splits.parts_of(dataset)[name]

  @functools.cached_property
  def calibration(self) -> Calibration:
    """The temperature, from `calibration.json`, else fitted and written there.

    It is fitted on the run's validation part and on nothing else; without one,
    or where its pictures cannot be read, it is 1 and `how` says so.
    """
    path = self.workdir / 'calibration.json'
    if path.exists():
      try:
        known = Calibration(**json.loads(path.read_text(encoding='utf-8')))
      except (TypeError, ValueError) as error:
        raise UserError(
          f'{path} cannot be read ({error}); remove it, and the temperature is '
          'fitted again.'
        ) from error
      if known.step == self.step:
        return known
    if methods.task(self.config) == 'segmentation':
      return Calibration(
        1.0, 'Not calibrated (T = 1): segmentation is not.', self.step
      )
    if 'val' not in self._split:
      return Calibration(
        1.0,
        'Not calibrated (T = 1): the run has no validation part '
        '(config.data.val_fraction is 0).',
        self.step,
      )
    try:
      val, problems = self.part('val'), []
      logits = [x['logits'] for _, x in self.outputs(val, problems)]
      if problems:
        raise UserError('; '.join(problems))
    except UserError as error:
      how = f'Not calibrated (T = 1), for want of validation images: {error}'
      logging.warning('%s', how)
      return Calibration(1.0, how, self.step)
    made = _calibrate(np.concatenate(logits), val.labels, self.step)
    try:
      writers.write_json(path, made._asdict())
    except OSError as error:
      logging.warning('%s cannot be kept (%s).', path, error.strerror)
    return made

  def _views(self, images):
    if methods.task(self.config) == 'segmentation':
      raise UserError(
        f'{self.workdir} is a run of segmentation; it names no class of a '
        'whole image. Export the network to use it.'
      )
    if isinstance(images, (str, os.PathLike)):
      raise UserError(f'Give a list of images, such as [{str(images)!r}].')
    size = self.config.model.size
    views = [self.view(image) for image in images]
    return np.stack(views) if views else np.zeros((0, size, size, 3), np.uint8)


def _calibrate(logits, labels, step) -> Calibration:
  n, before = len(labels), calibration.nll(logits, labels, 1.0)
  t = calibration.fit_temperature(logits, labels)
  if t is None:
    how = (
      f'Not calibrated (T = 1): all {n} validation images are right, which '
      'fits no temperature.'
    )
    return Calibration(1.0, how, step, n, before, before)
  after = calibration.nll(logits, labels, t)
  how = (
    f'Temperature {t:.3f}, fitted on {n} validation images (negative '
    f'log-likelihood {before:.3f} -> {after:.3f} nats).'
  )
  return Calibration(t, how, step, n, before, after)


def load_run(workdir: str | os.PathLike) -> TrainedRun:
  """Loads the newest state of a workdir.

  Args:
    workdir: of a run of `csdnet_jax.main`.

  Raises:
    UserError: if it is no workdir, or holds no readable checkpoint.
  """
  workdir = paths.of(workdir)
  if not workdir.is_dir():
    raise UserError(
      f'{workdir} is not the workdir of a run; give the folder that '
      'csdnet_jax.main named at its end.'
    )
  config, split = read_run(workdir)
  run, state = restore_run(workdir, config, devices=jax.local_devices()[:1])
  params, model_state = averaged(state, run.method.extras)
  return TrainedRun(
    workdir, config, split, int(state.step), params, model_state, run.method
  )
