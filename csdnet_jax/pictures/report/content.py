"""What a report says, as plain data; what is None or empty is left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from csdnet_jax.evaluation.calibration import Calibration
from csdnet_jax.evaluation.unknown import Unknown


class Predictions(NamedTuple):
  """What a model makes of n pictures that it has not learnt from.

  Attributes:
    names: of each picture, relative to the data set.
    labels: int [n].
    logits: float [n, classes].
    probabilities: float [n, classes], calibrated where they can be.
  """

  names: Sequence[str]
  labels: np.ndarray
  logits: np.ndarray
  probabilities: np.ndarray


class Leaf(NamedTuple):
  """Class evidence over one leaf.

  Attributes:
    name: of the picture.
    label: its class.
    chosen: the class that is spoken for.
    rival: the class that is spoken against.
    view: uint8 [S, S, 3], what the network sees.
    speaks: float [S, S], `evidence.smooth` of `evidence.of_classes`.
  """

  name: str
  label: int
  chosen: int
  rival: int
  view: np.ndarray
  speaks: np.ndarray


class Content(NamedTuple):
  """All that a report says.

  Attributes:
    title: the name of the data set.
    class_names: by label.
    verdict: sentences for a botanist, the most important first.
    candidates: rows `name`, `title`, `top1`, `low`, `high` (percent), `chosen`,
      and `candidate`, false where it is only compared with.
    advice: what would help most, in a sentence.
    data: the figures of `data_report.json`, and `groups`, how many there are.
    predictions: of the chosen model, held out.
    image: `name -> uint8 [h, w, 3]`, of the pictures of `predictions`.
    leaves: some with class evidence.
    calibration: of the chosen model.
    unknown: of the chosen model, how leaves of no known class are told.
    records: of `metrics.jsonl`.
    made: {what: how}, how it was made.
    card: {heading: sentence} of the model card.
    left_out: what was not tried, and why, in sentences.
    folds: how many measured the model, each by another model; None for a single
      training.
    evidence: whose the names and the places of `leaves` are, in a sentence;
      None where both are of the model that `predictions` are of.
    folders: of this machine, from its root, which the page must not tell.
  """

  title: str
  class_names: Sequence[str]
  verdict: Sequence[str] = ()
  candidates: Sequence[Mapping[str, Any]] | None = None
  advice: str | None = None
  data: Mapping[str, Any] | None = None
  predictions: Predictions | None = None
  image: Callable[[str], np.ndarray] | None = None
  leaves: Sequence[Leaf] | None = None
  calibration: Calibration | None = None
  unknown: Unknown | None = None
  records: Sequence[Mapping[str, Any]] | None = None
  made: Mapping[str, str] | None = None
  card: Mapping[str, str] | None = None
  left_out: Sequence[str] = ()
  folds: int | None = None
  evidence: str | None = None
  folders: Sequence[str] = ()
