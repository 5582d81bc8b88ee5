"""Where everything is printed; waits for no library but rich."""

import sys

import rich.console

# In a terminal lines break between words; a log keeps them whole.
console = rich.console.Console(
  highlight=False, soft_wrap=not sys.stdout.isatty()
)
