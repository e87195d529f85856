"""Where in a picture does it sound: maps against boxes, beside baselines.

The records have boxes (`ingest --boxes`), and those of what sounds count. Clips
of one picture with several shapes, each of which sounds in one of the clips,
are found by their boxes; with them the model must point at another place when
another of the sounds is played: the interactive test, which only a model that
listens can pass.
"""

from collections.abc import Iterator, Mapping
import functools
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import command_line
from vatt_tf.core import feature_names as names
from vatt_tf.evaluation import localization_metrics as measures
from vatt_tf.evaluation import outputs
from vatt_tf.models import token_maps, vatt

_BOX_ENTRIES = (
  names.VIDEO_BOXES,
  names.VIDEO_BOX_MASK,
  names.VIDEO_BOX_IS_SOUNDING,
)


@gin.register
class LocalizationEvaluation:
  """Measures the maps of a model that was trained with the local term.

  Calling it with a `models.vatt.VATT` and a data set (for evaluation, with
  boxes) returns metrics; shares are in [0, 1], and of frames in which
  the box of what sounds can be seen:

  - `pointing`: the best place is in the box; with `pointing_chance` (the mean
    area of the boxes), `pointing_centre` (the centre of the frame),
    `pointing_saturation` (the most saturated pixel), `pointing_grid_bound` (the
    best that any map on this grid can reach), `pointing_wrong_sound` (with the
    sound of another clip) and `pointing_clips`, the share of the clips with
    more than half of the frames right.
  - `adaptive_iou`, `adaptive_iou_share` (at least 0.5): see
    `localization_metrics.adaptive_iou`; `half_frame_ciou`, `half_frame_auc`:
    the field's measures; each with `_centre`, of a map that falls with the
    distance from the centre.
  - `auroc`: how often the score of a clip and its own sound is above that of a
    clip and another sound (chance 0.5).
  - `roll_share`: steps whose best place, before maps are smoothed, moves with
    the picture, when it is rolled by one place; `roll_share_clips`: clips in
    which those of more than half of the steps do.
  - `interactive`, if there are clips of one picture: see `_interactive`.

  Args:
    size: Height and width of the pixels on which IoUs are measured.
    num_wrong: Number of other clips' sounds for each clip.
    seed: Seed of the choice of the other sounds.
    agreement: See `localization_metrics.cover`.
  """

  name = 'localization'
  title = 'Localisation of what sounds'

  def __init__(
    self,
    size: int = 112,
    num_wrong: int = 16,
    seed: int = 0,
    agreement: int = 1,
  ):
    self._size = size
    self._num_wrong = num_wrong
    self._seed = seed
    self._agreement = agreement

  def __call__(
    self, model: tf_keras.Model, dataset: tf.data.Dataset
  ) -> dict[str, Any]:
    """Evaluates; see the class."""
    model.check_token_head()
    rows = _embed_sounds(model, dataset)
    partners = _partners(rows)
    rng = np.random.default_rng(self._seed)
    others = _other_sounds(rows['has_sound'], partners, self._num_wrong, rng)
    frames, clips, pairs = [], [], []
    start = 0
    for maps, batch in _maps(
      model, dataset, rows[names.AUDIO_VA], partners, others
    ):
      rows_of_batch = np.arange(start, start + len(batch[names.VIDEO_BOXES]))
      start += len(rows_of_batch)
      has_sound = rows['has_sound'][rows_of_batch]
      frames.append(
        _of_frames(
          maps, batch, rows_of_batch, has_sound, self._size, self._agreement
        )
      )
      clips.append(_of_clips(maps, has_sound))
      has_partner = has_sound & (partners[rows_of_batch] >= 0)
      pairs.append(_of_pairs(maps, batch, has_partner))
    frames, clips, pairs = (_concatenated(x) for x in (frames, clips, pairs))
    if not len(frames['hit']):
      raise ValueError(
        'No frame of the records has a box of something that sounds. Ingest '
        'them with --boxes; see docs/localization.md.'
      )
    return _summarize(frames, clips, pairs, start)

  def scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalar metrics by flat names."""
    flat = {}
    for name, value in metrics.items():
      if name == 'interactive':
        flat |= {f'interactive/{key}': x for key, x in (value or {}).items()}
      else:
        flat[name] = value
    return {
      name: value
      for name, value in flat.items()
      if isinstance(value, float) and np.isfinite(value)
    }

  def format_table(self, metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as text, without a newline at the end."""
    return format_table(metrics)


# Rows of the table: title, name of the metric, and its baselines by column.
_COLUMNS = (
  'clips',
  'chance',
  'centre',
  'saturation',
  'wrong sound',
  'grid bound',
)
_ROWS = (
  ('pointing', 'pointing', _COLUMNS),
  ('adaptive IoU', 'adaptive_iou', ('centre',)),
  ('adaptive IoU >= 0.5', 'adaptive_iou_share', ('clips', 'centre')),
  ('cIoU >= 0.5, half of the frame', 'half_frame_ciou', ('centre',)),
  ('AUC, half of the frame', 'half_frame_auc', ('centre',)),
  ('AUROC, right and wrong sound', 'auroc', ('chance',)),
  ('moves with the picture', 'roll_share', ('clips',)),
)


def format_table(metrics: Mapping[str, Any]) -> str:
  """Returns a table of the metrics of localisation for people.

  Args:
    metrics: Metrics that `LocalizationEvaluation` returned.

  Returns:
    Text of several lines, without a newline at the end.
  """
  lines = [
    f'{"":<32}{"measured":>12}'
    + ''.join(f'{column:>12}' for column in _COLUMNS)
  ]
  for title, name, baselines in _ROWS:
    cells = [f'{metrics[name]:.3f}']
    for column in _COLUMNS:
      key = f'{name}_{column.replace(" ", "_")}'
      cells.append(f'{metrics[key]:.3f}' if column in baselines else '')
    row = f'{title:<32}' + ''.join(f'{cell:>12}' for cell in cells)
    lines.append(row.rstrip())
  found = metrics['interactive']
  if found:
    low, high = found['both_right_interval']
    lines += [
      f'Both sounds in turn: both right for {found["both_right"]:.3f} of '
      f'{found["num_pairs"]} pictures (95 %: {low:.3f} to {high:.3f}; 0 for a '
      'model that does not listen, 0.25 for a guess of the shape).',
      f'Frames: {found["right"]:.3f} at the shape that sounds, '
      f'{found["at_silent"]:.3f} at the silent one; '
      f'{found["same_place"]:.3f} at the same place for both sounds.',
    ]
  lines.append(
    f'{command_line.count(metrics["num_frames"], "frame")} of '
    f'{command_line.count(metrics["num_clips"], "clip")} '
    f'({metrics["share_of_clips"]:.0%} of the records). "clips": share of the '
    'clips with more than half of the frames right. Ties rank worst.'
  )
  return '\n'.join(lines)


def _embed_sounds(model, dataset):
  """Embeddings of all sounds, and the boxes of their clips."""

  def run(features, training):
    del training
    key = model.towers['audio'].input_name
    return model.embed('audio', features[key])

  rows = outputs.collect(
    run,
    dataset,
    [names.AUDIO_VA],
    [names.AUDIO_MASK, names.VIDEO_MASK, *_BOX_ENTRIES],
  )
  missing = [name for name in _BOX_ENTRIES if name not in rows]
  if missing:
    raise ValueError(
      'The data set must have boxes: use gin/eval/localization.gin. Received: '
      f'no {", ".join(missing)}'
    )
  rows['has_sound'] = rows[names.AUDIO_MASK] & rows[names.VIDEO_MASK]
  return rows


def _partners(rows) -> np.ndarray:
  """The clip of the same picture in which another shape sounds, or -1: (N,).

  Clips are of the same picture if they have the same boxes, and those that
  sound in one are silent in the other.
  """
  by_picture = {}
  partners = np.full([len(rows[names.VIDEO_BOXES])], -1)
  for i, (boxes, mask, sounds) in enumerate(
    zip(*(rows[name] for name in _BOX_ENTRIES), strict=True)
  ):
    if not rows['has_sound'][i] or not (sounds[mask] == 0).any():
      continue
    # In any order.
    present = np.where(mask[..., np.newaxis], np.round(boxes, 4), 9)
    order = np.argsort(present[..., 0], -1, kind='stable')
    present = np.take_along_axis(present, order[..., np.newaxis], 1)
    sounds = np.take_along_axis(np.where(mask, sounds, 9), order, 1)
    key = present.tobytes()
    for j, other in by_picture.get(key, ()):
      is_present = sounds != 9
      if partners[j] < 0 and (sounds + other)[is_present].tolist() == [1] * int(
        is_present.sum()
      ):
        partners[i], partners[j] = j, i
        break
    by_picture.setdefault(key, []).append((i, sounds))
  return partners


def _other_sounds(has_sound, partners, num_wrong, rng):
  """Rows (N, num_wrong) of other clips' sounds, not of the same picture."""
  others = np.zeros([len(has_sound), num_wrong], np.int64)
  sounding = np.flatnonzero(has_sound)
  for i, partner in enumerate(partners):
    allowed = sounding[(sounding != i) & (sounding != partner)]
    if not len(allowed):
      raise ValueError(
        'There must be several pictures with sound. Received: '
        f'{len(sounding)} clips with video and sound'
      )
    others[i] = rng.choice(allowed, num_wrong)
  return others


def _maps(model, dataset, sounds, partners, others) -> Iterator:
  """Yields maps of each batch by name, and the batch, without padding."""
  compare = vatt.compare_places

  @tf.function(reduce_retracing=True, autograph=False)
  def run(video, own, partner, other):
    places = model.embed_places(video)  # (B, t, h, w, D)
    grid = places.shape[1:4]
    step = video.shape[3] // grid[2]
    rolled = model.embed_places(tf.roll(video, step, 3))
    of_others = tf.map_fn(
      functools.partial(compare, places),
      tf.transpose(other, [1, 0, 2]),
    )  # (K, B, t, h, w)
    range_of_channels = tf.reduce_max(video, -1) - tf.reduce_min(video, -1)
    cosines = compare(places, own)
    smooth = {
      'own': cosines,
      'partner': compare(places, partner),
      'wrong': of_others[0],
    }
    return {
      **{
        name: vatt.smooth_maps(maps, model.map_smoothing)
        for name, maps in smooth.items()
      },
      'cosines': cosines,
      'rolled': compare(rolled, own),
      'right_score': vatt.score_of(cosines),
      'wrong_scores': tf.transpose(tf.map_fn(vatt.score_of, of_others)),
      'saturation': range_of_channels,
    }

  start = 0
  for batch in outputs.readable(dataset):
    valid = np.asarray(batch[names.VALID])
    # Padding rows repeat the last row.
    rows = np.minimum(start + np.cumsum(valid) - 1, len(sounds) - 1)
    start += int(valid.sum())
    maps = run(
      batch[names.VIDEO],
      sounds[rows],
      sounds[np.maximum(partners[rows], 0)],
      sounds[others[rows]],
    )
    yield (
      {name: np.asarray(value)[valid] for name, value in maps.items()},
      {name: np.asarray(batch[name])[valid] for name in _BOX_ENTRIES},
    )


def _sounding(batch):
  """The boxes of what sounds: (N, T, K) bool."""
  is_known = batch[names.VIDEO_BOX_IS_SOUNDING] != 0
  return batch[names.VIDEO_BOX_MASK] & is_known


def _enlarged(maps, size):
  """Maps (F, h, w), bilinearly enlarged to (F, size, size)."""
  return np.asarray(tf.image.resize(maps[..., np.newaxis], [size, size]))[
    ..., 0
  ]


def _of_frames(maps, batch, rows, has_sound, size, agreement):
  """The measures of all frames in which the sounding box can be seen.

  `rows` are the numbers of the clips.
  """
  boxes, mask = batch[names.VIDEO_BOXES], _sounding(batch)
  num_frames = boxes.shape[1]
  seen = mask.any(-1) & has_sound[:, np.newaxis]  # (N, T)
  frames = measures.of_frames(maps['own'], num_frames)
  wrong = measures.of_frames(maps['wrong'], num_frames)
  grid = token_maps.centres(*frames.shape[2:]).reshape([-1, 2])
  middle = np.array([[0.5, 0.5]])
  truth = measures.cover(boxes, mask, size, agreement)
  result = {
    'hit': measures.pointing_hits(frames, boxes, mask),
    'hit_wrong_sound': measures.pointing_hits(wrong, boxes, mask),
    'hit_centre': measures.is_inside(middle, boxes, mask)[..., 0],
    'hit_saturation': measures.pointing_hits(maps['saturation'], boxes, mask),
    'hit_bound': measures.reachable(
      measures.is_inside(grid, boxes, mask), seen, maps['own'].shape[1]
    ),
    'area': (truth > 0).mean((2, 3)),
    'clip': np.broadcast_to(rows[:, np.newaxis], seen.shape),
  }
  result = {name: value[seen] for name, value in result.items()}
  distance = np.square(token_maps.centres(size, size) - 0.5).sum(-1)
  truth = truth[seen]
  large = _enlarged(frames[seen], size)
  central = np.broadcast_to(-distance, large.shape)
  has_area = (truth >= 0.5).any((1, 2))
  for end, values in (('', large), ('_centre', central)):
    for name, measure in (
      ('adaptive_iou', measures.adaptive_iou),
      ('half_frame_iou', measures.half_frame_iou),
    ):
      found = np.zeros([len(values)])
      found[has_area] = measure(values[has_area], truth[has_area])
      result[name + end] = found
  return result


def _of_clips(maps, has_sound):
  """The scores of clips, and whether their best places move."""
  return {
    'right': maps['right_score'][has_sound],
    'wrong': maps['wrong_scores'][has_sound],
    'moved': measures.shifted_share(maps['cosines'], maps['rolled'])[has_sound],
  }


def _of_pairs(maps, batch, has_partner):
  """The measures of clips whose picture has another clip.

  A frame counts if all of its boxes can be seen.
  """
  boxes, mask = batch[names.VIDEO_BOXES], batch[names.VIDEO_BOX_MASK]
  sounds = batch[names.VIDEO_BOX_IS_SOUNDING] == 1
  num_frames = boxes.shape[1]
  own, partner = (
    measures.of_frames(maps[name], num_frames) for name in ('own', 'partner')
  )
  seen = (mask & sounds).any(-1) & (mask & ~sounds).any(-1)  # (N, T)
  has_partner = has_partner & seen.any(-1)
  count = np.maximum(seen.sum(-1), 1)

  def share(hits):
    return ((hits & seen).sum(-1) / count)[has_partner]

  right = measures.pointing_hits(own, boxes, mask & sounds)
  partner_right = measures.pointing_hits(partner, boxes, mask & ~sounds)
  best = [x.reshape([*x.shape[:2], -1]).argmax(-1) for x in (own, partner)]
  return {
    'right': share(right),
    'both': share(right & partner_right),
    'silent': share(measures.pointing_hits(own, boxes, mask & ~sounds)),
    'same': share(best[0] == best[1]),
  }


def _concatenated(parts):
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }


def _summarize(frames, clips, pairs, num_rows):
  """The metrics from the measures of frames, clips and pairs."""

  def mean(values):
    return float(np.mean(values))

  numbers, counts = np.unique(frames['clip'], return_counts=True)

  def share_of_clips(hits):
    """The share of clips with a hit in more than half of their frames."""
    places = np.searchsorted(numbers, frames['clip'])
    return mean(np.bincount(places, hits, len(numbers)) > counts / 2)

  summary = {
    'num_frames': len(frames['hit']),
    'num_clips': len(numbers),
    'share_of_clips': len(numbers) / num_rows,
    'pointing': mean(frames['hit']),
    'pointing_clips': share_of_clips(frames['hit']),
    'pointing_chance': mean(frames['area']),
    'pointing_centre': mean(frames['hit_centre']),
    'pointing_saturation': mean(frames['hit_saturation']),
    'pointing_grid_bound': mean(frames['hit_bound']),
    'pointing_wrong_sound': mean(frames['hit_wrong_sound']),
  }
  for end in ('', '_centre'):
    adaptive = frames[f'adaptive_iou{end}']
    half = frames[f'half_frame_iou{end}']
    summary |= {
      f'adaptive_iou{end}': mean(adaptive),
      f'adaptive_iou_share{end}': mean(adaptive >= 0.5),
      f'adaptive_iou_share{end}_clips': share_of_clips(adaptive >= 0.5),
      f'half_frame_ciou{end}': mean(half >= 0.5),
      f'half_frame_auc{end}': measures.auc(half),
    }
  summary |= {
    'auroc': measures.auroc(clips['right'], clips['wrong'].ravel()),
    'auroc_chance': 0.5,
    'roll_share': mean(clips['moved']),
    'roll_share_clips': mean(clips['moved'] > 0.5),
    'interactive': _interactive(pairs),
  }
  return summary


def _interactive(pairs):
  """The measures of pictures with several shapes, or None without any.

  Returns:
    `num_pairs`; `both_right`, the share of pictures where in more than half of
    the frames that show all shapes the best place is right for both sounds, and
    its 95 % interval (Wilson); and as means over the frames
    `both_right_frames`, `right` (for one sound), `at_silent` (in the box of the
    silent shape) and `same_place` (for both sounds).
  """
  if not len(pairs['both']):
    return None
  # Each picture is there twice, once for each sound.
  num_pairs = len(pairs['both']) // 2
  num_right = int(np.sum(pairs['both'] > 0.5)) // 2
  return {
    'num_pairs': num_pairs,
    'both_right': num_right / num_pairs,
    'both_right_interval': measures.wilson_interval(num_right, num_pairs),
    'both_right_frames': float(np.mean(pairs['both'])),
    'right': float(np.mean(pairs['right'])),
    'at_silent': float(np.mean(pairs['silent'])),
    'same_place': float(np.mean(pairs['same'])),
  }
