"""The speed of `python -m vatt_tf.embed`, from media files and from records.

    python -m benchmarks.embed --output=found.json

The workload is sample media (data/make_sample_media.py; 3.2 s, 112 x 112 at 25
frames per second, H.264, AAC), with the untrained model of the quickstart,
which takes 8 frames and 1.6 s of sound: two clips per file. The model is small,
so that the rate measures reading, decoding and everything else around the
model. The media and their records are made first, which is not timed.

The rate counts the clips between the first part and the last, by the times of
their lines in `progress.jsonl`; the time before is start-up. Because machines
differ, the report also has the rate at which one process decodes such files
with PyAV and does nothing else.
"""

import argparse
import glob
import json
import os
import sys
import tempfile

import gin

from benchmarks import checks
from benchmarks import ingest as ingest_benchmark
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import file_utils, gin_utils
from vatt_tf.embedding import journal
from vatt_tf.export import saved_model, signatures
from vatt_tf.input_pipeline import audio_config, text, video_config
from vatt_tf.media import ingest

# Of a part: the journal has a line for each.
_CLIPS_PER_FILE = 64
_CONFIGS = {
  'video': video_config.VideoConfig,
  'audio': audio_config.AudioConfig,
  'text': text.TextConfig,
}


def export_model(folder: str) -> str:
  """Exports the model of the quickstart, untrained; returns its folder."""
  vocabulary = checks.ROOT / 'data' / 'sample' / 'vocabulary.txt'
  gin_utils.parse(['gin/pretrain_sample.gin'], [f"VOCABULARY='{vocabulary}'"])
  model = gin_utils.get_task().build_model()
  with gin.config_scope('eval'):
    configs = {
      modality: gin.get_configurable(config)()
      for modality, config in _CONFIGS.items()
    }
  saved_model.write(
    signatures.ServedModel(model, **configs),
    folder,
    'untrained-0',
    gin.config_str(),
  )
  return folder


def run_embed(saved: str, output: str, *arguments: str) -> dict:
  """Runs `python -m vatt_tf.embed` and times it.

  Args:
    saved: Folder of the model.
    output: A new folder to write to.
    *arguments: Other flags of the command.

  Returns:
    A dictionary of measurements.

  Raises:
    RuntimeError: The command failed, or wrote fewer than two parts.
  """
  command = [
    sys.executable, '-m', 'vatt_tf.embed', f'--saved_model={saved}',
    f'--output={output}', f'--clips_per_file={_CLIPS_PER_FILE}', *arguments,
  ]  # fmt: skip
  watched = checks.run_watched(command, os.path.join(output, journal.FILE))
  parts = [(at, line['clips']) for at, line in watched.lines if 'part' in line]
  if len(parts) < 2:
    raise RuntimeError(f'{len(parts)} parts: {watched.said[-2000:]}')
  (first, _), *others = parts
  num_clips = sum(count for _, count in parts)
  return {
    'num_clips': num_clips,
    'clips_per_second': sum(count for _, count in others)
    / (others[-1][0] - first),
    'startup_seconds': first - watched.start,
    'seconds': watched.seconds,
    'clips_per_second_of_all': num_clips / watched.seconds,
  }


def measure(num_files: int = 576) -> dict:
  """Makes the workload and embeds it.

  Args:
    num_files: Number of media files.

  Returns:
    A dictionary: the measurements of `run_embed` under `media` and `records`,
    `decode_files_per_second` and `num_cores`.
  """
  with tempfile.TemporaryDirectory() as folder:
    media, records, saved = (
      os.path.join(folder, name) for name in ('media', 'records', 'saved')
    )
    checks.make_sample_media(
      media, f'--num_train={num_files}', '--num_validation=6'
    )
    manifest = os.path.join(media, 'train.csv')
    ingest.ingest(
      records, manifest, audio_rate=16000, shorter_side=112, show_progress=False
    )
    export_model(saved)
    found = {'num_cores': len(os.sched_getaffinity(0))}
    files = glob.glob(os.path.join(media, 'train', '*.mp4'))
    found['decode_files_per_second'] = ingest_benchmark.decode_rate(files[:60])
    for name, source in (
      ('media', f'--manifest={manifest}'),
      ('records', f'--records={records}/train-*'),
    ):
      output = os.path.join(folder, f'embeddings-{name}')
      found[name] = run_embed(saved, output, source)
  return found


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Times embedding.')
  parser.add_argument('--num_files', type=int, default=576)
  parser.add_argument('--output', help='a JSON file to write')
  arguments = parser.parse_args()
  found = measure(arguments.num_files)
  for name in ('media', 'records'):
    figures = found[name]
    print(
      f'{name}: {figures["num_clips"]} clips, '
      f'{figures["clips_per_second"]:.1f} a second on {found["num_cores"]} '
      f'cores, after {figures["startup_seconds"]:.1f} s'
    )
  print(
    f'one process that only decodes: {found["decode_files_per_second"]:.1f} '
    'files of 3.2 s a second'
  )
  if arguments.output:
    file_utils.write_text(arguments.output, json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  main()
