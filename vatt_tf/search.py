"""Searches embedded media: with words, a sound or a clip.

    python -m vatt_tf.search build --embeddings=EMBEDDINGS --output=INDEX
    python -m vatt_tf.search query --index=INDEX --saved_model=MODEL \\
        --text='a dog barks'
    python -m vatt_tf.search serve --index=INDEX --saved_model=MODEL

The first makes an index of what `python -m vatt_tf.embed` wrote. The second
prints what is nearest to words (--text), to a sound (--audio) or to a clip
(--video). The third serves a web page that does the same, and plays what it
finds. docs/search.md says what is compared with what.
"""

import contextlib
import json

from absl.flags import argparse_flags

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import (
  command_line,
  file_utils,
  gin_utils,
)
from vatt_tf.embedding import model
from vatt_tf.retrieval_index import index, query

# The flags that take paths.
_PATHS = (
  'embeddings',
  'output',
  'audio',
  'video',
  'media_root',
  'index',
  'saved_model',
)


def open_searcher(index_path, saved_model):
  """An index with the model of its vectors, ready for queries.

  Args:
    index_path: Folder of the index.
    saved_model: Folder of the exported model, or of one of its versions. Of the
      former, the version that made the vectors is taken.

  Returns:
    `query.Searcher`.

  Raises:
    ValueError: there is no such index or model, or they do not fit.
  """
  opened = index.Index(index_path)
  version = model.find_version(saved_model, opened.model_version)
  gin_utils.parse([model.find_config(version)])
  embedder = model.Embedder(version, model.Form.configured())
  return query.Searcher(opened, embedder)


def build_and_show(embeddings, index_path, saved_model, text, count=3):
  """Builds an index and searches it once, to show that it works.

  Args:
    embeddings: Folder that `python -m vatt_tf.embed` wrote.
    index_path: Folder of the index.
    saved_model: Folder of the model that made the embeddings.
    text: Words to search with.
    count: How many moments to show.

  Returns:
    The `query.Answer`; it is printed as a table.
  """
  print(index.build(embeddings, index_path).partition('\n')[0])
  answer = open_searcher(index_path, saved_model).by_text(text, count=count)
  print(query.format_table(answer))
  return answer


def _build(arguments):
  print(index.build(arguments.embeddings, arguments.output, arguments.method))


def _query(arguments):
  searcher = open_searcher(arguments.index, arguments.saved_model)
  target, count = arguments.modality, arguments.top
  if arguments.text is not None:
    answer = searcher.by_text(arguments.text, target, count)
  else:
    kind = query.VIDEO if arguments.audio is None else query.AUDIO
    path = arguments.video if kind == query.VIDEO else arguments.audio
    answer = searcher.by_file(path, kind, target, count, arguments.start)
  if arguments.json:
    print(json.dumps(query.as_dict(answer), indent=2, ensure_ascii=False))
  else:
    print(query.format_table(answer))


def _serve(arguments):
  # Servers of the web are needed here alone.
  import uvicorn

  from vatt_tf.retrieval_index import web

  searcher = open_searcher(arguments.index, arguments.saved_model)
  web_app = web.make_app(
    searcher,
    arguments.host,
    arguments.media_root,
    arguments.max_upload_mb << 20,
    arguments.allowed_host,
  )
  with web.listen(arguments.host, arguments.port) as listener:
    print(index.describe(arguments.index))
    print(f'Search at {web.address(listener)} (Ctrl-C ends it)', flush=True)
    # Browsers keep the connections of players open.
    config = uvicorn.Config(
      web_app, log_level='warning', timeout_graceful_shutdown=2
    )
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C, once it has ended
      uvicorn.Server(config).run(sockets=[listener])


def parse(argv):
  """Parses the command line: a command and its flags.

  Args:
    argv: Of which the first is the program.

  Returns:
    A namespace of the flags, with the function of the command as `run`.
  """
  parser = argparse_flags.ArgumentParser(
    prog='python -m vatt_tf.search', description=__doc__.split('\n')[0]
  )
  commands = parser.add_subparsers(dest='command', required=True)

  def add(name, run, text):
    # Other mains, where they are imported too, have flags of these names.
    command = commands.add_parser(
      name, help=text, description=text, conflict_handler='resolve'
    )
    command.set_defaults(run=run)
    return command

  command = add('build', _build, 'Makes an index of embeddings.')
  command.add_argument(
    '--embeddings', required=True, help='What `vatt_tf.embed` wrote: a folder.'
  )
  command.add_argument(
    '--output', required=True, help='Folder of the index, which is replaced.'
  )
  command.add_argument(
    '--method',
    choices=index.METHODS,
    default=index.AUTO,
    help=f'How it is searched. auto: exactly below {index.EXACT_BELOW:,} '
    'vectors of a kind, else with ScaNN.',
  )

  asking = add('query', _query, 'Prints what is nearest to a query.')
  asked = asking.add_mutually_exclusive_group(required=True)
  asked.add_argument('--text', help='Words.')
  asked.add_argument('--audio', metavar='FILE', help='Its sound.')
  asked.add_argument('--video', metavar='FILE', help='Its frames.')
  asking.add_argument(
    '--start',
    type=float,
    help='Seconds in the file from where it is searched with. By default the '
    'middle of what is longer than the model takes.',
  )
  asking.add_argument(
    '--modality',
    choices=query.TARGETS,
    default=query.ANY,
    help='What is found: moments by their picture, their sound, or either.',
  )
  asking.add_argument('--top', type=int, default=10, help='How many.')
  asking.add_argument('--json', action='store_true', help='As JSON.')
  served = add('serve', _serve, 'Serves a web page for searching.')
  served.add_argument(
    '--host',
    default='127.0.0.1',
    help='Address to listen at. By default only this machine can ask; 0.0.0.0 '
    'lets every machine that reaches this one search and play the media.',
  )
  served.add_argument('--port', type=int, default=8601, help='0: any free one.')
  served.add_argument(
    '--allowed_host',
    action='append',
    default=[],
    metavar='NAME',
    help='A name that the server answers to besides those of this machine, '
    'such as that of a proxy before it. May be given several times.',
  )
  served.add_argument(
    '--media_root',
    default='',
    help='Folder that the paths of the index are relative to. By default the '
    'one that the media were embedded from.',
  )
  served.add_argument(
    '--max_upload_mb', type=int, default=256, help='Of a file that is dropped.'
  )
  for each in (asking, served):
    each.add_argument('--index', required=True, help='Folder of the index.')
    each.add_argument(
      '--saved_model',
      required=True,
      help='Folder of the exported model that made the embeddings, or of one '
      'of its versions.',
    )
  arguments = parser.parse_args(argv[1:])
  for name in _PATHS:
    if name in arguments:
      setattr(arguments, name, file_utils.expand(getattr(arguments, name)))
  return arguments


def main(arguments):
  """Runs a command."""
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    if getattr(arguments, 'start', None) is not None and arguments.text:
      raise ValueError('`start` goes with --audio or --video, not with --text.')
    arguments.run(arguments)


if __name__ == '__main__':
  command_line.run(main, command_line.Use.INFERS, parse=parse)
