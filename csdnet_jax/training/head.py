"""A head that is fitted to the training images before the first step."""

import jax
import jax.numpy as jnp
import numpy as np

from csdnet_jax import methods, sharding
from csdnet_jax.evaluation import probes
from csdnet_jax.runtime import processes
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say
from csdnet_jax.state import TrainState, with_head
from csdnet_jax.tasks import classification
from csdnet_jax.tasks.base import Experiment

_NAMES = 'kernel', 'bias'
_FITS = {'probe': probes.fit_probe, 'prototypes': probes.fit_prototypes}


def fitted(config) -> str:
  """Returns the head that is fitted, 'probe' or 'prototypes'; '' of none.

  It is all that is learnt by a run that takes no steps, and the start of one
  with `config.init_head`.
  """
  if name := methods.fitted(config):
    return name
  return 'probe' if config.init_head == 'probe' else ''


def fit_head(experiment: Experiment, state: TrainState) -> TrainState:
  """Returns the state with the head that `fitted` names.

  The first process fits, to the embeddings of the finished test views of the
  training images, and all take what it has found.

  Args:
    experiment: of the run.
    state: of the initial weights, on the devices.

  Raises:
    UserError: as `fit`.
  """
  config, program, _ = experiment
  name = fitted(config)
  say(f'Fitting the head ({name}) to the training images ...')
  found = classification.outputs(experiment, state, 'train')
  shapes = {key: state.params['head'][key].shape for key in _NAMES}
  head = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
  with processes.collective():
    if jax.process_index() == 0:
      head = fit(name, found['embedding'], found['label'])
  head = {
    key: np.frombuffer(processes.of_first(x.tobytes()), np.float32)
    for key, x in head.items()
  }
  return with_head(
    state, head,
    lambda head: {
      key: sharding.replicate(jnp.asarray(x.reshape(shapes[key])), program.mesh)
      for key, x in head.items()
    },
  )  # fmt: skip


def fit(name: str, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
  """Fits a head to embeddings.

  Args:
    name: 'probe' or 'prototypes'.
    x: float32 [n, C].
    y: integer [n], labels 0 to classes - 1, each present.

  Returns:
    `kernel` [C, classes] and `bias` [classes], float32.

  Raises:
    UserError: an embedding is not finite.
  """
  if not np.isfinite(x).all():
    raise UserError(
      'The network makes embeddings that are not finite of the training '
      'images, to which no head can be fitted; check its weights '
      '(config.init_from).'
    )
  kernel, bias, _ = _FITS[name](x, y)
  return dict(zip(_NAMES, (kernel, bias), strict=True))
