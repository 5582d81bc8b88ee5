"""A page on this computer: drop a leaf, see its cultivar and why.

  python -m csdnet_jax.inference.app --run=DIR [--port=8000]

It is served to this computer alone (127.0.0.1) and loads nothing from
elsewhere; an upload stays in memory, and only until it is answered.
"""

import secrets
import socket
import threading

import jax
import numpy as np

from csdnet_jax.data import uploads
from csdnet_jax.data.images import inputs
from csdnet_jax.evaluation import neighbours
from csdnet_jax.inference import command, embed, predict
from csdnet_jax.pictures import draw
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
  render, names = flask.render_template_string, run.class_names
  pictures, one_at_a_time = jax.jit(run.method.pictures), threading.Lock()

  @app.get('/')
  def page():
    limit, nonce = uploads.MAX_BYTES, secrets.token_urlsafe()
    return render(_PAGE, note=note, limit=limit, nonce=nonce)

  @app.post('/leaf')
  def leaf():
    data = flask.request.get_data()
    with one_at_a_time:
      view = run.view(uploads.open_upload(data))[None]
      outputs = run.forward(view)
      p = run.probabilities(outputs['logits'])
      best = predict.top(p, min(5, len(names)))
      batch = {'image': view, 'label': best[:, 0]}
      drawn = pictures(run.params, run.model_state, batch, jax.random.key(0))
    shown = [('What the network sees', inputs.thumbnail(view[0], _SIDE))]
    if 'SSDP map' in drawn:
      heat = np.uint8(255 * draw.over(view, np.asarray(drawn['SSDP map']))[0])
      image = inputs.thumbnail(heat, _SIDE)
      shown.append(('SSDP map: bright tells most', image))
    closest = [(names[c], 100 * p[0, c]) for c in best[0]]
    near = nearest(outputs['embedding']) if leaves else []
    return render(_ANSWER, shown=shown, closest=closest, near=near)

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
    return render('{{ error }}', error=error), getattr(error, 'code', 400)

  return app


def main(argv: list[str]) -> None:
  """Runs the command, until Ctrl-C."""
  parser = command.parser('app', __doc__)
  parser.add_argument('--port', type=int, default=8000, help='0 is any')
  args = parser.parse_args(argv)
  command.require('flask', 'app')
  from werkzeug import serving

  try:
    listener = socket.create_server(('127.0.0.1', args.port))
  except (OSError, OverflowError) as e:
    raise UserError(f'--port={args.port} is not free; 0 finds one.') from e
  run = command.open_run(args.run)
  leaves, note, problems = None, run.calibration.how, []
  try:
    train = run.part('train')
    leaves = train, *embed.embed(run, train, problems, 'training leaves')
  except UserError as error:
    note += f' No nearest training leaves: {error}'
  command.report(problems)
  app, (host, port) = make_app(run, leaves, note), listener.getsockname()
  say(f'{note}\nOpen http://{host}:{port} in a browser; Ctrl-C ends.')
  fd = listener.fileno()
  serving.make_server(host, port, app, threaded=True, fd=fd).serve_forever()


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src
 data:; style-src 'unsafe-inline'; script-src 'nonce-{{ nonce }}'; connect-src
 'self'"><meta name="viewport" content="width=device-width">
<title>Which leaf is this?</title><link rel="icon" href="data:,"><style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
label { display: block; margin: 1.5rem 0; padding: 1.5rem; text-align: center;
  border: 2px dashed #7a9a7a; border-radius: 8px; background: #f6f9f4 }
section { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
figure { margin: 0; width: 10rem } .large { width: 16rem } td { padding: .4rem }
img { width: 100%; aspect-ratio: 1; object-fit: contain } meter { width: 7rem }
</style><h1>Which leaf is this?</h1><p>{{ note }}</p>
<label>Drop a photograph of one leaf, or choose a file:
<input type="file" accept="image/*"></label><output aria-live="polite"></output>
<script nonce="{{ nonce }}">
const [input, out] = document.querySelectorAll('input, output')
async function show(file) {
  const large = file.size > {{ limit }}, gone = () => 'The program has ended.'
  out.textContent = large ? 'This file is too large.' : 'Looking ...'
  const ask = () => fetch('leaf', {method: 'POST', body: file})
  if (!large) out.innerHTML = await ask().then(answer => answer.text(), gone)
}
input.onchange = () => show(input.files[0])
ondragover = event => event.preventDefault()
ondrop = e => { e.preventDefault(); show(e.dataTransfer.files[0]) }
</script></html>"""

_ANSWER = """<section>{% for title, image in shown %}<figure class="large">
<img src="{{ image }}" alt="{{ title }}">{{ title }}</figure>{% endfor %}<table>
{% for name, p in closest %}<tr><td>{{ name }}<td><meter max="100" value="{{ p
}}"></meter><td>{{ '%.1f' % p }} %{% endfor %}</table></section>
{% if near %}<h2>Nearest training leaves</h2><section>{% for name, cosine, image
in near %}<figure><img src="{{ image }}" alt="">{{ name }}<br>cosine {{ '%.3f' %
cosine }}</figure>{% endfor %}</section>{% endif %}"""

if __name__ == '__main__':
  command.start(main)
