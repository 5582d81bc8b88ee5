"""A config fitted to the size of its train set."""

import ml_collections
import numpy as np

from csdnet_jax import methods
from csdnet_jax.data.masks import crops
from csdnet_jax.runtime.errors import UserError


def fit(
  config: ml_collections.ConfigDict, n_train: int
) -> tuple[ml_collections.ConfigDict, list[str]]:
  """Fits a config to its train set, into a new one.

  Args:
    config: of the run, as given or fitted already.
    n_train: training images.

  Returns:
    The config with which the run is built, and what the method changed, in
    sentences.

  Raises:
    UserError: if the train set is too small for the config.
  """
  config = config.copy_and_resolve_references()
  # What takes no steps fills a batch up when it evaluates.
  if config.batch_size > n_train and not methods.fitted(config):
    raise UserError(
      f'config.batch_size is {config.batch_size}, more than the {n_train} '
      'training images; lower it.'
    )
  spec = methods.find(config.method.name)
  data, size = config.data, config.model.size
  if spec.task == 'segmentation':
    needed = crops.canvas_of(size, config.crops.scale[0], config.crops.rotate)
    data.canvas = data.canvas or needed
  else:
    # So much larger than the view that a random crop still has its pixels.
    data.canvas = data.canvas or round(1.2 * size)
    data.test_resize = data.test_resize or round(1.15 * size)
  return config, spec.fit(config, n_train)


def step_of(config, epoch: float, n_train: int) -> int:
  """Returns the step at which `epoch` epochs are seen, at least 1."""
  return max(1, round(epoch * n_train / config.batch_size))


def steps_of(config, n_train: int) -> int:
  """Returns the steps of a whole run, 0 of one whose head is fitted."""
  if methods.fitted(config):
    return 0
  return step_of(config, config.epochs, n_train)


def evaluations(config, n_train: int) -> dict[int, float]:
  """Returns {step: epoch} of the evaluations, the last at the end."""
  epochs = np.arange(config.eval_every, config.epochs, config.eval_every)
  return {
    step_of(config, epoch, n_train): epoch for epoch in (*epochs, config.epochs)
  }
