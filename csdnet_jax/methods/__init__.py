"""What is trained: the papers, each behind the same contract (`base.py`)."""

from csdnet_jax.methods import supcon, supervised
from csdnet_jax.methods.apd import method as apd
from csdnet_jax.methods.base import Method
from csdnet_jax.methods.csdnet import method as csdnet
from csdnet_jax.models import Model
from csdnet_jax.runtime.errors import UserError

# Each module has `make(config, model)` and `fit(config, n_train)`.
METHODS = {
  'supervised': supervised, 'supcon': supcon, 'csdnet': csdnet, 'apd': apd,
}  # fmt: skip
# By the name of the method; the others classify.
_TASKS = {'apd': 'segmentation'}


def make(config, model: Model) -> Method:
  """Returns the method that `config.method.name` names, for this model."""
  return module_of(config).make(config, model)


def fit(config, n_train: int) -> list[str]:
  """Fits the method's fields to the train set, in place.

  Args:
    config: of the run.
    n_train: training images.

  Returns:
    What was changed, in sentences.

  Raises:
    UserError: if the fields cannot go with a train set or a batch so small.
  """
  return module_of(config).fit(config, n_train)


def task(config) -> str:
  """Returns what the method does: 'classification' or 'segmentation'."""
  return _TASKS.get(config.method.name, 'classification')


def module_of(config):
  """Returns the module of `config.method.name`.

  Raises:
    UserError: for a name that is not in METHODS.
  """
  name = config.method.name
  if name not in METHODS:
    raise UserError(
      f'config.method.name is {name!r}, but the methods are '
      f'{", ".join(METHODS)}.'
    )
  return METHODS[name]
