"""CSDNet: ultra-fine-grained visual categorization from few samples.

Two names are what a program imports:

  >>> from csdnet_jax import load_run, train
"""

__version__ = '0.2.0'
__all__ = ['load_run', 'train']


# JAX and the checkpoint library take seconds to import: only once wanted.
def __getattr__(name):
  if name in __all__:
    from csdnet_jax.inference import api

    return getattr(api, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
