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
import numpy as np

from csdnet_jax.data import uploads
from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import neighbours, predictions
from csdnet_jax.inference import calibrated, command, embed
from csdnet_jax.pictures import draw
from csdnet_jax.runtime import commands
from csdnet_jax.runtime.errors import UserError
from csdnet_jax.runtime.terminal import say

_SIDE = 320  # Pixels of a picture on the page.


def make_app(run, leaves=None, note=''):
  """Returns the page of a `TrainedRun` as a Flask app.

  Args:
    run: the run.
    leaves: (split, rows, vectors) of its training part, see `embed.embed`.
    note: a sentence under the heading.
  """
  import flask

  app = flask.Flask(__name__)
  app.config['MAX_CONTENT_LENGTH'] = uploads.MAX_BYTES
  # By no other name: a site elsewhere could give itself one that leads here.
  app.config['TRUSTED_HOSTS'] = ['127.0.0.1', 'localhost']
  render, names = flask.render_template, run.class_names
  pictures, one_at_a_time = jax.jit(run.method.pictures), threading.Lock()

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
      batch = {'image': view, 'label': best[:, 0]}
      drawn = pictures(run.params, run.model_state, batch, jax.random.key(0))
    shown = [('What the network sees', inputs.thumbnail(view[0], _SIDE))]
    if 'SSDP map' in drawn:
      heat = np.uint8(255 * draw.over(view, np.asarray(drawn['SSDP map']))[0])
      image = inputs.thumbnail(heat, _SIDE)
      shown.append(('SSDP map: bright tells most', image))
    closest = [(names[c], 100 * p[0, c]) for c in best[0]]
    near = nearest(outputs['embedding']) if leaves else []
    return render('answer.html', shown=shown, closest=closest, near=near)

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
  leaves, note, problems = None, calibrated.without_paths(run.calibration), []
  try:
    leaves = embed.training_leaves(run, problems)
  except UserError as error:
    note += ' No nearest training leaves: their pictures are not there.'
    say(f'No nearest training leaves: {error}')
  command.report(problems)
  app, (host, port) = make_app(run, leaves, note), listener.getsockname()
  server = serving.make_server(
    host, port, app, threaded=True, fd=listener.fileno()
  )
  with contextlib.suppress(KeyboardInterrupt):
    say(f'Open http://{host}:{port} in a browser; Ctrl-C ends.')
    server.serve_forever()
