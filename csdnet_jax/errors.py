"""The one exception that a user's mistake raises."""


class UserError(Exception):
  """What is wrong, where, and what to do about it, in one sentence.

  The command line prints the sentence alone and exits with status 2; every
  other exception is a defect of ours and keeps its traceback.
  """
