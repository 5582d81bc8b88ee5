"""CSDNet: ultra-fine-grained visual categorization from few samples."""

__version__ = '0.1.0'


def __getattr__(name):
  # JAX and the checkpoint library take seconds to import: only once wanted.
  if name == 'load_run':
    from csdnet_jax.inference.trained import load_run

    return load_run
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
