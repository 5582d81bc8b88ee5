"""What is said: no detail that nobody asked for, and lines in a log file."""

from csdnet_jax.runtime import terminal


def test_details_are_said_to_those_who_ask():
  for on, expected in ((False, 'a\n'), (True, 'a\n[b]\n')):
    terminal.be_verbose(on)
    with terminal.console.capture() as captured:
      terminal.say('a')
      terminal.say('[b]', verbose=True)
    assert captured.get() == expected
  terminal.be_verbose(False)


def _steps(first, total, every, **kwargs):
  with (
    terminal.console.capture() as captured,
    terminal.progress_bar('steps', **kwargs) as progress,
  ):
    progress(first, total)
    for step in range(first + 1, total + 1):
      if step % every == 0 or step == total:
        progress(step, total, 'loss 1.2')
  return captured.get().splitlines()


def test_a_log_file_gets_a_line_each_tenth():
  lines = _steps(0, 400, 10, logged='step')
  assert len(lines) == 10
  assert lines[0].startswith('step 40 of 400 (10 %), loss 1.2, ')
  assert lines[0].endswith(' left')
  assert lines[-1] == 'step 400 of 400 (100 %), loss 1.2'


def test_of_few_steps_each_is_a_line_and_of_a_late_start_the_rest():
  assert len(_steps(0, 4, 1, logged='step')) == 4
  lines = _steps(395, 400, 1, logged='step')
  assert lines == ['step 400 of 400 (100 %), loss 1.2']


def test_a_short_bar_leaves_no_line():
  assert _steps(0, 400, 10) == []
