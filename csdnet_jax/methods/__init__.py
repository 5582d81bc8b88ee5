"""What is trained: the papers, each behind the same contract (`base.py`)."""

from csdnet_jax.methods import frozen, supcon, supervised
from csdnet_jax.methods.apd import method as apd
from csdnet_jax.methods.base import Method, MethodSpec
from csdnet_jax.methods.csdnet import method as csdnet
from csdnet_jax.models import Model
from csdnet_jax.runtime import plugins
from csdnet_jax.runtime.fields import Values

METHODS = {
  'supervised': supervised.SPEC,
  'supcon': supcon.SPEC,
  'csdnet': csdnet.SPEC,
  'frozen': frozen.SPEC,
  'apd': apd.SPEC,
}


def find(name: str) -> MethodSpec:
  """Returns what `config.method.name` names: ours, or a module's `SPEC`.

  Raises:
    UserError: if there is no such method and no such module.
  """
  return plugins.find('config.method.name', name, METHODS, MethodSpec)


def make(config, model: Model) -> Method:
  """Returns the method that `config.method.name` names, for this model.

  Args:
    config: of the run, or `Values` of it, numbers of which JAX may trace.
    model: the network.
  """
  if not isinstance(config, Values):
    config = Values(config.to_dict())
  return find(config.method.name).make(config, model)


def task(config) -> str:
  """Returns what the method does: 'classification' or 'segmentation'."""
  return find(config.method.name).task


def fitted(config) -> str:
  """Returns the head that is fitted in place of steps; '' of what is trained.

  One of `config.method.frozen.head`. A run of a fitted head takes no steps.
  """
  return find(config.method.name).fitted(config)
