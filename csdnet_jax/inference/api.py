"""Training and loading from a program: what `csdnet_jax` itself offers."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from csdnet_jax import methods
from csdnet_jax.data.images import arrays
from csdnet_jax.inference.trained import Predictions, TrainedRun, load_run
from csdnet_jax.runtime import paths
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.training import command_line, train as training
from csdnet_jax.training.verdict.verdict import MINUTES, verdict

__all__ = ['Predictions', 'Trained', 'TrainedRun', 'load_run', 'train']

Labels = Sequence[int] | Sequence[str] | np.ndarray


class Trained(NamedTuple):
  """What `train` returns.

  Attributes:
    summary: what `verdict.json` holds of a folder, `summary.json` of one
      training; None if it was told to stop.
    run: the trained network, or None with the summary.
  """

  summary: dict[str, Any] | None
  run: TrainedRun | None


def train(
  config: ml_collections.ConfigDict | str | os.PathLike | None = None,
  workdir: str | os.PathLike | None = None,
  *,
  minutes: float | None = None,
  images: Sequence[np.ndarray] | np.ndarray | None = None,
  labels: Labels | None = None,
  class_names: Sequence[str] | None = None,
) -> Trained:
  """Makes the best model of a folder, or trains one run; or continues it.

  A folder alone is what `csdnet train FOLDER` does: what can be trained on it
  is compared, and the best is trained on all of it.

  Noise of two shades, a network for tests, two steps:

    >>> import tempfile
    >>> from csdnet_jax.config import default
    >>> config = default(network='efficientnet_tiny')
    >>> config.init_from, config.epochs, config.model.size = '', 2, 32
    >>> shades = np.arange(32) % 2
    >>> noise = np.random.default_rng(0).integers(0, 99, (32, 40, 40, 3))
    >>> images = (noise + 99 * shades[:, None, None, None]).astype(np.uint8)
    >>> summary, run = train(
    ...   config, tempfile.mkdtemp(), images=images, labels=shades
    ... )  # doctest: +ELLIPSIS
    arrays: 2 classes
    ...
    Everything is in ...
    >>> summary['n_test'], run.predict(images).probabilities.shape
    (16, (32, 2))

  Args:
    config: of one training, or a config file or its name, such as 'quickstart';
      or a folder of images, as above. None is `configs/folder.py`, for images
      in memory.
    workdir: where everything of the run is kept; None is `runs/NAME`, NAME that
      of the folder or the config.
    minutes: that a folder may take, about; None is 20.
    images: n in place of those that `config.data` names, as for
      `arrays.of_arrays`; the parts are drawn as for a folder.
    labels: [n], integers from 0, or names of classes.
    class_names: of every class, by label.

  Raises:
    UserError: for a user's mistake, in a sentence.
  """
  if isinstance(config, str | os.PathLike) and _is_folder(os.fspath(config)):
    config = command_line.resolve(command_line.of_folder(os.fspath(config)))
    if not (images is labels is class_names is None):
      raise UserError(
        'A folder brings its own images; leave images, labels and class_names '
        'out, or the folder.'
      )
    workdir = paths.of(workdir or f'runs/{config.name}')
    minutes = MINUTES if minutes is None else minutes
    told = verdict(config, workdir, minutes=minutes)
    return Trained(told, load_run(workdir) if told else None)
  if isinstance(config, str | os.PathLike):
    config = _config_of(os.fspath(config))
  elif config is None:
    if images is None:
      raise UserError(
        'Say what to train on: a folder, a config, or images and labels.'
      )
    config = command_line.resolve(['--config=folder', '--config.name=arrays'])
  if minutes is not None:
    raise UserError(
      'minutes are of a folder; how long one training takes its config says.'
    )
  workdir = paths.of(workdir or f'runs/{config.name}')
  dataset = None
  if images is not None:
    if labels is None:
      raise UserError('The images have no labels; give a label for each.')
    config = config.copy_and_resolve_references()
    config.data.source = 'arrays'
    if methods.task(config) != 'classification':
      raise UserError(
        f'The method {config.method.name} is for images with masks, which '
        'cannot be given in memory; keep them in a folder.'
      )
    dataset = arrays.of_arrays(images, labels, class_names)
  summary = training.train(config, workdir, dataset=dataset)
  return Trained(summary, load_run(workdir) if summary else None)


def _is_folder(text: str) -> bool:
  return paths.is_remote(text) or paths.of(text).is_dir()


def _config_of(text: str) -> ml_collections.ConfigDict:
  """The config of a config file."""
  name = text.partition(':')[0]
  if not (name.endswith('.py') or name in command_line.installed()):
    raise UserError(
      f'There is no folder {text}, and no config of that name; those that come '
      f'with csdnet are {", ".join(command_line.installed())}.'
    )
  return command_line.resolve([f'--config={text}'])
