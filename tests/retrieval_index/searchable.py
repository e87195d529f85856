"""Media that were embedded with a tiny model, and an index of them."""

import atexit
import contextlib
import csv
import functools
import http.client
import http.server
import os
import shutil
import tempfile
import threading
import urllib.parse

import numpy as np
import tf_keras
import uvicorn

from tests import sample_media, vatt_models
from tests.embedding import tiny_model
from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import run, run_options
from vatt_tf.export import saved_model, signatures
from vatt_tf.models import sizes
from vatt_tf.retrieval_index import building, index, query, web, web_security

# What the files of `write_media` are.
NUM_MOMENTS = 8
UNPLAYABLE = 'old <img src=x onerror=document.title=`caught`>.avi'
CAPTION = '<img src=x onerror="document.title=\'caught\'"> & a red star'


def _images(seed, colour):
  """Noise over a colour, in coarse blocks that survive encoding."""
  rng = np.random.default_rng(seed)
  noise = rng.integers(-60, 60, [12, 6, 8, 3]).repeat(20, 1).repeat(20, 2)
  return list(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def _sound(seed, seconds):
  """A chord."""
  pitches = np.random.default_rng(seed).uniform(200, 2000, 3)
  times = np.arange(round(seconds * 16000)) / 16000
  waves = [np.sin(2 * np.pi * pitch * times) for pitch in pitches]
  return (0.25 * np.sum(waves, 0)).astype(np.float32)


def write_media(folder):
  """Writes files that browsers play, and one that they do not."""
  os.makedirs(os.path.join(folder, 'shapes'))

  def path(name):
    return os.path.join(folder, name)

  for seed, (name, colour, seconds, codec) in enumerate(
    (
      ('shapes/red star.mp4', (200, 60, 60), 2.4, 'libx264'),
      ('shapes/blue ring.mp4', (60, 60, 200), 1.6, 'libx264'),
      (UNPLAYABLE, (60, 180, 60), 0.8, 'mpeg4'),
    )
  ):
    sample_media.write(
      path(name),
      seconds,
      sound=None if name.endswith('.avi') else _sound(seed, seconds),
      sound_rate=16000,
      video_codec=codec,
      images=_images(seed, colour),
      size=(160, 120),
    )
  sample_media.write(
    path('bell.wav'),
    0,
    sound=_sound(9, 1.6),
    sound_rate=16000,
    sound_codec='pcm_s16le',
  )
  with open(path('media.csv'), 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['video_path', 'audio_path', 'caption'])
    writer.writerow(['shapes/red star.mp4', '', CAPTION])
    writer.writerow(['shapes/blue ring.mp4', '', 'a blue ring turns'])
    writer.writerow([UNPLAYABLE, '', ''])
    writer.writerow(['', 'bell.wav', 'a bell\nrings'])


def make_model():
  """A tiny model to which clips of different colours are different.

  Its batch normalisation has seen some: without, all clips are nearly one.
  """
  tf_keras.utils.set_random_seed(0)
  size = tiny_model.VIDEO.frame_size
  model = vatt_models.build_vatt(
    size=sizes.Size(1, 16, 32, 2, d_kv=8),
    video_patch_size=(2, 16, 16),
    num_frames=tiny_model.VIDEO.num_frames,
    frame_size=size,
    num_audio_samples=tiny_model.AUDIO.num_samples,
    vocabulary_size=256,
    d_embedding=8,
    d_va=8,
    d_vt=6,
    d_post_projection=16,
    use_token_head=True,
  )
  rng = np.random.default_rng(0)
  colours = rng.uniform(-1, 1, [16, 1, 1, 1, 3])
  noise = rng.uniform(-0.5, 0.5, [16, 8, size, size, 3])
  for layer in model.submodules:
    if isinstance(layer, tf_keras.layers.Layer) and hasattr(layer, 'momentum'):
      layer.momentum = 0.0
  model(
    {
      'video': (colours + noise).astype(np.float32),
      'audio': np.array([_sound(i, 0.8) for i in range(16)])[..., np.newaxis],
      'text': rng.integers(1, 200, [16, 1, tiny_model.TEXT.max_words]),
      'video_mask': np.ones([16], bool),
      'audio_mask': np.ones([16], bool),
      'text_mask': np.ones([16, 1], bool),
    },
    training=True,
  )
  return model


class Searchable:
  """A folder with media, a model, embeddings and an index.

  Args:
    folder: an empty one.

  Attributes:
    media: folder of the media files.
    saved_model: folder of the model.
    embeddings: folder of the table.
    index: folder of the index.
  """

  def __init__(self, folder):
    self.media, self.saved_model, self.embeddings, self.index = (
      os.path.join(folder, name)
      for name in ('media', 'model', 'embeddings', 'index')
    )
    os.makedirs(self.media)
    write_media(self.media)
    served = signatures.ServedModel(
      make_model(), tiny_model.VIDEO, tiny_model.AUDIO, tiny_model.TEXT
    )
    saved_model.write(served, self.saved_model, 'runs/x/ckpt-7', tiny_model.GIN)
    run.embed(
      run_options.Options(
        saved_model=self.saved_model,
        output=self.embeddings,
        manifest=os.path.join(self.media, 'media.csv'),
        num_workers=0,
        shorter_side=48,
        jpeg_quality=40,
      ),
      tiny_model.FORM,
    )
    building.build(self.embeddings, self.index)

  def copy_model(self, folder, number, is_another=False):
    """Copies the model.

    Args:
      folder: of versions.
      number: of the copy's version.
      is_another: whether the copy gets another digest, as another model has.
    """
    path = os.path.join(folder, str(number))
    shutil.copytree(model_lib.find_version(self.saved_model), path)
    if is_another:
      with open(model_lib.find_config(path), 'a', encoding='utf-8') as file:
        file.write('\n# Of another model.\n')

  @functools.cached_property
  def searcher(self):
    """A `query.Searcher`, made once."""
    embedder = model_lib.Embedder(
      model_lib.find_version(self.saved_model), tiny_model.FORM
    )
    return query.Searcher(index.Index(self.index), embedder)


@functools.cache
def get():
  """A `Searchable`, made once in a process."""
  folder = tempfile.mkdtemp(dir=os.environ.get('TEST_TMPDIR'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return Searchable(folder)


@contextlib.contextmanager
def serve(searcher, **arguments):
  """Serves the page in a thread.

  Args:
    searcher: `query.Searcher`.
    **arguments: of `web.make_app`.

  Yields:
    The address, such as `http://127.0.0.1:4321/`.
  """
  with web_security.listen('127.0.0.1', 0) as listener:
    server = uvicorn.Server(
      uvicorn.Config(web.make_app(searcher, **arguments), log_level='warning')
    )
    thread = threading.Thread(
      target=server.run, kwargs={'sockets': [listener]}, daemon=True
    )
    thread.start()
    try:
      yield web_security.address(listener)
    finally:
      server.should_exit = True
      thread.join()


class _Proxy(http.server.BaseHTTPRequestHandler):
  """Answers below a path what another server answers."""

  protocol_version = 'HTTP/1.1'

  def _forward(self):
    if not self.path.startswith(self.server.path):
      self.send_error(404)
      return
    length = int(self.headers.get('Content-Length') or 0)
    body = self.rfile.read(length) if length else None
    target = urllib.parse.urlsplit(self.server.target)
    connection = http.client.HTTPConnection(target.netloc, timeout=60)
    with contextlib.closing(connection):
      path = '/' + self.path.removeprefix(self.server.path)
      connection.request(self.command, path, body, dict(self.headers))
      response = connection.getresponse()
      content = response.read()
    self.send_response(response.status)
    for name, value in response.getheaders():
      if name.lower() not in ('transfer-encoding', 'connection', 'date'):
        self.send_header(name, value)
    self.end_headers()
    self.wfile.write(content)

  do_GET = do_POST = _forward

  def log_message(self, *unused):
    pass


@contextlib.contextmanager
def below_path(target, path='/vatt/'):
  """A proxy before a server, which keeps the name that it was called by.

  Args:
    target: address of the server, with a slash at its end.
    path: that it is seen below.

  Yields:
    The address there.
  """
  proxy = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Proxy)
  proxy.daemon_threads = True
  proxy.target, proxy.path = target, path
  threading.Thread(target=proxy.serve_forever, daemon=True).start()
  try:
    yield f'http://127.0.0.1:{proxy.server_port}{path}'
  finally:
    proxy.shutdown()
    proxy.server_close()
