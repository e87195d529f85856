"""The whole workflow at a small size: media, records, training, search.

`make quickstart` runs it: it renders sample media (vatt_tf.make_sample_media),
turns them into records, pre-trains a small VATT on them, searches held-out
clips by text and by sound, draws what the model has learned, exports it, and
builds an index of the held-out clips for the search page (`make demo`). Its
files remain in --output_dir, so that every step can be inspected, or repeated
with the commands that it prints.
"""

from collections.abc import Sequence
import contextlib
import csv
import json
import os
import shutil
import textwrap
import time

from absl import app
import gin

from vatt_tf import (
  configurables,  # noqa: F401
  export_saved_model,
  search,
)
from vatt_tf.analysis import report
from vatt_tf.core import (
  command_line,
  file_utils,
  gin_utils,
)
from vatt_tf.embedding import model as embedding_model
from vatt_tf.embedding import run as embedding_run
from vatt_tf.embedding import run_options
from vatt_tf.evaluation import runner
from vatt_tf.input_pipeline import vocabulary
from vatt_tf.media import ingest
from vatt_tf.media.sample import rendering
from vatt_tf.training import loop

_OUTPUT_DIR = command_line.define_path(
  'output_dir',
  'runs/quickstart',
  'Folder for media, records and checkpoints. Those of an earlier quickstart '
  'are removed first.',
)
_GIN_FILE = 'gin/pretrain_sample.gin'
_SPLITS = ('train', 'validation')
# How media are kept in records, and embedded.
_FORM = {'shorter_side': 48, 'audio_rate': 16000}
# Time at which make was started, which it exports: seconds since the epoch.
_STARTED = 'VATT_TF_STARTED'
_MARKER = 'made_by_quickstart.txt'
_RESULT = 'result.json'


class _Clock:
  """Measures the time of each part."""

  def __init__(self):
    self._parts = {}

  @contextlib.contextmanager
  def part(self, title, command):
    """Announces a part, with the command that does it alone, and times it."""
    print(f'\n== {title}\n   {command}', flush=True)
    start = time.monotonic()
    yield
    self.add(title, time.monotonic() - start)

  def add(self, title, seconds):
    """Adds the seconds of a part."""
    self._parts[title] = seconds

  def seconds(self):
    """Returns the seconds of each part, and the `total` of them."""
    return {**self._parts, 'total': sum(self._parts.values())}

  def report(self):
    """Prints the seconds of all parts and their sum."""
    seconds = self.seconds()
    total = seconds.pop('total')
    parts = ', '.join(f'{name} {value:.0f}' for name, value in seconds.items())
    print(textwrap.fill(f'{total:.0f} s in all: {parts}.', 80))


def _make_empty(output_dir):
  """Creates the folder, or empties that of an earlier quickstart."""
  file_utils.check_local('output_dir', output_dir)
  marker = os.path.join(output_dir, _MARKER)
  if os.path.exists(marker):
    shutil.rmtree(output_dir)
  elif os.path.isdir(output_dir) and os.listdir(output_dir):
    raise ValueError(
      f'`output_dir` must be new, empty or of an earlier quickstart: '
      f'{output_dir} holds other files. Give another --output_dir.'
    )
  os.makedirs(output_dir, exist_ok=True)
  with open(marker, 'w', encoding='utf-8') as file:
    file.write('The next quickstart removes this folder.\n')


def make_data(output_dir: str, clock: _Clock | None = None) -> list[str]:
  """Renders sample media and writes their records and vocabulary.

  Args:
    output_dir: Folder for `media`, `records` and `vocabulary.txt`.
    clock: Takes the seconds of each part; None drops them.

  Returns:
    Bindings for `--gin_param` that name these files.
  """
  clock = clock or _Clock()
  media, records, vocabulary_path = (
    os.path.join(output_dir, name)
    for name in ('media', 'records', 'vocabulary.txt')
  )
  with clock.part(
    'sample media', f'python -m vatt_tf.make_sample_media --output_dir={media}'
  ):
    rendering.write_sample_media(media)

  options = {'num_shards': 4, **_FORM}
  arguments = ' '.join(f'--{name}={value}' for name, value in options.items())
  manifests = {split: os.path.join(media, f'{split}.csv') for split in _SPLITS}
  commands = [
    f'python -m vatt_tf.ingest --manifest={manifest} --name={split} '
    f'--output_dir={records} {arguments}'
    for split, manifest in manifests.items()
  ]
  with clock.part('records', '\n   '.join(commands)):
    for split, manifest in manifests.items():
      result = ingest.ingest(records, manifest, name=split, **options)
      print(result.describe())

  pattern = os.path.join(records, 'train-*.tfrecord')
  with clock.part(
    'vocabulary',
    f"python -m vatt_tf.build_vocabulary --records='{pattern}' "
    f'--output={vocabulary_path}',
  ):
    captions = vocabulary.captions_of_records(pattern)
    words = vocabulary.build_vocabulary(captions)
    vocabulary.write_vocabulary(vocabulary_path, words)
    print(command_line.count(len(words), 'word'))
  return [
    f'TRAIN_RECORDS={pattern!r}',
    f'EVAL_RECORDS={os.path.join(records, "validation-*.tfrecord")!r}',
    f'VOCABULARY={vocabulary_path!r}',
  ]


def make_searchable(output_dir: str, clock: _Clock | None = None) -> None:
  """Exports the model, embeds the held-out clips and searches them once.

  Args:
    output_dir: Folder of `make_data` with a trained model in `model`; gets
      `saved_model`, `embeddings` and `index`.
    clock: Takes the seconds of each part; None drops them.
  """
  clock = clock or _Clock()
  model_dir, saved_model, embeddings, index = (
    os.path.join(output_dir, name)
    for name in ('model', 'saved_model', 'embeddings', 'index')
  )
  with clock.part(
    'export',
    f'python -m vatt_tf.export_saved_model --checkpoint={model_dir} '
    f'--output={saved_model}',
  ):
    print(export_saved_model.export(model_dir, saved_model))

  manifest = os.path.join(output_dir, 'media', 'validation.csv')
  arguments = ' '.join(f'--{name}={value}' for name, value in _FORM.items())
  with clock.part(
    'embeddings of held-out clips',
    f'python -m vatt_tf.embed --saved_model={saved_model} '
    f'--manifest={manifest} --output={embeddings} {arguments}',
  ):
    options = run_options.Options(
      saved_model, embeddings, manifest=manifest, **_FORM
    )
    # Its configuration is that of the run, which export has parsed.
    result = embedding_run.embed(options, embedding_model.Form.configured())
    print(result.describe())

  with open(manifest, encoding='utf-8', newline='') as file:
    captions = [row['caption'] for row in csv.DictReader(file)]
  caption = next(filter(None, captions))  # some are in a .vtt file
  with clock.part(
    'index and search',
    f'python -m vatt_tf.search build --embeddings={embeddings} '
    f'--output={index}\n   python -m vatt_tf.search query --index={index} '
    f"--saved_model={saved_model} --text='{caption}'",
  ):
    search.build_and_show(embeddings, index, saved_model, caption)


def run(output_dir: str) -> dict:
  """Runs the quickstart.

  Args:
    output_dir: Folder for all files. Those of an earlier quickstart are removed
      first.

  Returns:
    Retrieval metrics, as `retrieval.evaluate_retrieval` returns them; they are
    also in `result.json`, with the seconds of each part.

  Raises:
    ValueError: The folder holds files that no quickstart wrote.
  """
  model_dir = os.path.join(output_dir, 'model')
  _make_empty(output_dir)
  clock = _Clock()
  if os.environ.get(_STARTED):
    clock.add(
      'environment, and start of Python',
      time.time() - float(os.environ[_STARTED]),
    )
  params = make_data(output_dir, clock)
  # The classes colour the pictures of the report.
  labels = os.path.join(output_dir, 'records', 'labels.txt')
  with open(labels, encoding='utf-8') as file:
    num_classes = len(file.read().splitlines())
  params += [
    'eval/make_dataset.label=@LabelConfig()',
    f'LabelConfig.num_classes={num_classes}',
    f'Report.label_names={labels!r}',
  ]
  with clock.part(
    'training and evaluation',
    f'python -m vatt_tf.train --gin_file={_GIN_FILE} --model_dir={model_dir} '
    + ' '.join(f'--gin_param="{param}"' for param in params),
  ):
    gin_utils.parse([_GIN_FILE], params)
    metrics = loop.train(model_dir)

  report_dir = os.path.join(output_dir, 'report')
  with clock.part(
    'report',
    f'python -m vatt_tf.evaluate --checkpoint={model_dir} '
    f'--report={report_dir}',
  ):
    with gin.config_scope('eval'):
      writer = gin.get_configurable(report.Report)()
    runner.evaluate(
      model_dir,
      on_result=lambda result: print(writer.write(report_dir, result)),
    )

  make_searchable(output_dir, clock)

  print('\n== held-out clips: the right one is among the first ten for')
  for direction in ('text_to_video', 'audio_to_video'):
    query, pool = direction.split('_to_')
    values = metrics[direction]
    print(
      f'{query} -> {pool}: {values["R@10"]:.3f} '
      f'(chance {values["chance_R@10"]:.3f})'
    )
  clock.report()
  print('\n`make demo` serves a page on which they are searched.')
  result = {'seconds': clock.seconds(), 'retrieval': metrics}
  file_utils.write_text(
    os.path.join(output_dir, _RESULT), json.dumps(result, indent=2) + '\n'
  )
  return metrics


def main(argv: Sequence[str]) -> None:
  """Parses the flags and runs."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error(advice='The next quickstart begins again.'):
    run(_OUTPUT_DIR.value)


if __name__ == '__main__':
  command_line.run(main, command_line.Use.TRAINS)
