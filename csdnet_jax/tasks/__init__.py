"""What a run is about, chosen by its method: its data and what is measured.

A task is a module. `train.py` and `build.py` ask it for

  FIGURE, NAME       the figure of a summary that a run is judged by, in
                     percent, and what people call it
  load               `(config, split=None) -> dataset`: names, classes, parts;
                     of a data set `name`, `class_names` and `train.names` are
                     read by all
  split_of           `(dataset) -> plain data`, from which `load` makes the
                     same parts again: 'class_names', and a part by its name
  prepare            `(config, dataset) -> (Data, figures of the report)`; of
                     `Data` all read `dataset`, and `views` by part
  train_batches      `(config, mesh, data, start, stop) -> this process's rows`
  compile_eval       `(config, method, mesh, classes) -> Run.eval_step`
  start              `(config, run, state, data) -> figures` of the beginning
  evaluate           `(config, run, state, data, part, last) -> (figures,
                     details)`, equal on all processes
  write_details      `(workdir, part, data, details)`
  line, rows         the figures of an evaluation in a line, and a summary as
                     {name: figure}, for people
  summarise          `(records, steps, parts, start) -> summary`
  write_start,       `(config, run, state, data, workdir)`: pictures
  write_end
"""

from csdnet_jax import methods
from csdnet_jax.tasks import classification, segmentation

TASKS = {'classification': classification, 'segmentation': segmentation}


def of(config):
  """Returns the task of `config.method.name`."""
  return TASKS[methods.task(config)]
