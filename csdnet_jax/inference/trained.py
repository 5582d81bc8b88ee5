"""A finished run, loaded to be used: `load_run`, `predict`, `embed`."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from csdnet_jax import methods
from csdnet_jax.data import decode, folders, sources
from csdnet_jax.data.images import inputs, splits
from csdnet_jax.evaluation import calibration, neighbours, unknown
from csdnet_jax.inference import calibrated
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError, counted, preview
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import averaged
from csdnet_jax.training import places
from csdnet_jax.training.restore import read_run, restore_run

Image = np.ndarray | str | os.PathLike
Images = Sequence[Image] | str | os.PathLike
_MOST_VIEWS = 32  # At a time.


class Predictions(NamedTuple):
  """What `predict` returns, of n images.

  Attributes:
    probabilities: [n, classes] float32, rows summing to 1; calibrated, see
      `TrainedRun.calibration`. They are shares among the classes of the run.
    none_of_these: bool [n], whether an image is of none of these classes; None
      where the run has no threshold, see `TrainedRun.unknown`.
  """

  probabilities: np.ndarray
  none_of_these: np.ndarray | None


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

  def __init__(
    self, workdir, config, split, step, params, model_state, method,
    data_root='',
  ):  # fmt: skip
    self.workdir = workdir
    self.config = config
    self.class_names = tuple(split['class_names'])
    self.step = step
    self.params, self.model_state = params, model_state
    self.method: methods.Method = method
    self._split, self._data_root = split, data_root
    # A batch of training may have been spread over many devices.
    self._batch = min(config.batch_size, _MOST_VIEWS)
    self._forward = jax.jit(method.predict)

  def view(self, image: Image) -> np.ndarray:
    """Returns the test view of one image, [size, size, 3] uint8.

    Args:
      image: [H, W, 3] uint8, or the path of an image file.

    Raises:
      decode.ImageError: if a file cannot be read as an image.
      UserError: if an array is of another shape or type, or empty.
    """
    if not isinstance(image, np.ndarray):
      image = inputs.decoded(inputs.of_paths([image]), 0)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
      raise UserError(
        f'An image is an array [H, W, 3] of uint8, not {image.shape} of '
        f'{image.dtype}; convert it, or give the path of its file.'
      )
    if not image.size:
      raise UserError(
        f'An image of {image.shape[0]} x {image.shape[1]} pixels shows '
        'nothing; leave it out.'
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

  def predict(self, images: Images) -> Predictions:
    """Returns the probabilities of the classes, and which images are of none.

    Args:
      images: n images, [H, W, 3] uint8 of any size, or paths; or one path or
        glob, of a folder every picture in it, in the order of `inputs.find`.

    Raises:
      UserError: if a file cannot be read as an image, an array is of another
        shape or type, or the run is of segmentation.
    """
    outputs = self._of(images)
    return Predictions(
      self.probabilities(outputs['logits']), self.none_of_these(outputs)
    )

  def probabilities(self, logits: np.ndarray) -> np.ndarray:
    """Returns softmax(logits / T) [n, classes], T that of `calibration`."""
    return calibration.softmax(logits, self.calibration.temperature)

  def none_of_these(
    self, outputs: Mapping[str, np.ndarray]
  ) -> np.ndarray | None:
    """Returns which images are of none of the classes, bool [n].

    True also of an image whose outputs are not finite: nothing is known of it.

    Args:
      outputs: of n images, what `forward` returns.

    Returns:
      None where the run has no threshold; `unknown.how` says why.
    """
    if self.unknown.threshold is None:
      return None
    return unknown.refused(unknown.score(outputs, self.leaves), self.unknown)

  def embed(self, images: Images) -> np.ndarray:
    """Returns the pooled embeddings [n, C] float32, before the head.

    Args:
      images: n images, [H, W, 3] uint8 of any size, or paths; or one path or
        glob, of a folder every picture in it, in the order of `inputs.find`.

    Raises:
      UserError: if a file cannot be read as an image, an array is of another
        shape or type, or the run is of segmentation.
    """
    return self._of(images)['embedding']

  def outputs(
    self,
    split: splits.Split,
    problems: list[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> Iterator[tuple[Sequence[int], dict[str, np.ndarray]]]:
    """Forwards many pictures, holding one batch at a time.

    Args:
      split: n pictures, of `part` or of `inputs.find`.
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

  def has_part(self, name: str) -> bool:
    """Returns whether the run has a 'train', 'val' or 'test' part."""
    return name in self._split

  def part(self, name: str) -> splits.Split:
    """Returns the pictures of the run's own 'train', 'val' or 'test' part.

    Raises:
      UserError: if the run has no such part, or its pictures are neither where
        it found them nor where `load_run` was told.
    """
    if not self.has_part(name):
      field = f'{name}_fraction'
      raise UserError(
        f'{self.workdir} has no {name} part; it was trained with '
        f'config.data.{field}={self.config.data[field]:g}.'
      )
    config = places.found(self.config, self.workdir, self._data_root)
    dataset = sources.load_images(config.data, split=self._split)
    return splits.parts_of(dataset)[name]

  @functools.cached_property
  def calibration(self) -> calibrated.Calibration:
    """The temperature of its probabilities, see `calibrated.calibrate`."""
    return calibrated.calibrate(self)

  @functools.cached_property
  def unknown(self) -> unknown.Unknown:
    """How leaves of no known class are told, see `calibrated.refusal`."""
    return calibrated.refusal(self)

  @functools.cached_property
  def validation(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Its validation part as it sees it, see `calibrated.validation`."""
    return calibrated.validation(self)

  @functools.cached_property
  def leaves(self) -> neighbours.Embeddings | None:
    """Its training images, see `calibrated.training_embeddings`."""
    return calibrated.training_embeddings(self)

  def _of(self, images) -> dict[str, np.ndarray]:
    """The `forward` of what `predict` and `embed` are given."""
    if methods.task(self.config) == 'segmentation':
      raise UserError(
        f'{self.workdir} is a run of segmentation; it names no class of a '
        'whole image. Export the network to use it.'
      )
    if isinstance(images, (str, os.PathLike)):
      problems, (split, unused) = [], inputs.find([images])
      if unused:
        say(f'{images}: {folders.said(unused)}', style='yellow')
      outputs = self.outputs(split, problems)
      parts = [x for _, x in outputs]
      if problems:
        raise UserError(
          f'{counted(len(problems), "images")} cannot be read: '
          f'{preview(problems)}'
        )
      return jax.tree.map(lambda *x: np.concatenate(x), *parts)
    size = self.config.model.size
    views = [self.view(image) for image in images]
    none = np.zeros((0, size, size, 3), np.uint8)
    return self.forward(np.stack(views) if views else none)


def load_run(
  workdir: str | os.PathLike,
  checkpoint: str = 'last',
  *,
  data_root: str | os.PathLike = '',
) -> TrainedRun:
  """Loads a state of a workdir.

  Args:
    workdir: of a run.
    checkpoint: 'last', or 'best' on the validation part.
    data_root: the folder where the run's own pictures are now; '' is where they
      were. Only what shows or embeds them needs them.

  Raises:
    UserError: if it is no workdir, or holds no readable checkpoint.
  """
  workdir = paths.of(workdir)
  if not workdir.is_dir():
    raise UserError(
      f'{workdir} is not the workdir of a run; give the folder that '
      'csdnet train named at its end.'
    )
  config, split = read_run(workdir)
  run, state = restore_run(
    workdir, config, split, devices=jax.local_devices()[:1],
    checkpoint=checkpoint,
  )  # fmt: skip
  params, model_state = averaged(state, run.method.extras)
  return TrainedRun(
    workdir, config, split, int(state.step), params, model_state, run.method,
    os.fspath(data_root),
  )  # fmt: skip
