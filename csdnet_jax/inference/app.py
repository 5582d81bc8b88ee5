"""`csdnet app`: a page on this computer, where a dropped leaf gets its name.

It is served to this computer alone (127.0.0.1) and loads nothing from
elsewhere; an upload stays in memory, and only until it is answered.
"""

import argparse
import contextlib
import logging
import secrets
import socket
import threading

import jax

from csdnet_jax.data import uploads
from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import evidence, neighbours, predictions
from csdnet_jax.inference import command, embed
from csdnet_jax.pictures import speaks
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError, counted
from csdnet_jax.runtime.terminal import say

_SIDE = 320  # Pixels of a picture on the page.


def make_app(run, leaves=None, note=''):
  """Returns the page of a `TrainedRun` as a Flask app.

  Args:
    run: the run.
    leaves: (split, rows, vectors) of its training part, see `embed.embed`.
    note: sentences under the heading.
  """
  import flask

  app = flask.Flask(__name__)
  app.config['MAX_CONTENT_LENGTH'] = uploads.MAX_BYTES
  # By no other name: a site elsewhere could give itself one that leads here.
  app.config['TRUSTED_HOSTS'] = ['127.0.0.1', 'localhost']
  render, names = flask.render_template, run.class_names
  places = jax.jit(evidence.places, static_argnums=0)
  one_at_a_time = threading.Lock()

  @app.get('/')
  def page():
    limit, nonce = uploads.MAX_BYTES, secrets.token_urlsafe()
    return render('drop.html', note=note, limit=limit, nonce=nonce)

  @app.post('/leaf')
  def leaf():
    data = flask.request.get_data()
    with one_at_a_time:
      view = run.view(uploads.open_upload(data))[None]
      outputs = run.forward(view)
      p = run.probabilities(outputs['logits'])
      best = predictions.top(p, min(5, len(names)))
      (map_,) = jax.device_get(
        places(
          run.method.predict, run.params, run.model_state, view,
          best[:, 0], best[:, 1],
        )
      )  # fmt: skip
    first, second = (names[c] for c in best[0, :2])
    titles = (
      'What the network sees',
      f'Speaks for {first} against {second}',
      f'Speaks for {second} against {first}',
    )
    images = (view[0], *speaks.panels(view[0], map_))
    shown = [
      (title, inputs.thumbnail(image, _SIDE))
      for title, image in zip(titles, images, strict=True)
    ]
    closest = [(names[c], 100 * p[0, c]) for c in best[0]]
    near = nearest(outputs['embedding']) if leaves else []
    refused = run.none_of_these(outputs)
    return render(
      'answer.html',
      shown=shown,
      closest=closest,
      near=near,
      refused=refused is not None and refused[0],
    )

  def nearest(vector):
    split, rows, vectors = leaves
    k = min(5, len(rows))
    (found,), (cosine,) = neighbours.nearest(vector, vectors, k)
    for i, cos in zip([rows[j] for j in found], cosine, strict=True):
      image = inputs.thumbnail(inputs.decoded(split, i), _SIDE)
      yield names[split.labels[i]], cos, image

  @app.errorhandler(UserError)
  @app.errorhandler(413)
  def refuse(error):
    text = flask.render_template_string('{{ error }}', error=error)
    return text, getattr(error, 'code', 400)

  return app


def introduction(run) -> str:
  """Returns what a botanist should know before asking; see `make_app`."""
  made = run.calibration
  if made.n and made.temperature != 1.0:
    sure = f'were fitted to {made.n} leaves while these were held out'
  else:
    sure = 'were fitted to nothing, and may be too sure'
  return (
    f'The model knows {counted(len(run.class_names), "kinds of leaf")} and '
    'gives every leaf the names of those that it is most like; a suggestion '
    f'to check. Its percentages {sure}.'
  )


def main(args: argparse.Namespace) -> None:
  """Runs the command, until Ctrl-C."""
  commands.require('flask', 'app')
  from werkzeug import serving

  # It logs each request.
  logging.getLogger('werkzeug').setLevel(logging.WARNING)

  try:
    listener = socket.create_server(('127.0.0.1', args.port))
  except (OSError, OverflowError) as e:
    raise UserError(f'--port={args.port} is not free; 0 finds one.') from e
  run = command.open_run(args)
  say(run.calibration.how)
  leaves, note, problems = None, introduction(run), []
  try:
    leaves = embed.training_leaves(run, problems)
  except UserError as error:
    note += ' The leaves that it learnt from are not there to be shown.'
    say(f'No nearest training leaves: {error}')
  command.report(problems)
  app, (host, port) = make_app(run, leaves, note), listener.getsockname()
  server = serving.make_server(
    host, port, app, threaded=True, fd=listener.fileno()
  )
  with contextlib.suppress(KeyboardInterrupt):
    say(f'Open http://{host}:{port} in a browser; Ctrl-C ends.')
    server.serve_forever()
