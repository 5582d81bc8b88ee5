"""The one exception that a user's mistake raises, and words for others."""


class UserError(Exception):
  """What is wrong, where, and what to do about it, in one sentence.

  The command line prints the sentence alone and exits with status 2; every
  other exception is a defect of ours and keeps its traceback.
  """


def first_line(error: BaseException) -> str:
  """Returns what an exception says in its first line; its type if nothing.

  >>> first_line(KeyError('queue')), first_line(AssertionError())
  ('queue', 'AssertionError')
  """
  quoted = isinstance(error, KeyError) and error.args
  text = str(error.args[0] if quoted else error)
  return (text.splitlines() or [type(error).__name__])[0]
