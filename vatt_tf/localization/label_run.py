"""Labels the frames of clips with boxes and clusters, without any annotation.

<output_dir>/
  NAME-00000-of-00004.tfrecord   the frames with a box, as `region/*`
  labels.txt                     names of the clusters
  clusters.json                  sizes and losses of the clusters of all heads
  skipped.csv                    what has no box, and why
"""

import contextlib
import dataclasses
import json
import os

import numpy as np
import tf_keras

from vatt_tf.core import file_utils
from vatt_tf.embedding import model as model_lib
from vatt_tf.input_pipeline.records import schema, writing
from vatt_tf.localization import clusters, map_boxes, maps, reading
from vatt_tf.media import ingest_report

LABELS = 'labels.txt'
CLUSTERS = 'clusters.json'
SKIP_REPORT = 'skipped.csv'


@dataclasses.dataclass(frozen=True)
class Options:
  """Input and output of the labelling.

  Attributes:
    output_dir: Folder to write to.
    source: Clips to label.
    name: Name of the split in the names of the shards.
    num_shards: Number of shards.
    kept_share: Share of the clips, those with the highest similarity of picture
      and sound, that get boxes.
    threshold: See `map_boxes.box_of_map`.
    max_area: Largest area of a box, as a share of the frame.
    clustering: How clips are clustered.
    head: Number of the head whose clusters are the labels. None means the one
      with the lowest loss.
  """

  output_dir: str
  source: reading.Source
  name: str = 'train'
  num_shards: int = 4
  kept_share: float = 0.8
  threshold: float = 0.7
  max_area: float = 0.5
  clustering: clusters.Options = clusters.Options()
  head: int | None = None

  def check(self) -> None:
    """Raises `ValueError` if an option is wrong."""
    self.source.check()
    for name in ('kept_share', 'max_area'):
      if not 0 < getattr(self, name) <= 1:
        raise ValueError(
          f'`{name}` must be in (0, 1]. Received: {name}={getattr(self, name)}'
        )
    if not 0 < self.threshold < 1:
      raise ValueError(
        f'`threshold` must be in (0, 1). Received: threshold={self.threshold}'
      )
    if self.num_shards < 1:
      raise ValueError(
        f'`num_shards` must be positive. Received: num_shards={self.num_shards}'
      )
    heads = self.clustering.num_heads
    if self.head is not None and not 0 <= self.head < heads:
      raise ValueError(
        f'`head` must be in [0, {heads}). Received: head={self.head}'
      )
    path = os.path.join(self.output_dir, LABELS)
    if os.path.exists(path):
      raise ValueError(
        f'{path} exists already. Give another `output_dir` (--output_dir), or '
        'remove it.'
      )


@dataclasses.dataclass(frozen=True)
class Result:
  """What was written.

  Attributes:
    output_dir: Folder.
    num_clips: Number of labelled clips.
    num_boxes: Number of frames with a box.
    num_left_out: Number of clips without one.
    sizes: Number of clips of each cluster.
    head: Number of the head.
  """

  output_dir: str
  num_clips: int
  num_boxes: int
  num_left_out: int
  sizes: list[int]
  head: int

  def describe(self) -> str:
    """Returns the line that the command prints."""
    return (
      f'{self.num_boxes} boxes in {self.num_clips} clips of {len(self.sizes)} '
      f'clusters (of {min(self.sizes)} to {max(self.sizes)} clips, head '
      f'{self.head}) in {self.output_dir}; {self.num_left_out} clips left out.'
    )


@dataclasses.dataclass(frozen=True)
class _Labelled:
  """What the first pass keeps of a clip."""

  score: float
  boxes: list  # of each frame, or None
  place: np.ndarray
  sound: np.ndarray


def label(
  model: tf_keras.Model,
  form: model_lib.Form,
  options: Options,
  show_progress: bool = True,
) -> Result:
  """Writes records whose boxes and classes come from a model's maps.

  Args:
    model: Built `models.vatt.VATT` that was trained with the local term.
    form: Form of the model's inputs.
    options: Input and output.
    show_progress: Whether to draw a progress bar on standard error.

  Returns:
    What was written.

  Raises:
    ValueError: An option is wrong, there are too few clips, or the model was
      not trained with the local term.
  """
  options.check()
  locator = maps.Locator(model, form)
  file_utils.check_writable(options.output_dir)
  found, skips, num_silent = {}, [], 0
  for located, faults in reading.locate_all(
    locator, form, options.source, show_progress
  ):
    skips += faults
    for each in located:
      if each.map is None:
        num_silent += 1
      else:
        found[_key(each.clip)] = _of_clip(each, form, options)
  ingest_report.write_skip_report(
    os.path.join(options.output_dir, SKIP_REPORT), skips
  )
  kept = _best_clips(found, options.kept_share)
  if not kept:
    raise ValueError(
      'No clip has frames, sound and a place that stands out. '
      f'{os.path.join(options.output_dir, SKIP_REPORT)} says why.'
    )
  classes = clusters.find(
    np.stack([found[key].place for key in kept]),
    np.stack([found[key].sound for key in kept]),
    options.clustering,
  )
  head = classes.best if options.head is None else options.head
  names = [f'cluster_{i:02}' for i in range(options.clustering.num_clusters)]
  labels = {
    key: names[i] for key, i in zip(kept, classes.labels[head], strict=True)
  }
  num_boxes = _write_records(found, labels, form, options, show_progress)
  _write_clusters(classes, head, options)
  file_utils.write_text(
    os.path.join(options.output_dir, LABELS), '\n'.join(names) + '\n'
  )
  return Result(
    options.output_dir,
    len(kept),
    num_boxes,
    len(found) - len(kept) + len(skips) + num_silent,
    np.bincount(classes.labels[head], minlength=len(names)).tolist(),
    head,
  )


def _key(clip):
  return clip.data_path, clip.example_id, clip.start, clip.end


def _of_clip(located, form, options):
  """Boxes of the frames of a clip, and its features."""
  left, top, right, bottom = located.window
  boxes = []
  for values in located.map:
    box = map_boxes.box_of_map(values, options.threshold)
    if box is not None:
      box = (
        left + box[0] * (right - left),
        top + box[1] * (bottom - top),
        left + box[2] * (right - left),
        top + box[3] * (bottom - top),
      )
      area = (box[2] - box[0]) * (box[3] - box[1])
      box = box if area <= options.max_area else None
    boxes.append(box)
  steps = [
    maps.step_at(located, time, form.video.frame_rate)
    for time in model_lib.frame_times(located.clip)
  ]
  return _Labelled(
    located.score,
    [None if step is None else boxes[step] for step in steps],
    located.place,
    located.sound,
  )


def _best_clips(found, share):
  """Keys of the clips with boxes that have the highest scores, in order."""
  keys = [key for key, each in found.items() if any(each.boxes)]
  scores = np.array([found[key].score for key in keys])
  count = int(np.ceil(share * len(keys)))
  return [keys[i] for i in np.sort(np.argsort(-scores, kind='stable')[:count])]


def _write_records(found, labels, form, options, show_progress):
  """Writes the labelled frames; returns their number."""
  num_boxes, number = 0, 0
  with contextlib.ExitStack() as stack:
    writers = [
      stack.enter_context(
        writing.ShardWriter(
          writing.shard_path(
            options.output_dir, options.name, shard, options.num_shards
          )
        )
      )
      for shard in range(options.num_shards)
    ]
    for clips, _ in reading.read_clips(
      options.source, form, show_progress, 'write'
    ):
      for clip in clips:
        name = labels.get(_key(clip))
        if name is None:
          continue
        clip = _with_boxes(clip, found[_key(clip)].boxes, name)
        num_boxes += len(clip.frames)
        writers[number % options.num_shards].write(clip)
        number += 1
  return num_boxes


def _with_boxes(clip, boxes, name):
  """A clip of those frames that have a box."""
  times = model_lib.frame_times(clip)
  kept = [i for i, box in enumerate(boxes) if box is not None]
  return dataclasses.replace(
    clip,
    example_id=f'{clip.data_path}:{clip.start}-{clip.end}',
    frames=[clip.frames[i] for i in kept],
    timestamps=[times[i] for i in kept],
    regions=[[schema.Region(*boxes[i], name, True)] for i in kept],
  )


def _write_clusters(classes, head, options):
  """Writes what was found by all heads."""
  count = options.clustering.num_clusters
  content = {
    'head': head,
    'options': dataclasses.asdict(options.clustering),
    'heads': [
      {
        'loss': float(loss),
        'sizes': np.bincount(labels, minlength=count).tolist(),
      }
      for labels, loss in zip(classes.labels, classes.losses, strict=True)
    ],
  }
  file_utils.write_text(
    os.path.join(options.output_dir, CLUSTERS),
    json.dumps(content, indent=1) + '\n',
  )
