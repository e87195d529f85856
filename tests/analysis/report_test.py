"""Tests of `vatt_tf.analysis.report` and `vatt_tf.analysis.activations`."""

import html.parser
import os
from unittest import mock

import numpy as np
import tensorflow as tf

from tests import vatt_models
from vatt_tf.analysis import activations, report
from vatt_tf.evaluation import runner
from vatt_tf.input_pipeline import (
  audio_config,
  fake_batches,
  text,
  video_config,
)
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.models import sizes

_SIZE = sizes.Size(2, 8, 16, 2, d_kv=4)
_WORDS = ['<pad>', '<bos>', '<eos>', '<unk>', '<b>red</b>', 'ball']


def _model(**arguments):
  return vatt_models.build_vatt(
    video_patch_size=(2, 8, 8),
    num_frames=4,
    frame_size=16,
    num_audio_samples=1280,
    vocabulary_size=16,
    d_embedding=8,
    d_va=8,
    d_vt=8,
    **arguments,
  )


def _features(num_rows, label=None, seed=0):
  return fake_batches.make_fake_batch(
    num_rows,
    video_config.VideoConfig(num_frames=4, frame_size=16),
    audio_config.AudioConfig(num_samples=1280),
    text.TextConfig(num_captions=2, max_words=5, vocabulary_size=6),
    label,
    seed=seed,
  )


class _Evaluation:
  title = 'Retrieval <of clips>'

  def format_table(self, unused_metrics):
    return 'a  b\n1 < 2'


class _Page(html.parser.HTMLParser):
  """The words and the pictures of a page, and what it asks others for."""

  def __init__(self, path):
    super().__init__()
    self.words, self.pictures, self.others = [], [], []
    with open(path, encoding='utf-8') as file:
      self.feed(file.read())

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    if tag in ('script', 'link', 'b') or 'href' in attrs:
      self.others.append(tag)
    if tag == 'img':
      is_within = attrs['src'].startswith('data:')
      (self.pictures if is_within else self.others).append(attrs['alt'])

  def handle_data(self, data):
    self.words.append(data)


class ActivationsTest(tf.test.TestCase):
  """Means over tokens, against the layers themselves."""

  def test_outputs_of_the_feed_forward(self):
    model = _model(size=_SIZE)
    features = _features(3)
    x = model.video_tower.embedding(features['video'])
    expected = []
    for layer in model.encoder.layers:
      after_attention = x + layer.attention(layer.attention_norm(x))
      x = layer(x)
      expected.append(tf.reduce_mean(x - after_attention, axis=1))
    found = activations.node_activations(model, features, 'video')
    self.assertAllClose(found, tf.stack(expected, 1), atol=1e-5)

  def test_relative_positions_count(self):
    model = _model(video_size=_SIZE, audio_size=_SIZE, text_size=_SIZE)
    x, mask = model.text_tower.embedding(_features(3)['text'][:, 0])
    outputs = model.text_tower.encoder.feed_forward_outputs(x, mask)
    bias = model.text_tower.encoder.position_bias(x)
    layer = model.text_tower.encoder.layers[0]
    y = x + layer.attention(layer.attention_norm(x), mask=mask, bias=bias)
    y = layer.feed_forward(layer.feed_forward_norm(y))
    self.assertAllClose(outputs[:, 0], y, atol=1e-6)

  def test_padding_does_not_count(self):
    model = _model(size=_SIZE)
    ids = tf.constant([[[4, 5, 4]], [[5, 5, 4]]])
    for function in (activations.mean_tokens, activations.node_activations):
      short = function(model, {'text': ids}, 'text')
      padded = tf.pad(ids, [[0, 0], [0, 0], [0, 6]])
      self.assertAllClose(
        function(model, {'text': padded}, 'text'), short, atol=1e-5
      )


class ReportTest(tf.test.TestCase):
  """The page: what it shows, and that it needs nothing else."""

  def _write(self, model, features, batch_size=4, **arguments):
    dataset = tf.data.Dataset.from_tensor_slices(features)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    result = runner.Result(
      'runs/x/ckpt-7', 7, False, [(_Evaluation(), {})], model, dataset
    )
    folder = os.path.join(self.get_temp_dir(), self.id(), 'new')
    path = report.Report(**arguments).write(folder, result)
    self.assertEqual(os.listdir(folder), [report.PAGE])
    page = _Page(path)
    self.assertEmpty(page.others)
    return page, ' '.join(page.words)

  def _vocabulary(self):
    path = os.path.join(self.get_temp_dir(), 'words.txt')
    with open(path, 'w', encoding='utf-8') as file:
      file.write('\n'.join(_WORDS) + '\n')
    return path

  def test_of_a_modality_agnostic_model(self):
    features = _features(20, plan_lib.LabelConfig(3))
    features['video_mask'] = tf.constant([True] * 12 + [False] * 8)
    features['valid'] = tf.constant([True] * 18 + [False] * 2)
    config = text.TextConfig(vocabulary=self._vocabulary())
    page, words = self._write(_model(size=_SIZE), features, text=config)
    self.assertIn('Retrieval <of clips>', words)
    self.assertIn('1 < 2', words)
    self.assertIn('runs/x/ckpt-7', words)
    self.assertIn('the first 18 clips', words)
    self.assertIn('8 queries by text', words)
    self.assertIn('the best 5 of 12 videos', words)
    shown = ' '.join(page.pictures)
    for expected in (
      'Features of the video tower, coloured by class',
      'Features of the audio tower, coloured by class',
      'Inputs of the shared encoder, coloured by modality',
      'Features of the towers, coloured by modality',
      'Video-audio space, coloured by modality',
      'Video-text space, coloured by modality',
      'average activation of each node',
      '8 queries by text',
    ):
      self.assertIn(expected, shown)
    self.assertLen(page.pictures, 8)

  def test_without_text_and_classes(self):
    model = _model(video_size=_SIZE, audio_size=_SIZE, pairs=('video_audio',))
    page, words = self._write(model, _features(8))
    self.assertIn('8 queries by audio', words)
    self.assertNotIn('coloured by class', words)
    self.assertNotIn('node', words)

  def test_of_a_model_that_says_where_it_sounds(self):
    model = _model(size=_SIZE)
    model = type(model)(
      model.towers, model.head, model.pairs, use_token_head=True
    )
    model.build()
    features = _features(8)
    features['audio_mask'] = tf.constant([False] + [True] * 7)
    page, words = self._write(model, features, num_queries=3)
    self.assertIn('Where it sounds', words)
    self.assertIn('The first 3 clips with sound', ' '.join(page.pictures))

  def test_first_view_of_a_video(self):
    features = _features(12)
    features['example_id'] = tf.constant([f'v{i // 3}' for i in range(12)])
    _, words = self._write(_model(size=_SIZE), features)
    self.assertIn('the first 4 clips', words)
    self.assertIn('4 queries by text', words)

  def test_of_a_classifier(self):
    path = os.path.join(self.get_temp_dir(), 'labels.txt')
    with open(path, 'w', encoding='utf-8') as file:
      file.write('cat\ndog\ncow\n')
    model = vatt_models.build_classifier(
      'audio', 3, _SIZE, num_audio_samples=1280
    )
    features = _features(8, plan_lib.LabelConfig(3))
    page, words = self._write(model, features, label_names=path)
    self.assertIn('Confusion matrix', words)
    self.assertLen(page.pictures, 2)

  def test_limit(self):
    _, words = self._write(_model(size=_SIZE), _features(12), max_clips=6)
    self.assertIn('the first 6 clips', words)

  def test_own_video_comes_first(self):
    features = _features(9)
    shifts = np.eye(9, dtype=np.float32)

    class Perfect:
      """Knows the clip by its place."""

      modalities = ('video', 'text')
      shared_layers = ()

      def __call__(self, features, training):
        rows = tf.gather(shifts, features['place'])
        return {'video_vt': rows, 'text_vt': rows[:, None]}

    features['place'] = tf.range(9)
    # Drawn ranks end up as pixels: what is handed to the drawing is looked at.
    calls = []
    draw = report.plots.draw_retrieval

    def spy(*arguments):
      calls.append(arguments)
      return draw(*arguments)

    with mock.patch.object(report.plots, 'draw_retrieval', spy):
      self._write(Perfect(), features, batch_size=3, num_queries=3)
    queries, frames, scores, is_match, ranks = calls[0]
    self.assertEqual(queries, [f'the text of clip {i}' for i in (0, 4, 8)])
    self.assertAllEqual(ranks, [1, 1, 1])
    self.assertAllEqual(is_match[:, 0], [True] * 3)
    self.assertAllClose(scores[:, 0], [1.0] * 3)
    self.assertEqual(frames.shape, (3, 5, 72, 72, 3))
    middle = features['video'][4, 2]
    self.assertAllClose(
      frames[1, 0].mean(), np.mean((middle + 1) * 127.5), atol=2
    )


if __name__ == '__main__':
  tf.test.main()
