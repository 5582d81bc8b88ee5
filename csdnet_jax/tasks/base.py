"""The contract between the trainer and a task: what a run is about."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import ml_collections

from csdnet_jax.methods import Method
from csdnet_jax.models import Model
from csdnet_jax.runtime import paths
from csdnet_jax.state import TrainState


class Program(NamedTuple):
  """What a config and a data set make: everything that is compiled.

  Attributes:
    mesh: the devices.
    method: what is trained.
    model: the network.
    steps: of the whole run.
    init: `(params=None, model_state=None) -> TrainState`, on the host; from
      random values where no others are given.
    train_step: `(state, batch, frozen) -> (state, metrics)`.
    eval_step: what the task's `compile_eval` returns.
  """

  mesh: jax.sharding.Mesh
  method: Method
  model: Model
  steps: int
  init: Callable[..., TrainState]
  train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
  eval_step: Callable


class Experiment(NamedTuple):
  """A config made ready: what is trained, and on what.

  Attributes:
    config: fitted to the data.
    program: built from it.
    data: what the task's `prepare` made.
  """

  config: ml_collections.ConfigDict
  program: Program
  data: Any


class Task(Protocol):
  """A task is a module with these names.

  Attributes:
    FIGURE: the figure of a summary that a run is judged by, in percent.
    NAME: what people call it.
  """

  FIGURE: str
  NAME: str

  def load(self, config, split: Mapping | None = None) -> Any:
    """Returns the data set: `name`, `class_names`, and parts with `names`."""

  def split_of(self, dataset) -> dict[str, Any]:
    """Returns plain data from which `load` makes the same parts again.

    The class names, and for each part what it holds, by name.
    """

  def load_whole(self, config, folder: str, table: str = '') -> Any:
    """Returns a data set of a folder, all of it in its test part.

    Of the images that a table names, where one is given.
    """

  def judges(self, dataset, class_names, trained_on) -> Any:
    """Returns of the test part of another data set what can judge a run.

    Without the images of which `trained_on(name, digest)` is true.
    """

  def prepare_test(self, config, dataset) -> Any:
    """Returns as `prepare` does the test part alone."""

  def prepare(self, config, dataset, told: bool = False) -> tuple[Any, dict]:
    """Returns the data made ready, and the figures of the report.

    The first has `dataset` and, by the name of the part, `parts`. The report is
    said, unless it was `told` before.
    """

  def train_batches(
    self, config, mesh: jax.sharding.Mesh, data, start: int, stop: int
  ) -> Iterator:
    """Returns this process's rows of the batches from `start` to `stop` - 1."""

  def compile_eval(
    self, config, method: Method, mesh: jax.sharding.Mesh, classes: int
  ) -> Callable:
    """Returns `Program.eval_step`."""

  def start(self, experiment: Experiment, state: TrainState) -> dict:
    """Returns figures of the beginning: the baselines to beat."""

  def evaluate(
    self, experiment: Experiment, state: TrainState, part: str, last: bool
  ) -> tuple[dict[str, float], Any]:
    """Returns the figures of a part, equal on all processes, and details."""

  def write_details(self, workdir: paths.Path, part: str, data, details):
    """Writes what is said of each image of a part."""

  def line(self, figures: dict[str, float]) -> str:
    """Returns the figures of an evaluation in a line."""

  def summarise(
    self, records: list[dict], steps: int, parts: Iterable[str], start: dict
  ) -> dict:
    """Returns the summary of a run from its records."""

  def shown(self, figures: dict[str, float]) -> dict[str, float]:
    """Returns the figures of an evaluation under the names that people use."""

  def rows(self, summary: dict) -> dict[str, float]:
    """Returns {name: figure} of a summary, for people."""

  def remark(self, summary: dict) -> str:
    """Returns what a person should not miss in a summary, or ''."""

  def write_start(
    self, experiment: Experiment, state: TrainState, workdir: paths.Path
  ) -> None:
    """Writes the pictures of the beginning."""

  def write_end(
    self, experiment: Experiment, state: TrainState, workdir: paths.Path
  ) -> None:
    """Writes what the run is used by without its data, and the pictures."""
