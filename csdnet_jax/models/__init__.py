"""The networks: `build` makes a model of a name, `find` says what it is."""

from csdnet_jax.models.base import Model, ModelSpec, Outputs
from csdnet_jax.models.registry import (
  KNOWN,
  MODELS,
  build,
  find,
  from_torch,
  segments,
)

__all__ = [
  'KNOWN', 'MODELS', 'Model', 'ModelSpec', 'Outputs', 'build', 'find',
  'from_torch', 'segments',
]  # fmt: skip
