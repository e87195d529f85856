"""A report of an evaluation: one HTML page that needs no other file.

It holds the metrics of the evaluation and plots of the model: its features
embedded in a plane, by class and by modality (the paper's figures 2 and 3), the
activation of each node of a shared encoder for each modality (figure 4), a
confusion matrix, and the results of queries.
"""

import base64
from collections.abc import Sequence
import html
import io
import os

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.analysis import activations, plots
from vatt_tf.core import feature_names as names
from vatt_tf.core import file_utils
from vatt_tf.evaluation import outputs, retrieval, runner
from vatt_tf.input_pipeline import text as text_lib
from vatt_tf.models import classification, detection

PAGE = 'report.html'

_THUMBNAIL = 72  # pixels of a side
_NUM_RESULTS = 5
_MIN_SCORE = 0.4  # of the detections in a picture
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem;
  max-width: 62rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 13px; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .9rem; }
"""


@gin.register
class Report:
  """Writes reports of evaluations.

  Args:
    text: `TextConfig` of the evaluated captions, which turns them back into
      words. None means that captions are named by their clip.
    label_names: Path of a file with the name of a class in each line, such as
      the `labels.txt` of the records. None means that classes are shown as
      numbers.
    max_clips: Number of clips to plot, from the first on.
    num_queries: Number of evenly spread queries whose results are shown.
    seed: Seed of the layouts.
  """

  def __init__(
    self,
    text: text_lib.TextConfig | None = None,
    label_names: Sequence[str] | str | None = None,
    max_clips: int = 1000,
    num_queries: int = 8,
    seed: int = 0,
  ):
    self._tokenizer = None if text is None else text_lib.make_tokenizer(text)
    self._label_names = None
    if label_names is not None:
      with tf.io.gfile.GFile(label_names) as file:
        self._label_names = file.read().splitlines()
    self._max_clips = max_clips
    self._num_queries = num_queries
    self._seed = seed

  def write(self, directory: str, result: runner.Result) -> str:
    """Writes the page.

    Args:
      directory: Folder of the page, which is created if it does not exist.
      result: Result of a `models.vatt.VATT`, a `models.detection.Detector` or a
        `models.classification.Classifier`.

    Returns:
      The path of the page.

    Raises:
      ValueError: The data set is empty, or a feature is not finite.
    """
    clips = self._collect(result.model, result.dataset)
    parts = [
      f'<h2>{html.escape(title)}</h2><pre>{html.escape(table)}</pre>'
      for title, table in result.tables()
    ]
    parts += self._pictures(result.model, clips)
    parts += self._maps(result.model, result.dataset)
    parts += self._detections(result.model, result.dataset)
    heading = html.escape(result.tables()[0][0])
    page = (
      '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
      '<meta name="viewport" content="width=device-width">'
      f'<title>{heading}</title><style>{_STYLE}</style></head>\n<body>'
      f'<h1>VATT: report of an evaluation</h1>\n{"".join(parts)}\n'
      '</body></html>\n'
    )
    tf.io.gfile.makedirs(directory)
    path = os.path.join(directory, PAGE)
    file_utils.write_text(path, page)
    return path

  def _collect(self, model, dataset):
    """The outputs that the plots need of the first clips, a row per video."""

    def run(features, training):
      rows = dict(model(features, training=training))
      if model.shared_layers and len(model.modalities) > 1:
        for modality in model.modalities:
          arguments = (model, features, modality)
          rows[f'{modality}_input'] = activations.mean_tokens(*arguments)
          rows[f'{modality}_nodes'] = activations.node_activations(*arguments)
      if names.VIDEO in features:
        frames = features[names.VIDEO]
        middle = frames[:, frames.shape[1] // 2]  # (B, H, W, 3)
        rows['thumbnail'] = _thumbnails(middle)
      return rows

    output_names = [
      f'{modality}_{kind}'
      for modality in model.modalities
      for kind in ('feature', 'input', 'nodes', 'va', 'vt')
    ]
    output_names += ['thumbnail', classification.LOGITS]
    entry_names = (
      names.LABEL,
      names.EXAMPLE_ID,
      names.TEXT,
      names.VIDEO_MASK,
      names.AUDIO_MASK,
      names.TEXT_MASK,
    )
    batch_size = next(iter(dataset.element_spec.values())).shape[0]
    dataset = dataset.take(-(-self._max_clips // batch_size))
    clips = outputs.collect(run, dataset, output_names, entry_names)
    if names.EXAMPLE_ID in clips:  # keep the first row of each video
      ids = clips[names.EXAMPLE_ID]
      first = np.sort(np.unique(ids, return_index=True)[1])
      clips = {key: value[first] for key, value in clips.items()}
    return {key: value[: self._max_clips] for key, value in clips.items()}

  def _pictures(self, model, clips):
    num_clips = len(next(iter(clips.values())))
    parts = [
      '<h2>Plots</h2><p class="note">They show the first '
      f'{num_clips} clips of the evaluation. The layouts are made by t-SNE: '
      'neighbours are alike, but distances between far groups and the axes '
      'have no meaning.</p>'
    ]
    groups = self._classes(clips)
    if classification.LOGITS in clips and groups is not None:
      parts.append(self._confusion(clips))
    for modality in model.modalities:
      key = f'{modality}_feature'
      if key not in clips or modality == 'text':
        continue
      rows = activations.has_input(clips, modality)
      if groups is not None and rows.sum() >= 4:
        points = plots.embed_in_plane(clips[key][rows], self._seed)
        parts.append(
          _picture(
            plots.draw_points(
              points, groups[rows], f'{modality} features', 'class'
            ),
            f'Features of the {modality} tower, coloured by class.',
          )
        )
    parts += self._modalities(model, clips)
    nodes = {
      modality: clips[f'{modality}_nodes'][
        activations.has_input(clips, modality)
      ].mean(0)
      for modality in model.modalities
      if f'{modality}_nodes' in clips
    }
    if nodes:
      parts.append(
        _picture(
          plots.draw_activations(nodes),
          'The average activation of each node of the shared encoder: the '
          'output of each layer’s feed-forward, before it is added to the '
          'tokens.',
        )
      )
    parts.append(self._retrieval(clips))
    return parts

  def _classes(self, clips):
    """The names of the clips' classes, or None without single labels."""
    labels = clips.get(names.LABEL)
    if labels is None or labels.ndim != 1:
      return None
    return np.asarray([self._class_name(label) for label in labels])

  def _class_name(self, label):
    if label < 0:
      return 'none'
    if self._label_names is None or label >= len(self._label_names):
      return f'{label:03d}'
    return self._label_names[label]

  def _confusion(self, clips):
    labels, logits = clips[names.LABEL], clips[classification.LOGITS]
    counts = np.zeros([logits.shape[1]] * 2, np.int64)
    is_labelled = labels >= 0
    np.add.at(counts, (labels[is_labelled], logits[is_labelled].argmax(1)), 1)
    class_names = [self._class_name(i) for i in range(len(counts))]
    return _picture(
      plots.draw_confusion(counts, class_names),
      'Confusion matrix of the first view of each clip.',
    )

  def _modalities(self, model, clips):
    """The inputs and outputs of the towers, and common spaces, by modality."""
    spaces = [
      ('Inputs of the shared encoder', '{}_input', model.modalities),
      ('Features of the towers', '{}_feature', model.modalities),
      ('Video-audio space', '{}_va', ('video', 'audio')),
      ('Video-text space', '{}_vt', model.modalities),
    ]
    parts = []
    for title, key, modalities in spaces:
      values, groups = [], []
      for modality in modalities:
        value = clips.get(key.format(modality))
        if value is None:
          continue
        value = value[:, 0] if value.ndim == 3 else value  # the first caption
        value = value[activations.has_input(clips, modality)]
        if key[-2:] in ('va', 'vt'):
          value = retrieval.unit(value)
        values.append(value)
        groups += [modality] * len(value)
      widths = {value.shape[1] for value in values}
      if len(values) < 2 or len(widths) > 1 or len(groups) < 4:
        continue
      points = plots.embed_in_plane(np.concatenate(values), self._seed)
      parts.append(
        _picture(
          plots.draw_points(points, groups, title, 'modality'),
          f'{title}, coloured by modality.',
        )
      )
    return parts

  def _retrieval(self, clips):
    """The best videos for some captions, or else for some sounds."""
    if 'thumbnail' not in clips:
      return ''
    if names.TEXT_VT in clips and names.VIDEO_VT in clips:
      modality, query_key, video_key = 'text', names.TEXT_VT, names.VIDEO_VT
    elif names.AUDIO_VA in clips and names.VIDEO_VA in clips:
      modality, query_key, video_key = 'audio', names.AUDIO_VA, names.VIDEO_VA
    else:
      return ''
    queries = clips[query_key]
    queries = queries[:, 0] if queries.ndim == 3 else queries
    pool = np.flatnonzero(activations.has_input(clips, 'video'))
    usable = np.flatnonzero(
      activations.has_input(clips, modality)
      & activations.has_input(clips, 'video')
    )
    if not len(usable):
      return ''
    num_queries = min(self._num_queries, len(usable))
    picked = np.linspace(0, len(usable) - 1, num_queries).round().astype(int)
    picked = usable[picked]
    videos = clips[video_key][pool]
    # (Q, P)
    scores = retrieval.unit(queries[picked]) @ retrieval.unit(videos).T
    is_match = picked[:, None] == pool[None]
    ranks = retrieval.rank_of_matches(scores, is_match)
    best = np.argsort(-scores, axis=1, kind='stable')[:, :_NUM_RESULTS]
    frames = clips['thumbnail'].round().astype(np.uint8)[pool[best]]
    sheet = plots.draw_retrieval(
      [self._query_name(clips, modality, row) for row in picked],
      frames,
      np.take_along_axis(scores, best, 1),
      np.take_along_axis(is_match, best, 1),
      ranks,
    )
    return _picture(
      sheet,
      f'{num_queries} queries by {modality}, evenly spread over the clips and '
      f'not chosen by hand, and the best {best.shape[1]} of {len(pool)} videos '
      'for each, with their cosine similarity. The video that belongs to the '
      'query has a green border.',
    )

  def _maps(self, model, dataset):
    """Where some clips sound, if the model was trained to say it."""
    if getattr(model, 'video_token_head', None) is None:
      return []
    batch = next(iter(dataset))
    sound = model.towers['audio'].input_name
    if names.VIDEO not in batch or sound not in batch:
      return []
    rows = np.flatnonzero(batch[names.VIDEO_MASK] & batch[names.AUDIO_MASK])
    rows = rows[: self._num_queries]
    if not len(rows):
      return []
    video = tf.gather(batch[names.VIDEO], rows)
    audio_va = model.embed('audio', tf.gather(batch[sound], rows))
    maps = model.similarity_map(video, audio_va[names.AUDIO_VA]).numpy()
    images = np.round((video.numpy() + 1) * 127.5).astype(np.uint8)
    return [
      '<h2>Where it sounds</h2>',
      _picture(
        plots.draw_maps(images, maps),
        f'The first {len(rows)} clips with sound: a frame of each step, and '
        'below it the same frame with the map of the sound laid over it. '
        'Colours are relative to the highest place of each step.',
      ),
    ]

  def _detections(self, model, dataset):
    """What a detector finds in some images."""
    if not isinstance(model, detection.Detector):
      return []
    batch = next(iter(dataset))
    rows = np.flatnonzero(batch[names.VIDEO_MASK])[: 2 * self._num_queries]
    if not len(rows):
      return []
    video = tf.gather(batch[names.VIDEO], rows)
    found = model.detect(video, max_detections=8, min_score=_MIN_SCORE)
    boxes, titles = [], []
    for edges, scores, classes in zip(
      *(
        found[name].numpy()
        for name in (detection.BOXES, detection.SCORES, detection.CLASSES)
      ),
      strict=True,
    ):
      exists = classes >= 0
      boxes.append(edges[exists])
      titles.append(
        [
          f'{label} {score:.2f}'
          for label, score in zip(classes[exists], scores[exists])
        ]
      )
    middle = video[:, video.shape[1] // 2].numpy()
    images = np.round((middle + 1) * 127.5).astype(np.uint8)
    return [
      '<h2>What is found</h2>',
      _picture(
        plots.draw_detections(images, boxes, titles),
        f'The first {len(rows)} images, with the boxes whose score is at least '
        f'{_MIN_SCORE}: the number of the class and the score.',
      ),
    ]

  def _query_name(self, clips, modality, row):
    if modality == 'text' and self._tokenizer is not None:
      return self._tokenizer.detokenize(clips[names.TEXT][row, :1])[0]
    ids = clips.get(names.EXAMPLE_ID)
    name = outputs.as_text(ids[row]) if ids is not None else ''
    return f'the {modality} of {name or f"clip {row}"}'


def _thumbnails(frames):
  """Shrinks (B, H, W, 3) in [-1, 1] to (B, 72, 72, 3) in [0, 255]."""
  frames = tf.image.resize(
    frames, [_THUMBNAIL] * 2, antialias=True, preserve_aspect_ratio=False
  )
  return tf.clip_by_value((frames + 1.0) * 127.5, 0.0, 255.0)


def _picture(sheet, caption):
  """The HTML of a figure, with its image."""
  file = io.BytesIO()
  sheet.savefig(file, format='png')
  data = base64.b64encode(file.getvalue()).decode()
  caption = html.escape(caption)
  return (
    f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
    f'<figcaption>{caption}</figcaption></figure>\n'
  )
