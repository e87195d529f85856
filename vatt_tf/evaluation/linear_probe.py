"""Classifiers of frozen features: a linear head, an SVM, nearest neighbours.

`ProbeEvaluation` measures how well they distinguish classes, over several
splits.

They learn from, and are tested on, videos of several clips each. All clips of a
training video are examples with its label; the scores of a test video's clips
are averaged (nearest neighbours are found for the mean of its clips).
"""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.core import command_line
from vatt_tf.evaluation import (
  classification,
  metrics,
  outputs,
  probe_classifiers,
)
from vatt_tf.evaluation import features as features_lib
from vatt_tf.evaluation import splits as splits_lib


@gin.register
class ProbeEvaluation:
  """Accuracy of classifiers of frozen features, over one or several splits.

  Calling it with a `models.vatt.VATT` and a data set (for evaluation, with
  single labels and ids) returns metrics: `features`, from the name of a feature
  to the name of a probe to `top_1` and `top_5`, the means over the splits,
  `top_1_spread` and `top_5_spread`, their standard deviations (None for one
  split), and `splits`, the metrics of each; `splits`, the sizes of each split;
  `num_videos`, `num_classes`, `label_names`, `chance_top_1`, `chance_top_5`,
  `min_clips_per_video` and `max_clips_per_video`.

  A test video without the input, or of a class that no training video has,
  counts as wrong; a training video without the input is left out.

  Args:
    probes: Functions such as `lrc`, `svm` and `knn`.
    features: Names of features, see `features.extract`.
    train_dataset: `make_dataset` for the videos to learn from, in evaluation
      form. None means that the data set holds them too, as `splits` lists them.
    splits: Function from the list of all ids to a list of `splits.Split`, such
      as `ListedSplits`. None means one split, which learns from `train_dataset`
      and is tested on the data set.
    augmented_dataset: `make_dataset` for several epochs of the same videos in
      training form, with ids (`with_example_id`): its random windows, and not
      those of evaluation, are what the probes learn from (Alayrac et al. 2020,
      MMV). None means that they learn from the windows of evaluation.
    label_names: See `classification.read_label_names`. None means as many
      classes as the labels have.
    group_pattern: Regular expression with one group, which is searched in the
      ids. Videos whose group matches the same text come from one recording, and
      are never split where a probe chooses a hyper-parameter. None means that
      every video is a recording.
    max_missing_share: Largest share of videos without the input that is
      allowed.
  """

  name = 'probe'
  title = 'Probes of frozen features'

  def __init__(
    self,
    probes: Sequence[Callable[..., Any]],
    features: Sequence[str] = ('video_feature',),
    train_dataset: Callable[..., tf.data.Dataset] | None = None,
    splits: Callable[[list[str]], list[splits_lib.Split]] | None = None,
    augmented_dataset: Callable[..., tf.data.Dataset] | None = None,
    label_names: Sequence[str] | str | None = None,
    group_pattern: str | None = None,
    max_missing_share: float = 0.05,
  ):
    if train_dataset is None and splits is None:
      raise ValueError(
        'Give `train_dataset`, the videos to learn from, or `splits` of one '
        'set of videos, such as `ProbeEvaluation.splits = @ListedSplits()`.'
      )
    if not probes:
      raise ValueError('`probes` must hold a probe, such as @lrc.')
    self._probes = list(probes)
    self._features = list(features)
    self._train_dataset = train_dataset
    self._splits = splits
    self._augmented_dataset = augmented_dataset
    self._label_names = label_names
    self._group_pattern = group_pattern
    self._max_missing_share = max_missing_share

  def __call__(self, model, dataset):
    """Evaluates; see the class."""
    features = features_lib.extract(model, dataset, self._features)
    _check_single_labels(features.labels)
    features, splits = self._split(model, dataset, features)
    num_classes = int(features.labels.max(initial=0)) + 1
    if self._label_names is not None:
      label_names = classification.read_label_names(self._label_names, None)
      num_classes = len(label_names)
    else:
      label_names = [str(i) for i in range(num_classes)]
    classification.check_labels(features.labels, features.ids, num_classes)
    groups = _groups(features.ids, self._group_pattern)
    clips = np.bincount(features.videos)
    summary = {
      'features': {},
      'splits': {
        split.name: self._sizes(split, features, label_names)
        for split in splits
      },
      'num_videos': len(features.ids),
      'num_classes': num_classes,
      'label_names': label_names,
      'min_clips_per_video': int(clips.min()),
      'max_clips_per_video': int(clips.max()),
    }
    for k in classification.TOP:
      summary[f'chance_top_{k}'] = min(1.0, k / num_classes)
    learned = self._augment(model, dataset, features)
    for name in self._features:
      videos = self._videos(features, name, groups)
      learned_videos = videos
      if learned is not features:
        learned_videos = self._videos(learned, name, groups)
      summary['features'][name] = {
        probe.__name__: _over_splits(
          probe, learned_videos, videos, splits, num_classes
        )
        for probe in self._probes
      }
    return summary

  def _augment(self, model, dataset, features):
    """The features from which probes learn, of the same videos."""
    if self._augmented_dataset is None:
      return features
    batch_size = next(iter(dataset.element_spec.values())).shape[0]
    augmented = features_lib.extract(
      model,
      self._augmented_dataset(global_batch_size=batch_size),
      self._features,
    )
    number_of = {name: i for i, name in enumerate(features.ids)}
    unknown = sorted(set(augmented.ids) - set(number_of))
    if unknown:
      raise ValueError(
        '`augmented_dataset` must hold the videos of the probe and no others. '
        f'Received: {outputs.enumerate_names(unknown)}'
      )
    numbers = np.asarray([number_of[name] for name in augmented.ids])
    return features._replace(
      values=augmented.values,
      videos=numbers[augmented.videos],
      has_input=augmented.has_input,
    )

  def _split(self, model, dataset, features):
    """The features of all videos, and the splits of the videos."""
    num_test = len(features.ids)
    if self._train_dataset is not None:
      batch_size = next(iter(dataset.element_spec.values())).shape[0]
      train = features_lib.extract(
        model, self._train_dataset(global_batch_size=batch_size), self._features
      )
      _check_single_labels(train.labels)
      shared = sorted(set(train.ids) & set(features.ids))
      if shared:
        raise ValueError(
          'A video must not be in both the training records and the test '
          f'records of a probe. Received: {outputs.enumerate_names(shared)}'
        )
      features = features_lib.concatenate(features, train)
    if self._splits is not None:
      return features, self._splits(features.ids)
    numbers = np.arange(len(features.ids))
    split = splits_lib.Split('test', numbers[num_test:], numbers[:num_test], 0)
    return features, [split]

  def _videos(self, features, name, groups):
    """The clips that have a feature, as `Videos`."""
    modality = features_lib.MODALITY_OF[name]
    used = features.has_input[modality]
    is_missing = (
      np.bincount(features.videos[used], minlength=len(features.ids)) == 0
    )
    classification.check_missing(
      is_missing, features.ids, modality, self._max_missing_share
    )
    return probe_classifiers.Videos(
      features.values[name][used],
      features.videos[used],
      features.labels,
      groups,
    )

  def _sizes(self, split, features, label_names):
    """The sizes of a split, which all probes share."""
    unseen = np.setdiff1d(
      features.labels[split.test], features.labels[split.train]
    )
    listed = len(split.test) + split.num_without_record
    return {
      'num_train': len(split.train),
      'num_test': len(split.test),
      'num_dropped': split.num_without_record,
      'share_dropped': split.num_without_record / listed,
      'num_in_no_list': len(features.ids) - len(split.train) - len(split.test),
      'classes_not_learned': [label_names[i] for i in unseen],
    }

  def scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalar metrics by name, such as `video_feature/svm/top_1`."""
    return {
      f'{feature}/{probe}/{name}': float(probe_metrics[name])
      for feature, probes in metrics['features'].items()
      for probe, probe_metrics in probes.items()
      for name in ('top_1', 'top_5', 'top_1_spread', 'top_5_spread')
      if probe_metrics[name] is not None
    }

  def format_table(self, metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as text for people, without a newline at the end."""
    return format_table(metrics)


def _check_single_labels(labels):
  if labels is None or labels.ndim != 1:
    received = 'no labels' if labels is None else 'labels of several classes'
    raise ValueError(
      'Probes need one label per video: `make_dataset.label = @LabelConfig()` '
      f'with `is_multi_label` False. Received: {received}'
    )


def _groups(ids, pattern):
  """The recording of each video: (N,) strings."""
  if pattern is None:
    return np.asarray(ids)
  matches = [re.search(pattern, name) for name in ids]
  if re.compile(pattern).groups != 1 or not all(matches):
    unmatched = [name for name, match in zip(ids, matches) if not match]
    raise ValueError(
      '`group_pattern` must have one group, and be found in every id. '
      f'Received: group_pattern={pattern!r}, not found in '
      f'{outputs.enumerate_names(unmatched) or "none"}'
    )
  return np.asarray([match.group(1) for match in matches])


def _over_splits(probe, learned_videos, videos, splits, num_classes):
  """The metrics of a probe on each split, and their means and spreads.

  Args:
    probe: See `ProbeEvaluation`.
    learned_videos: Clips from which the probe learns, where a split says so.
    videos: Clips on which it is tested, of the same videos.
    splits: Splits of the videos.
    num_classes: Number of classes.
  """
  split_metrics = {}
  has_clips = (
    np.bincount(learned_videos.videos, minlength=len(videos.labels)) > 0
  )
  for split in splits:
    train = split.train[has_clips[split.train]]
    if not len(train) or not len(split.test):
      raise ValueError(
        f'Split {split.name!r} must have videos to learn from and to test on. '
        f'Received: {len(train)} and {len(split.test)}'
      )
    scores, details = probe(
      learned_videos.take(train), videos.take(split.test), num_classes
    )
    labels = videos.labels[split.test]
    split_metrics[split.name] = {
      **{
        f'top_{k}': metrics.top_k_accuracy(scores, labels, k)
        for k in classification.TOP
      },
      **details,
    }
  summary = {'splits': split_metrics}
  for k in classification.TOP:
    values = [row[f'top_{k}'] for row in split_metrics.values()]
    summary[f'top_{k}'] = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    summary[f'top_{k}_spread'] = spread
  return summary


def format_table(results: Mapping[str, Any]) -> str:
  """Returns a table of the metrics of probes for people.

  Args:
    results: Metrics that `ProbeEvaluation` returned.

  Returns:
    Text of several lines, without a newline at the end: a row for each feature
    and probe, chance in brackets, then the splits and what was left out.
  """
  metric_names = [f'top_{k}' for k in classification.TOP]
  rows = [['feature', 'probe', *(f'{name} (chance)' for name in metric_names)]]
  names = list(results['splits'])
  if len(names) > 1:
    rows[0] += [f'top_1 of {name}' for name in names]
  for feature, probes in results['features'].items():
    for probe, probe_metrics in probes.items():
      row = [feature, probe]
      for metric in metric_names:
        spread = probe_metrics[f'{metric}_spread']
        text = '' if spread is None else f' ± {spread:.3f}'
        chance = results[f'chance_{metric}']
        row.append(f'{probe_metrics[metric]:.3f}{text} ({chance:.3f})')
      if len(names) > 1:
        splits = probe_metrics['splits']
        row += [f'{splits[name]["top_1"]:.3f}' for name in names]
      rows.append(row)
  widths = [max(len(cell) for cell in column) for column in zip(*rows)]
  lines = [
    '  '.join(
      cell.ljust(width) if i < 2 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    )
    for row in rows
  ]
  return '\n'.join(lines + _notes(results))


def _notes(results):
  """Lines that tell what the metrics of a table were computed from."""
  count = command_line.count
  low, high = results['min_clips_per_video'], results['max_clips_per_video']
  clips = str(low) if low == high else f'{low} to {high}'
  lines = [
    f'{count(results["num_videos"], "video")} of {clips} '
    f'clip{"" if clips == "1" else "s"}, '
    f'{count(results["num_classes"], "class")}.'
  ]
  if len(results['splits']) > 1:
    lines[0] += ' Mean and standard deviation over the splits.'
  for name, sizes in results['splits'].items():
    text = (
      f'Split {name}: {count(sizes["num_train"], "video")} to learn from, '
      f'{sizes["num_test"]} to test on; {sizes["num_dropped"]} of the test '
      f'dropped ({sizes["share_dropped"]:.1%})'
    )
    if sizes['num_in_no_list']:
      text += f', {sizes["num_in_no_list"]} in neither list'
    lines.append(text + '.')
    if sizes['classes_not_learned']:
      lines.append(
        f'Split {name}: no training video of '
        f'{outputs.enumerate_names(sizes["classes_not_learned"])}; the test '
        'videos of these classes count as wrong.'
      )
  for feature, probes in results['features'].items():
    for probe, probe_metrics in probes.items():
      split_metrics = probe_metrics['splits'].values()
      chosen = [f'{row["C"]:g}' for row in split_metrics if 'C' in row]
      if chosen:
        lines.append(f'{feature}, {probe}: C = {", ".join(chosen)}.')
      if not all(row.get('converged', True) for row in split_metrics):
        lines.append(
          f'{feature}, {probe}: the solver did not converge; raise '
          '`svm.max_iter`.'
        )
  return lines
