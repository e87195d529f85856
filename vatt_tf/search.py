"""Searches embedded media: with words, a sound or a clip.

    python -m vatt_tf.search build --embeddings=EMBEDDINGS --output=INDEX
    python -m vatt_tf.search query --index=INDEX --saved_model=MODEL \\
        --text='a dog barks'
    python -m vatt_tf.search serve --index=INDEX --saved_model=MODEL

The first builds an index from the output of `python -m vatt_tf.embed`. The
second prints the moments nearest to words (--text), to a sound (--audio) or to
a clip (--video). The third serves a web page that does the same, and plays the
results. See docs/search.md.
"""

import argparse
from collections.abc import Sequence
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
from vatt_tf.retrieval_index import building, index, index_files, query

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


def open_searcher(index_path: str, saved_model: str) -> query.Searcher:
  """Opens an index with the model of its vectors, ready for queries.

  Args:
    index_path: Folder of the index.
    saved_model: Folder of the exported model, or of one of its versions. Of the
      former, the version that computed the vectors is taken.

  Raises:
    ValueError: There is no such index or model, or they do not fit.
  """
  opened = index.Index(index_path)
  version = model.find_version(saved_model, opened.model_version)
  gin_utils.parse([model.find_config(version)])
  embedder = model.Embedder(version, model.Form.configured())
  return query.Searcher(opened, embedder)


def build_and_show(
  embeddings: str,
  index_path: str,
  saved_model: str,
  text: str,
  count: int = 3,
) -> query.Answer:
  """Builds an index and searches it once, to show that it works.

  Args:
    embeddings: Folder that `python -m vatt_tf.embed` wrote.
    index_path: Folder of the index.
    saved_model: Folder of the model that computed the embeddings.
    text: Words to search with.
    count: Number of moments to show.

  Returns:
    The answer, which is printed as a table.
  """
  print(building.build(embeddings, index_path).partition('\n')[0])
  answer = open_searcher(index_path, saved_model).by_text(text, count=count)
  print(query.format_table(answer))
  return answer


def _build(arguments):
  print(
    building.build(arguments.embeddings, arguments.output, arguments.method)
  )


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
  # Only this command needs a web server.
  import uvicorn

  from vatt_tf.retrieval_index import web, web_security

  searcher = open_searcher(arguments.index, arguments.saved_model)
  web_app = web.make_app(
    searcher,
    arguments.host,
    arguments.media_root,
    arguments.max_upload_mb << 20,
    arguments.allowed_host,
  )
  with web_security.listen(arguments.host, arguments.port) as listener:
    print(index_files.describe(arguments.index))
    print(
      f'Search at {web_security.address(listener)} (Ctrl-C ends it)', flush=True
    )
    # Browsers keep the connections of players open.
    config = uvicorn.Config(
      web_app, log_level='warning', timeout_graceful_shutdown=2
    )
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C, once it has ended
      uvicorn.Server(config).run(sockets=[listener])


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the command line: a command and its flags.

  Args:
    argv: Arguments, of which the first is the program.

  Returns:
    The flags, with the function of the command as `run`.
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

  command = add('build', _build, 'Builds an index of embeddings.')
  command.add_argument(
    '--embeddings', required=True, help='Folder that `vatt_tf.embed` wrote.'
  )
  command.add_argument(
    '--output', required=True, help='Folder of the index, which is replaced.'
  )
  command.add_argument(
    '--method',
    choices=building.METHODS,
    default=building.AUTO,
    help=f'Method of the search. auto: exact below {building.EXACT_BELOW:,} '
    'vectors of a kind, ScaNN from there on.',
  )

  query_command = add('query', _query, 'Prints the moments nearest to a query.')
  inputs = query_command.add_mutually_exclusive_group(required=True)
  inputs.add_argument('--text', help='Words to search with.')
  inputs.add_argument(
    '--audio', metavar='FILE', help='File whose sound is searched with.'
  )
  inputs.add_argument(
    '--video', metavar='FILE', help='File whose frames are searched with.'
  )
  query_command.add_argument(
    '--start',
    type=float,
    help='Start in the file, in seconds. By default the middle of a file '
    'that is longer than what the model takes.',
  )
  query_command.add_argument(
    '--modality',
    choices=query.TARGETS,
    default=query.ANY,
    help='Results: moments by their picture, their sound, or either.',
  )
  query_command.add_argument(
    '--top', type=int, default=10, help='Number of results.'
  )
  query_command.add_argument('--json', action='store_true', help='Print JSON.')
  serve_command = add('serve', _serve, 'Serves a web page for searching.')
  serve_command.add_argument(
    '--host',
    default='127.0.0.1',
    help='Address to listen at. By default only this machine can connect; '
    '0.0.0.0 lets every machine that reaches this one search and play media.',
  )
  serve_command.add_argument(
    '--port', type=int, default=8601, help='Port; 0 takes any free one.'
  )
  serve_command.add_argument(
    '--allowed_host',
    action='append',
    default=[],
    metavar='NAME',
    help='A name that the server answers to besides those of this machine, '
    'such as that of a proxy. May be given several times.',
  )
  serve_command.add_argument(
    '--media_root',
    default='',
    help='Folder that the paths of the index are relative to. By default the '
    'one that the media were embedded from.',
  )
  serve_command.add_argument(
    '--max_upload_mb',
    type=int,
    default=256,
    help='Maximum size of an uploaded file.',
  )
  for each in (query_command, serve_command):
    each.add_argument('--index', required=True, help='Folder of the index.')
    each.add_argument(
      '--saved_model',
      required=True,
      help='Folder of the exported model of the embeddings, or of one of its '
      'versions.',
    )
  arguments = parser.parse_args(argv[1:])
  for name in _PATHS:
    if name in arguments:
      setattr(arguments, name, file_utils.expand(getattr(arguments, name)))
  return arguments


def main(arguments: argparse.Namespace) -> None:
  """Runs a command."""
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    if getattr(arguments, 'start', None) is not None and arguments.text:
      raise ValueError('`start` goes with --audio or --video, not with --text.')
    arguments.run(arguments)


if __name__ == '__main__':
  command_line.run(main, command_line.Use.INFERS, parse=parse)
