"""What a run is about, chosen by its method: its data and what is measured."""

from csdnet_jax import methods
from csdnet_jax.tasks import classification, segmentation
from csdnet_jax.tasks.base import Task

TASKS: dict[str, Task] = {
  'classification': classification,
  'segmentation': segmentation,
}


def of(config) -> Task:
  """Returns the task of `config.method.name`."""
  return TASKS[methods.task(config)]
