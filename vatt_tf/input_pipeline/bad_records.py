"""Counts records that cannot be used, and logs what is wrong with them.

A bad record keeps its place in the batch, under a false mask. Its fault travels
with the batch to the process that trains, which counts and logs it: everything
before is a graph, which input machines can run as well (`service`).
"""

import functools
import threading

from absl import logging
import numpy as np
import tensorflow as tf

from vatt_tf.core import tensor_utils
from vatt_tf.input_pipeline import audio as audio_lib
from vatt_tf.input_pipeline import plan as plan_lib

# Key of a row's faults: (6,) string, empty without a fault.
REPORT = '_report'
REPORT_SIZE = 6
# Faults of a record, as numbers that a graph can return; `audio` has the faults
# of a waveform.
NO_SAMPLE_RATE = 3
NO_FRAME_RATE = 4
TIMES_FALL = 5
NOT_PARSED = 6
FRAME_CORRUPT = 7
SOUND_CORRUPT = 8
LABEL_UNKNOWN = 9
_FAULTS = {
  audio_lib.NOT_FINITE: 'the waveform holds values that are not finite',
  audio_lib.DENORMAL: (
    'all values of the waveform are denormal (integer samples read as float32)'
  ),
  NO_SAMPLE_RATE: (
    'the waveform has no sample rate (give the rate of such records as '
    '`Source.sample_rate`)'
  ),
  NO_FRAME_RATE: (
    'the frames have neither times nor a frame rate (give the rate of such '
    'records as `Source.frame_rate`)'
  ),
  TIMES_FALL: 'the times of the frames are not in order',
  NOT_PARSED: 'the record cannot be parsed',
  FRAME_CORRUPT: 'a frame cannot be decoded',
  SOUND_CORRUPT: 'the encoded sound cannot be decoded',
  LABEL_UNKNOWN: 'a label is not among the classes',
}


class BadRecords:
  """Counts the records that cannot be used, and names each once in the log.

  Args:
    max_share: Largest share of bad records among those of the sources. With 0
      the first bad record is an error; otherwise one is always allowed.
    num_records: Number of records of the sources; `make_dataset` sets it.

  Raises:
    ValueError: `max_share` is not in [0, 1].
  """

  def __init__(self, max_share: float = 0.05, num_records: int = 0):
    if not 0 <= max_share <= 1:
      raise ValueError(
        '`max_bad_record_share` must be in [0, 1]. Received: '
        f'max_bad_record_share={max_share}'
      )
    self._max_share = max_share
    self.num_records = num_records
    self._reasons = {}
    self._lock = threading.Lock()

  @property
  def reasons(self) -> dict[tuple[str, int], str]:
    """Faults of each bad record, by shard and index in it."""
    with self._lock:
      return dict(self._reasons)

  def __len__(self) -> int:
    return len(self._reasons)

  def report(
    self, shard: str, index: int, example_id: str, reason: str
  ) -> None:
    """Counts a bad record and logs its fault.

    Args:
      shard: Path of its shard.
      index: Number of the record in the shard.
      example_id: Name of the record, or an empty string.
      reason: Description of the fault.

    Raises:
      ValueError: There are too many bad records.
    """
    with self._lock:
      if (shard, index) in self._reasons:
        return
      self._reasons[shard, index] = reason
      count = len(self._reasons)
    name = f'{example_id!r} (record {index} of {shard})'
    logging.warning(
      'Bad record %d of %d: %s: %s. It keeps its place, under a false mask.',
      count,
      self.num_records,
      name,
      reason,
    )
    allowed = self._max_share * self.num_records
    if count > (max(allowed, 1.0) if self._max_share else 0):
      raise ValueError(
        f'{count} of {self.num_records} records are bad, more than '
        f'`max_bad_record_share`={self._max_share} allows. The last is {name}: '
        f'{reason}. Make the records again with `python -m vatt_tf.ingest`, or '
        'allow more: --gin_param="make_dataset.max_bad_record_share=…".'
      )


def _frame_reason(frames):
  """The fault of the first frame of a record that is no complete JPEG image."""
  for number, frame in enumerate(frames):
    place = f'frame {number} of {len(frames)}'
    if not frame.startswith(b'\xff\xd8'):
      return f'{place} is not a JPEG image: it starts with {frame[:4]!r}'
    if not frame.rstrip(b'\x00').endswith(b'\xff\xd9'):
      return f'{place} is cut short: a JPEG image without its end'
  return _FAULTS[FRAME_CORRUPT] + ': its JPEG data is corrupt'


def make_report(
  features: dict[str, tf.Tensor], faults: tf.Tensor, plan: plan_lib.Plan
) -> tf.Tensor:
  """Returns the faults of a record as strings.

  Args:
    features: Features of `parse`.
    faults: (n,) int32: faults; 0 means none.
    plan: Plan of the pipeline.

  Returns:
    (6,) string: shard, index in it, name, faults, the fault of an encoded
    sound, and the frames if one is corrupt. Empty strings without a fault.
  """

  def report():
    paths = tf.constant([path for group in plan.paths for path in group])
    frames = features.get('image_encoded', tf.constant([], tf.string))
    is_corrupt = tf.reduce_any(tf.equal(faults, FRAME_CORRUPT))
    return tf.stack(
      [
        tf.gather(paths, plan_lib.shard_of(features, plan)),
        tf.strings.as_string(features['index']),
        plan_lib.first(features['example_id'], ''),
        tf.strings.reduce_join(tf.strings.as_string(faults), separator=' '),
        features.get('audio_reason', tf.constant('')),
        tf.where(is_corrupt, tf.io.serialize_tensor(frames), ''),
      ]
    )

  def nothing():
    return tf.fill([REPORT_SIZE], '')

  return tf.cond(tf.reduce_any(faults > 0), report, nothing)


def _read_reports(bad_records, reports):
  """Counts the bad records of a batch; it runs in Python, if there are any."""
  for path, index, example_id, faults, sound_reason, frames in reports:
    reasons = []
    for fault in sorted({int(fault) for fault in faults.split()} - {0}):
      if fault == FRAME_CORRUPT:
        frames = tf.io.parse_tensor(frames, tf.string)
        reasons.append(_frame_reason(list(frames.numpy())))
      elif fault == SOUND_CORRUPT:
        reasons.append(sound_reason.decode('utf-8', 'replace'))
      else:
        reasons.append(_FAULTS[fault])
    if reasons:
      bad_records.report(
        path.decode(),
        int(index),
        example_id.decode('utf-8', 'replace'),
        '; '.join(reasons),
      )
  return np.int32(0)


@tensor_utils.as_graph
def record_faults(
  batch: dict[str, tf.Tensor], bad_records: BadRecords
) -> dict[str, tf.Tensor]:
  """Removes the faults of the rows from a batch, and counts them."""
  batch = dict(batch)
  reports = batch.pop(REPORT)  # (B, 6)

  def read():
    return tf.numpy_function(
      functools.partial(_read_reports, bad_records),
      [reports],
      tf.int32,
      name='report_bad_records',
    )

  def nothing():
    return tf.constant(0)

  tf.cond(tf.reduce_any(reports[:, 3] != ''), read, nothing)
  return batch
