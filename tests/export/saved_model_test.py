"""Tests of `vatt_tf.export`: served answers, and what is written."""

import os
from unittest import mock

from absl.testing import parameterized
from google.protobuf import text_format
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2
import tf_keras

from tests import tiny_vatt, vatt_models
from tests.export import stock_process
from vatt_tf.export import saved_model, signatures
from vatt_tf.input_pipeline import (
  audio_config,
  pipeline,
  resampling,
  video_config,
)

_SPECTROGRAM = audio_config.AudioConfig(
  num_samples=54400, sample_rate=16000, form='spectrogram'
)


class SavedModelTest(parameterized.TestCase, tf.test.TestCase):
  """Answers of the exported model, against those of evaluation."""

  def setUp(self):
    super().setUp()
    tf_keras.utils.set_random_seed(0)
    self._output = os.path.join(self.get_temp_dir(), self._testMethodName)

  def _write(self, served, **arguments):
    return saved_model.write(
      served, self._output, 'runs/x/ckpt-7', 'A = 1\n', **arguments
    )

  @parameterized.parameters('waveform', 'spectrogram')
  def test_equals_evaluation(self, form):
    sound = tiny_vatt.AUDIO if form == 'waveform' else _SPECTROGRAM
    model = tiny_vatt.make(audio_form=form)
    dataset = pipeline.make_dataset(
      str(tiny_vatt.RECORDS / 'validation-*'),
      8,
      is_training=False,
      video=tiny_vatt.VIDEO,
      audio=sound,
      text=tiny_vatt.TEXT,
    )
    expected = model(next(iter(dataset)))
    served = tiny_vatt.served(model, sound)
    path = self._write(served)
    clips = tiny_vatt.clips()
    jpeg = np.array([clip.frames for clip in clips])
    raw = tiny_vatt.frames()
    sounds = np.stack([clip.waveform for clip in clips])
    texts = np.array([clip.captions[0].text.encode() for clip in clips])
    answers, ops = stock_process.ask(
      path,
      {
        'embed_video/frames': raw,
        'serving_default/frames': raw,
        'embed_video_jpeg/frames': jpeg,
        'embed_audio/waveform': sounds,
        'embed_audio/sample_rate': np.full([8], 16000, np.int32),
        'embed_text/text': texts,
      },
    )
    for name, outputs in {
      'embed_video': {
        'feature': 'video_feature',
        'video_audio_embedding': 'video_va',
        'video_text_embedding': 'video_vt',
      },
      'embed_audio': {
        'feature': 'audio_feature',
        'video_audio_embedding': 'audio_va',
        'audio_text_embedding': 'audio_vt',
      },
      'embed_text': {
        'feature': 'text_feature',
        'video_text_embedding': 'text_vt',
      },
    }.items():
      self.assertEqual(
        {key.split('/')[1] for key in answers if key.startswith(f'{name}/')},
        set(outputs),
      )
      for output, key in outputs.items():
        value = expected[key]
        value = value[:, 0] if name == 'embed_text' else value
        if output != 'feature':
          value = tf.math.l2_normalize(value, -1)
          # Not all clips have one embedding, or nothing would be compared.
          self.assertGreater(np.ptp(value, axis=0).max(), 1e-3)
        self.assertAllClose(answers[f'{name}/{output}'], value, atol=1e-5)
    for output in ('feature', 'video_audio_embedding', 'video_text_embedding'):
      for name in ('embed_video_jpeg', 'serving_default'):
        self.assertAllClose(
          answers[f'{name}/{output}'],
          answers[f'embed_video/{output}'],
          atol=1e-5,
        )
    self.assertEqual([op for op, is_known in ops.items() if not is_known], [])
    self.assertNotIn('PyFunc', ops)
    self.assertIn('DecodeAndCropJpeg', ops)

  def test_files_of_a_server(self):
    served = tiny_vatt.served()
    path = self._write(served, model_name='clips')
    self.assertEqual(os.path.basename(path), '1')
    self.assertNotIn('.part', ' '.join(os.listdir(self._output)))
    config = model_server_config_pb2.ModelServerConfig()
    with open(os.path.join(self._output, 'models.config')) as file:
      text_format.Parse(file.read(), config)
    [model] = config.model_config_list.config
    self.assertEqual(model.name, 'clips')
    self.assertTrue(os.path.samefile(model.base_path, self._output))
    loaded = tf.saved_model.load(path)
    extra = os.path.join(path, 'assets.extra')
    asked = []
    for record in tf.data.TFRecordDataset(
      os.path.join(extra, saved_model.WARMUP)
    ).as_numpy_iterator():
      log = prediction_log_pb2.PredictionLog.FromString(record)
      request = log.predict_log.request
      self.assertEqual(request.model_spec.name, 'clips')
      name = request.model_spec.signature_name
      inputs = {
        key: tf.constant(tf.make_ndarray(value))
        for key, value in request.inputs.items()
      }
      outputs = loaded.signatures[name](**inputs)
      for key, value in outputs.items():
        if key.endswith('_embedding'):
          self.assertAllClose(tf.norm(value, axis=-1), [1.0])
      asked.append(name)
    self.assertCountEqual(asked, list(loaded.signatures))
    with open(os.path.join(extra, saved_model.CARD)) as file:
      card = file.read()
    self.assertIn('step 7', card)
    self.assertIn(f'{served.num_parameters:,}', card)
    for name in asked:
      self.assertIn(f'`{name}`', card)
    # Another version beside it; never another one in its place.
    self.assertEqual(os.path.basename(self._write(served)), '2')
    self.assertEqual(saved_model.find_versions(self._output), [1, 2])
    with self.assertRaisesRegex(ValueError, 'Version 2 already exists in'):
      self._write(served, version=2)
    with self.assertRaisesRegex(ValueError, '`version` must be above 0'):
      self._write(served, version=0)

  def test_what_cannot_be_written_leaves_nothing(self):
    served = tiny_vatt.served()
    with mock.patch.object(saved_model, 'model_card', side_effect=OSError):
      with self.assertRaises(OSError):
        self._write(served)
    self.assertEqual(os.listdir(self._output), [])

  def test_bfloat16(self):
    self.addCleanup(tf_keras.mixed_precision.set_global_policy, 'float32')
    texts = np.array([b'a red star', b'the circle moves'])
    found = {}
    for policy in ('float32', 'mixed_bfloat16'):
      tf_keras.mixed_precision.set_global_policy(policy)
      tf_keras.utils.set_random_seed(0)
      served = tiny_vatt.served()
      found[policy] = served.functions['embed_text'](texts)
    for key, value in found['mixed_bfloat16'].items():
      self.assertEqual(value.dtype, tf.float32)
      self.assertAllClose(value, found['float32'][key], atol=0.1)
      self.assertNotAllClose(value, found['float32'][key], atol=1e-6)


class InputsTest(parameterized.TestCase, tf.test.TestCase):
  """Frames of any size and number, sounds of any rate, and wrong ones."""

  @parameterized.parameters(
    ((60, 80), 0), ((111, 100), 0), ((250, 301), 5), ((601, 707), 6)
  )
  def test_raw_frames_as_jpeg_frames(self, size, tolerance):
    config = video_config.VideoConfig(num_frames=2, frame_size=56)
    # Smooth pictures: JPEG keeps them, and scaling decoders agree on them.
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, [2, 5, 6, 3])
    images = tf.image.resize(coarse, size, 'bicubic')
    images = tf.cast(tf.clip_by_value(images, 0, 255), tf.uint8)
    encoded = [
      tf.io.encode_jpeg(image, quality=100, chroma_downsampling=False)
      for image in images
    ]
    decoded = [tf.io.decode_jpeg(image) for image in encoded]
    one = signatures.finish_raw_frames(tf.stack([decoded]), config)
    other = signatures.decode_clips(tf.stack([encoded]), config)
    self.assertEqual(one.shape, (1, 2, 56, 56, 3))
    self.assertAllClose(one, other, atol=(tolerance + 0.1) * 2 / 255)

  def test_clips_of_several_sizes_and_lengths(self):
    config = video_config.VideoConfig(num_frames=4)
    frames = tf.range(3)[tf.newaxis, :, tf.newaxis]
    self.assertAllEqual(
      signatures.sample_clip(frames, config)[0, :, 0], [0, 1, 2, 0]
    )
    hold = video_config.VideoConfig(num_frames=4, short_clip='hold')
    self.assertAllEqual(
      signatures.sample_clip(frames, hold)[0, :, 0], [0, 1, 2, 2]
    )
    frames = tf.range(9)[tf.newaxis, :, tf.newaxis]
    self.assertAllEqual(
      signatures.sample_clip(frames, config)[0, :, 0], [2, 3, 4, 5]
    )

  def test_sound_of_another_rate(self):
    """A sound sent at 44.1 kHz, against the same at the model's own rate."""
    model = tiny_vatt.make()
    served = tiny_vatt.served(model)
    embed = served.functions['embed_audio']
    sound = np.stack([clip.waveform for clip in tiny_vatt.clips()])
    other = resampling.resample(sound, 16000, 44100)
    one = embed(sound, np.full([8], 16000, np.int32))
    two = embed(other, np.full([8], 44100, np.int32))
    for name in ('video_audio_embedding', 'audio_text_embedding'):
      cosine = tf.reduce_sum(one[name] * two[name], -1)
      self.assertAllClose(cosine, np.ones([8]), atol=1e-3)

  def test_names_what_is_wrong(self):
    served = tiny_vatt.served()
    rate = np.array([16000], np.int32)
    wrong = {
      'must be finite': ('embed_audio', [[[0.0, np.nan]], rate]),
      'at least one sample': ('embed_audio', [np.zeros([1, 0]), rate]),
      '384000': ('embed_audio', [np.zeros([1, 9]), rate * 0 + 384_001]),
      'in .1000': ('embed_audio', [np.zeros([1, 9]), rate * 0]),
      'at least one frame': ('embed_video', [np.zeros([1, 0, 9, 9, 3])]),
      'a word in each row': ('embed_text', [['a star', ' ']]),
      'JPEG': ('embed_video_jpeg', [[['no picture']]]),
      'two rows and columns': ('embed_image', [np.zeros([1, 1, 1, 3])]),
    }
    for message, (name, values) in wrong.items():
      function = served.functions[name]
      values = [
        tf.cast(value, spec.dtype) if spec.dtype != tf.string else value
        for value, spec in zip(values, function.input_signature)
      ]
      with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
        function(*values)

  def test_refuses_configurations(self):
    model = tiny_vatt.make()
    with self.assertRaisesRegex(ValueError, '`text` must be given'):
      signatures.ServedModel(model, tiny_vatt.VIDEO, tiny_vatt.AUDIO)
    with self.assertRaisesRegex(
      ValueError, 'whose input is audio. .*=.spectrogram'
    ):
      tiny_vatt.served(model, _SPECTROGRAM)

  def test_classifier(self):
    model = vatt_models.build_classifier(
      'audio', 3, tiny_vatt.SIZE, num_audio_samples=54400
    )
    served = signatures.ServedModel(model, audio=tiny_vatt.AUDIO)
    names = {'classify_audio', 'serving_default'}
    self.assertEqual(set(served.functions), names)
    sound = np.stack([clip.waveform for clip in tiny_vatt.clips()])
    found = served.functions['classify_audio'](sound, [16000] * 8)
    expected = model.classify({'audio': sound[..., np.newaxis]})
    self.assertAllClose(found['logits'], expected['logits'], atol=1e-5)
    self.assertAllClose(tf.reduce_sum(found['probabilities'], -1), [1.0] * 8)
    output = os.path.join(self.get_temp_dir(), 'classifier')
    path = saved_model.write(
      served, output, 'ckpt-1', '', label_names=['cat', 'dog', 'cow']
    )
    with open(os.path.join(path, 'assets.extra', saved_model.CARD)) as file:
      self.assertIn('1. dog', file.read())


if __name__ == '__main__':
  tf.test.main()
