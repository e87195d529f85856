"""Zero-shot classification: classes by their names, without training labels.

The name of a class is put into prompts ("a video of {}."), whose embeddings by
the text tower are averaged. A clip belongs to the class whose embedding is most
similar to its own, by cosine.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import command_line, modalities
from vatt_tf.core import feature_names as names
from vatt_tf.evaluation import classification, outputs, retrieval
from vatt_tf.evaluation import features as features_lib
from vatt_tf.input_pipeline import text as text_lib

_SPACE = {
  pair.first: pair.first_embedding
  for pair in modalities.PAIRS.values()
  if pair.second == modalities.TEXT
}
_BATCH_SIZE = 256  # prompts embedded at a time


def make_prompts(
  label_names: Sequence[str] | str | None, templates: Sequence[str]
) -> list[str]:
  """Returns the prompts of all classes.

  Args:
    label_names: Names of the C classes; `_` in them is read as a space.
    templates: T prompts with one `{}` each.

  Returns:
    List of C lists of T strings.

  Raises:
    ValueError: There is no template, or one has no place for the name.
  """
  if isinstance(templates, str) or not templates:
    raise ValueError(
      "`templates` must be a list of prompts, such as ['a video of {}.']. "
      f'Received: templates={templates!r}'
    )
  for template in templates:
    if template.count('{}') != 1:
      raise ValueError(
        '`templates` must have `{}` once, for the name of the class. '
        f'Received: {template!r}'
      )
  spoken = [' '.join(name.replace('_', ' ').split()) for name in label_names]
  return [
    [template.replace('{}', name) for template in templates] for name in spoken
  ]


def embed_prompts(
  model: tf_keras.Model,
  prompts: Sequence[Sequence[str]],
  config: text_lib.TextConfig,
) -> tuple[np.ndarray, np.ndarray]:
  """Embeds the prompts of classes.

  Args:
    model: A `models.vatt.VATT` with a text tower and a video-text space.
    prompts: T prompts for each of C classes.
    config: `TextConfig` of the model's captions.

  Returns:
    (C, D) float32, the normalised mean of the normalised embeddings, and (C, T,
    L) int32, the token ids.

  Raises:
    ValueError: A prompt has no token, or the model has no such space.
  """
  tokenizer = text_lib.make_tokenizer(config)
  texts = [text for class_prompts in prompts for text in class_prompts]
  ids, mask = text_lib.encode_captions(
    tf.constant(texts),
    tokenizer,
    dataclasses.replace(config, num_captions=len(texts)),
  )  # (C * T, L)
  if not mask.numpy().all():
    empty = [text for text, is_used in zip(texts, mask.numpy()) if not is_used]
    raise ValueError(
      'Every prompt must have a token. Received prompts without one: '
      f'{outputs.enumerate_names(empty)}'
    )
  embeddings = []
  for start in range(0, len(texts), _BATCH_SIZE):
    embedded = model.embed(modalities.TEXT, ids[start : start + _BATCH_SIZE])
    if names.TEXT_VT not in embedded:
      raise ValueError(
        'Zero-shot classification needs a model with a video-text or an '
        f'audio-text term. Received: a model with {sorted(embedded)}'
      )
    embeddings.append(embedded[names.TEXT_VT].numpy())
  values = np.concatenate(embeddings)
  owners = np.repeat(np.arange(len(prompts)), len(prompts[0]))
  values, _ = retrieval.combine(values, owners, 'mean_normalized')
  return values, ids.numpy().reshape([len(prompts), -1, ids.shape[-1]])


@gin.register
class ZeroShotEvaluation:
  """Zero-shot classification of videos or sounds.

  Calling it with a `models.vatt.VATT` and a data set with labels and ids
  returns metrics: those of `classification.single_label_metrics` (or of
  `multi_label_metrics`, for multi-label data), `num_videos`, `num_classes`,
  `num_missing` (videos without the input, which count as wrong), `num_rows`,
  `num_rows_dropped`, `label_names`, `templates`, and `equal_classes`: classes
  whose prompts the tokenizer cannot tell from those of another class.

  Args:
    label_names: Path of a `labels.txt`, or a list of names.
    text: `TextConfig` of the model's captions.
    templates: Prompts with `{}` for the name of the class.
    modality: Modality to classify, `video` or `audio`.
    combination: How the clips of a video are combined, one of
      `retrieval.COMBINATIONS`.
    max_missing_share: Largest share of videos without the input that is
      allowed.
  """

  name = 'zero_shot'

  def __init__(
    self,
    label_names: Sequence[str] | str | None,
    text: text_lib.TextConfig,
    templates: Sequence[str] = ('a video of {}.',),
    modality: str = 'video',
    combination: str = 'mean_embedding',
    max_missing_share: float = 0.05,
  ):
    if modality not in _SPACE:
      raise ValueError(
        f'`modality` must be one of {", ".join(_SPACE)}. '
        f'Received: modality={modality!r}'
      )
    self._label_names = classification.read_label_names(label_names, None)
    self._prompts = make_prompts(self._label_names, templates)
    self._templates = list(templates)
    self._text = text
    self._modality = modality
    self._combination = combination
    self._max_missing_share = max_missing_share

  @property
  def title(self) -> str:
    """Title of the evaluation, for people."""
    return f'Zero-shot classification of held-out clips by {self._modality}'

  def __call__(self, model, dataset):
    """Evaluates; see the class."""
    key = _SPACE[self._modality]
    counted = outputs.CountedRows(dataset)
    features = features_lib.extract(model, counted, [key])
    num_classes = len(self._label_names)
    is_multi_label = features.labels is not None and features.labels.ndim == 2
    if features.labels is None or (
      is_multi_label and features.labels.shape[1] != num_classes
    ):
      received = 'no labels'
      if is_multi_label:
        received = f'labels of {features.labels.shape[1]} classes'
      raise ValueError(
        f'`dataset` must have labels of the {num_classes} classes that '
        '`label_names` names: `make_dataset.label = @LabelConfig()`. '
        f'Received: {received}'
      )
    if not is_multi_label:
      classification.check_labels(features.labels, features.ids, num_classes)
    classes, tokens = embed_prompts(model, self._prompts, self._text)
    used = features.has_input[self._modality]
    videos, owners = retrieval.combine(
      features.values[key][used], features.videos[used], self._combination
    )
    is_missing = np.ones([len(features.ids)], bool)
    is_missing[owners] = False
    classification.check_missing(
      is_missing, features.ids, self._modality, self._max_missing_share
    )
    # Classes that differ by less than the noise of float32 are equal.
    scores = np.zeros([len(features.ids), num_classes])
    scores[owners] = np.round(videos @ classes.T / retrieval.TIE)
    function = (
      classification.multi_label_metrics
      if is_multi_label
      else classification.single_label_metrics
    )
    return {
      **function(scores, features.labels),
      'num_videos': len(features.ids),
      'num_classes': num_classes,
      'num_missing': int(np.sum(is_missing)),
      'num_rows': counted.num_rows,
      'num_rows_dropped': counted.num_rows - len(features.videos),
      'label_names': self._label_names,
      'templates': self._templates,
      'combination': self._combination,
      'modality': self._modality,
      'equal_classes': _equal_classes(tokens),
    }

  def scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalar metrics by name, such as `top_1`."""
    return {
      name: value for name, value in metrics.items() if isinstance(value, float)
    }

  def format_table(self, metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as text for people, without a newline at the end."""
    lines = classification.format_figures(metrics)
    count = command_line.count
    clips = metrics['num_rows'] / metrics['num_videos']
    dropped = metrics['num_rows_dropped']
    lines.append(
      f'{count(metrics["num_videos"], "video")} of {clips:g} '
      f'clip{"" if clips == 1 else "s"} ({metrics["combination"]}), '
      f'{count(metrics["num_classes"], "class")}; '
      f'{count(dropped, "clip")} dropped ({dropped / metrics["num_rows"]:.1%}).'
    )
    lines.append(f'Prompts: {"; ".join(metrics["templates"])}')
    if metrics['num_missing']:
      lines.append(
        f'{count(metrics["num_missing"], "video")} without {self._modality}, '
        'counted as wrong.'
      )
    if metrics['equal_classes']:
      named = [metrics['label_names'][i] for i in metrics['equal_classes']]
      lines.append(
        'The vocabulary cannot distinguish these classes from others: '
        f'{outputs.enumerate_names(named)}.'
      )
    return '\n'.join(lines + classification.notes_on_classes(metrics))


def _equal_classes(tokens):
  """The classes whose prompts (C, T, L) have the tokens of another class."""
  flat = tokens.reshape([len(tokens), -1])
  _, inverse, counts = np.unique(
    flat, axis=0, return_inverse=True, return_counts=True
  )
  return np.flatnonzero(counts[inverse.reshape(-1)] > 1).tolist()
