"""`--profile` leaves a trace of whole steps; a short run leaves none."""

import jax
import pytest

from csdnet_jax.runtime.profile import SKIPPED, TRACED
from csdnet_jax.training import train

import runs


def _train(tmp_path, epochs):
  config = runs.config(
    tmp_path, **{'epochs': epochs, 'method.name': 'supervised'}
  )
  train.train(config, tmp_path / 'run', devices=jax.devices()[:1], profile=True)
  return list((tmp_path / 'run' / 'profile').rglob('*.xplane.pb'))


@pytest.mark.slow
def test_a_trace_names_the_steps_it_holds(tmp_path, capsys):
  (trace,) = _train(tmp_path, 2.0)
  data = jax.profiler.ProfileData.from_serialized_xspace(trace.read_bytes())
  numbers = {
    dict(event.stats)['step_num']
    for plane in data.planes
    for line in plane.lines
    for event in line.events
    if event.name == 'train'
  }
  assert numbers == set(range(SKIPPED + 1, SKIPPED + TRACED + 1))
  assert f'A trace of steps {SKIPPED + 1} to' in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_ends_while_it_is_traced_keeps_what_there_is(tmp_path):
  assert _train(tmp_path, (SKIPPED + 1) * 4 / 12)
