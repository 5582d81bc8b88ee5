"""`python -m csdnet_jax.main --config=FILE`: the same as `csdnet train`."""

from absl import app

from csdnet_jax.__main__ import main

if __name__ == '__main__':
  # The flags are argparse's; of absl only what it does around a program.
  app.run(
    lambda argv: main(['train', *argv[1:]]),
    flags_parser=lambda argv: app.flags.FLAGS(argv[:1]) and argv,
  )
