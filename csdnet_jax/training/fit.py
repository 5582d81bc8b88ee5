"""A config fitted to the size of its train set."""

from csdnet_jax import methods
from csdnet_jax.runtime.errors import UserError


def fit(config, n_train: int) -> list[str]:
  """Fits a config to the size of its train set, in place.

  Args:
    config: of the run.
    n_train: training images.

  Returns:
    What was changed, in sentences.

  Raises:
    UserError: if the train set is too small for the config.
  """
  if config.batch_size > n_train:
    raise UserError(
      f'config.batch_size is {config.batch_size}, more than the {n_train} '
      'training images; lower it.'
    )
  return methods.fit(config, n_train)


def step_of(config, epoch: float, n_train: int) -> int:
  """Returns the step at which `epoch` epochs are seen, at least 1."""
  return max(1, round(epoch * n_train / config.batch_size))
