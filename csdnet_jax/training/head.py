"""The head of a run that takes no steps: fitted to its training images."""

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax import methods, sharding
from csdnet_jax.evaluation import probes
from csdnet_jax.runtime import processes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import TrainState
from csdnet_jax.tasks import classification
from csdnet_jax.tasks.base import Experiment

_NAMES = 'kernel', 'bias'
_FITS = {'probe': probes.fit_probe, 'prototypes': probes.fit_prototypes}


def fit_head(experiment: Experiment, state: TrainState) -> TrainState:
  """Returns the state with the head that `methods.fitted` names.

  The first process fits, to the embeddings of the finished test views of the
  training images, and all take what it has found.

  Args:
    experiment: of the run.
    state: of the initial weights, on the devices.

  Raises:
    UserError: if the network makes something that is no number of an image.
  """
  config, program, _ = experiment
  name = methods.fitted(config)
  say(f'Fitting the head ({name}) to the training images ...')
  found = classification.outputs(experiment, state, 'train')
  head = dict(state.params['head'])
  kernel, bias = (np.zeros(x.shape, np.float32) for x in map(head.get, _NAMES))
  with processes.collective():
    if not np.isfinite(found['embedding']).all():
      raise UserError(
        'The network makes embeddings that are not finite of the training '
        'images, to which no head can be fitted; check its weights '
        '(config.init_from).'
      )
    if jax.process_index() == 0:
      kernel, bias, _ = _FITS[name](found['embedding'], found['label'])
  arrays = {
    key: np.frombuffer(processes.of_first(x.tobytes()), np.float32)
    for key, x in zip(_NAMES, (kernel, bias), strict=True)
  }
  for key, x in arrays.items():
    head[key] = sharding.replicate(
      jnp.asarray(x.reshape(state.params['head'][key].shape)), program.mesh
    )
  return state.replace(params=state.params | {'head': head})
