"""The sample clips on which localisation and detection are measured."""

import csv
import dataclasses

from benchmarks import checks
from vatt_tf.input_pipeline.records import reading, writing
from vatt_tf.media.sample import plan

TRAIN = 'train'
PAIRS = 'validation'  # pairs of one picture with two shapes
SAME_COLOUR = 'same_colour'  # the same, of one colour
MOVING = 'moving'  # one shape that moves
SILENT = 'silent'  # one clip, whose sound is silence

_MOTIONS = ('sideways', 'vertical', 'diagonal', 'orbit')
NUM_TRAIN, NUM_HELD_OUT = 1152, 288


def make(found, folder: str, label: str = 'shape') -> list[str]:
  """Makes the records of all sets, and the vocabulary.

  Args:
    found: Checks to add to.
    folder: Folder for media and records.
    label: Attribute that is the label of boxes: shape, colour or motion.

  Returns:
    Bindings of gin that name the records.
  """

  def render(name, *arguments):
    checks.make_sample_media(
      f'{folder}/{name}',
      f'--num_validation={NUM_HELD_OUT}',
      f'--label={label}',
      *arguments,
    )

  def ingest(name, media, split, manifest=None):
    media = f'{folder}/{media}'
    checks.ingest(
      found,
      name,
      f'--manifest={manifest or f"{media}/{split}.csv"}',
      f'--media_root={media}',
      f'--boxes={media}/{split}_boxes.csv',
      f'--output_dir={folder}/records',
      '--shorter_side=48',
      '--audio_rate=16000',
    )

  two = '--distractor_share=0.5'
  render('two', f'--num_train={NUM_TRAIN}', two)
  for split in plan.SPLITS:
    ingest(split, 'two', split)
  render('same', '--num_train=0', two, '--distractor_colour=same')
  ingest(SAME_COLOUR, 'same', 'validation')
  render('one', '--num_train=0')
  manifest = f'{folder}/moving.csv'
  _write_moving(f'{folder}/one/validation.csv', manifest)
  ingest(MOVING, 'one', 'validation', manifest)
  _write_silent(folder)
  _, code = checks.run_module(
    'build_vocabulary',
    f'--records={pattern(folder, TRAIN)}',
    f'--output={folder}/vocabulary.txt',
  )
  found.check('exit code of build_vocabulary', code, equal=0)
  return [
    f"TRAIN_RECORDS='{pattern(folder, TRAIN)}'",
    f"EVAL_RECORDS='{pattern(folder, PAIRS)}'",
    f"VOCABULARY='{folder}/vocabulary.txt'",
  ]


def pattern(folder: str, name: str) -> str:
  """Returns the pattern of the shards of a set."""
  return f'{folder}/records/{name}-*.tfrecord'


def _write_moving(source_path, target_path):
  """Writes the rows of a manifest whose shape moves."""
  options = plan.Options(num_train=0, num_validation=NUM_HELD_OUT)
  moving = {
    clip.video_path
    for clip in plan.plan_clips(options)
    if clip.motion in _MOTIONS
  }
  with (
    open(source_path, encoding='utf-8', newline='') as source,
    open(target_path, 'w', encoding='utf-8', newline='') as target,
  ):
    rows = csv.DictReader(source)
    writer = csv.DictWriter(target, rows.fieldnames)
    writer.writeheader()
    writer.writerows(row for row in rows if row['video_path'] in moving)


def _write_silent(folder):
  """Writes a record of the moving shapes with silence for its sound."""
  path = writing.shard_path(f'{folder}/records', MOVING, 0, 4)
  clip = next(iter(reading.read_shard(path)))
  silent = dataclasses.replace(clip, waveform=0 * clip.waveform)
  path = writing.shard_path(f'{folder}/records', SILENT, 0, 1)
  with writing.ShardWriter(path) as writer:
    writer.write(silent)
