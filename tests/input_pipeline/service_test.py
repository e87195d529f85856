"""Tests of `vatt_tf.input_pipeline.service` and `vatt_tf.serve_input`.

The input machines are processes of their own.
"""

import pathlib
import signal
import socket
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import (
  fake_clips,
  mains,
  sentence_pieces,
  sound_files,
  warm_processes,
)
from tests.input_pipeline import pipeline_case
from vatt_tf.input_pipeline import (
  audio_config,
  pipeline,
  service,
  text,
  video_config,
)
from vatt_tf.input_pipeline import bad_records as bad_records_lib
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline.records import writing

_VIDEO = video_config.VideoConfig(num_frames=3, frame_size=8)
_AUDIO = audio_config.AudioConfig(
  num_samples=240, sample_rate=800, noise_std=0.1
)
_WORDS = ['clip', 'says', *(f'word{i}' for i in range(8))]


def _free_port():
  """A port that is free, and so is the one after it."""
  while True:
    with socket.socket() as first, socket.socket() as second:
      first.bind(('', 0))
      port = first.getsockname()[1]
      try:
        second.bind(('', port + 1))
      except OSError:
        continue
      return port


def _start(port):
  """Starts an input machine, and waits until it says that it is there."""
  process = warm_processes.Process(
    'vatt_tf.serve_input',
    f'--port={port}',
    '--host=localhost',
    CUDA_VISIBLE_DEVICES='',
  )
  line = process.stdout.readline()
  if f'grpc://localhost:{port}' not in line:
    process.kill()
    raise RuntimeError(f'The input machine said {line!r}.')
  return process


class ServiceTest(tf.test.TestCase, parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls._ports = []
    cls._machines = []
    for _ in range(2):
      cls._ports.append(_free_port())
      cls._machines.append(_start(cls._ports[-1]))

  @classmethod
  def tearDownClass(cls):
    for machine in cls._machines:
      machine.kill()
      machine.wait()
      machine.stdout.close()
    super().tearDownClass()

  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.get_temp_dir()) / self._testMethodName
    self._folder.mkdir(parents=True, exist_ok=True)
    self._vocabulary = self._folder / 'words.txt'
    self._vocabulary.write_text('\n'.join(_WORDS), encoding='utf-8')

  def _write(self, clips, name='train', num_shards=3):
    return pipeline_case.write_shards(self._folder, clips, num_shards, name)

  def _clips(self, count=11, first=0):
    return [
      fake_clips.fake_clip(
        first + i,
        num_frames=6,
        height=12,
        width=16,
        sample_rate=800.0,
        num_captions=2,
      )
      for i in range(count)
    ]

  def _addresses(self, num_machines):
    return ','.join(
      f'grpc://localhost:{port}' for port in self._ports[:num_machines]
    )

  def _make(self, sources, **arguments):
    parts = {
      'video': _VIDEO,
      'audio': _AUDIO,
      'text': text.TextConfig(
        num_captions=3, max_words=4, vocabulary=str(self._vocabulary)
      ),
      'with_example_id': True,
      'seed': 5,
      'shuffle_buffer_size': 4,
    }
    return pipeline.make_dataset(sources, 4, True, **{**parts, **arguments})

  def _assert_equal(self, dataset, expected):
    self.assertEqual(dataset.element_spec, expected.element_spec)
    count = 0
    for batch, other in zip(dataset, expected):
      for key in other:
        self.assertAllEqual(batch[key], other[key], msg=f'{count} {key}')
      count += 1
    return count

  @parameterized.product(num_machines=[1, 2], start_step=[0, 7])
  def test_batches_are_those_of_this_process(self, num_machines, start_step):
    pattern = self._write(self._clips())
    local = self._make(pattern, start_step=start_step).take(13)
    served = self._make(
      pattern,
      start_step=start_step,
      data_service=self._addresses(num_machines),
    ).take(13)
    self.assertEqual(self._assert_equal(served, local), 13)

  def test_mixture(self):
    sources = [
      plan_lib.Source(self._write(self._clips(5), 'a'), weight=3.0),
      plan_lib.Source(self._write(self._clips(7, 100), 'b')),
    ]
    local = self._make(sources).take(9)
    served = self._make(sources, data_service=self._addresses(2)).take(9)
    self.assertEqual(self._assert_equal(served, local), 9)

  def test_an_end(self):
    pattern = self._write(self._clips(12))
    for num_machines, num_epochs in ((1, 1), (2, 2)):
      local = self._make(pattern, num_epochs=num_epochs)
      served = self._make(
        pattern,
        num_epochs=num_epochs,
        data_service=self._addresses(num_machines),
      )
      self.assertEqual(self._assert_equal(served, local), 3 * num_epochs)

  @parameterized.parameters(text.WORDPIECE, text.SENTENCEPIECE)
  def test_tokenizers(self, kind):
    pattern = self._write(self._clips())
    path = self._folder / 'pieces'
    if kind == text.WORDPIECE:
      path.write_text('[PAD]\n[UNK]\nclip\nsays\nword\n##1\n##2\n')
    else:
      sentences = ('clip 1 says word1', 'clip 2 says word2')
      path.write_bytes(sentence_pieces.train(sentences, vocab_size=20))
    config = text.TextConfig(
      kind=kind, num_captions=2, max_words=9, vocabulary=str(path)
    )
    local = self._make(pattern, text=config).take(3)
    served = self._make(
      pattern, text=config, data_service=self._addresses(1)
    ).take(3)
    self.assertEqual(self._assert_equal(served, local), 3)

  def test_machines_need_the_vocabulary(self):
    pattern = self._write(self._clips())
    served = self._make(pattern, data_service=self._addresses(1)).take(2)
    self._vocabulary.unlink()
    with self.assertRaisesRegex(tf.errors.NotFoundError, 'words.txt'):
      list(served)

  def test_bad_records_are_counted_here(self):
    clips = self._clips(8)
    frames = list(clips[2].frames)
    frames[3] = frames[3][: len(frames[3]) // 2]
    clips[2].frames = frames
    written = list(clips)
    written[6] = b'no record at all'
    pattern = self._write(written, num_shards=1)
    bad_records = bad_records_lib.BadRecords(1.0)
    with self.assertLogs(level='WARNING') as logs:
      batches = list(
        self._make(
          pattern,
          video=video_config.VideoConfig(num_frames=6, frame_size=8),
          num_epochs=2,
          bad_records=bad_records,
          data_service=self._addresses(2),
        )
      )
    self.assertLen(batches, 4)
    reasons = {index: r for (_, index), r in bad_records.reasons.items()}
    self.assertEqual(sorted(reasons), [2, 6])
    self.assertRegex(reasons[2], 'frame 3 of 6 is cut short')
    self.assertRegex(reasons[6], 'cannot be parsed')
    self.assertLen(logs.output, 2)
    masks = np.concatenate([b['video_mask'] for b in batches])
    self.assertEqual((~masks).sum(), 4)
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError, 'max_bad_record_share'
    ):
      list(
        self._make(
          pattern,
          num_epochs=1,
          max_bad_record_share=0.0,
          data_service=self._addresses(1),
        )
      )

  def test_encoded_sound(self):
    written = []
    for clip in self._clips(8):
      example = writing.make_sequence_example(clip)
      lists = example.feature_lists.feature_list
      del lists['WAVEFORM/feature/floats']
      # tensorflow-io, where it loads, reads the one, and not the other.
      kind = 'pcm_s16le' if len(written) % 2 else 'pcm_f32le'
      sound = sound_files.write(kind, clip.waveform[None], 800)
      lists['audio/encoded'].feature.add().bytes_list.value.append(sound)
      written.append(example.SerializeToString())
    pattern = self._write(written)
    local = self._make(pattern).take(4)
    served = self._make(pattern, data_service=self._addresses(2)).take(4)
    self.assertEqual(self._assert_equal(served, local), 4)
    for batch in local:
      self.assertAllEqual(batch['audio_mask'], [True] * 4)
      self.assertGreater(np.abs(batch['audio']).max(), 0.0)

  def test_corrupt_shard_stops_the_run(self):
    pattern = self._write(self._clips(3), num_shards=1)
    (path,) = tf.io.gfile.glob(pattern)
    content = bytearray(pathlib.Path(path).read_bytes())
    content[len(content) // 2] ^= 255
    pathlib.Path(path).write_bytes(content)
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError, 'cannot be read beyond its record 1'
    ):
      list(self._make(pattern, data_service=self._addresses(1)).take(2))

  def test_arguments(self):
    pattern = self._write(self._clips(4))
    for is_training, cache_gib in ((False, 0.0), (True, 0.1)):
      with self.assertRaisesRegex(ValueError, 'data_service.*evaluat'):
        pipeline.make_dataset(
          pattern,
          4,
          is_training,
          audio=_AUDIO,
          cache_gib=cache_gib,
          data_service=self._addresses(1),
        )


class AddressTest(tf.test.TestCase, parameterized.TestCase):
  def test_addresses(self):
    self.assertEqual(
      service.parse_addresses('grpc://a:1, grpc://b.c:65535'),
      [('a', 1), ('b.c', 65535)],
    )

  @parameterized.parameters(
    'a:1',
    'grpc://a',
    'http://a:1',
    'grpc://a:0',
    'grpc://a:1,',
    'grpc://:5',
    'grpc://a:1,grpc://a:1',
  )
  def test_wrong_addresses(self, wrong):
    with self.assertRaisesRegex(
      ValueError, 'grpc://host:5050.*Received: data_service='
    ):
      service.parse_addresses(wrong)

  def test_no_machine(self):
    port = _free_port()
    with mock.patch.object(service, 'WAIT_SECONDS', 1.0):
      with self.assertRaisesRegex(
        ValueError,
        rf'grpc://localhost:{port} .*cannot be reached after 1 s.*'
        rf'python -m vatt_tf\.serve_input --port={port}',
      ):
        service.wait_until_reached('localhost', port)

  @parameterized.parameters(signal.SIGINT, signal.SIGTERM)
  def test_ends_with_a_signal(self, number):
    machine = _start(_free_port())
    machine.send_signal(number)
    self.assertEqual(machine.communicate(timeout=30)[0], 'Stopped.\n')
    self.assertEqual(machine.returncode, 0)

  def test_port_in_use(self):
    with socket.socket() as other:
      other.bind(('', 0))
      other.listen()
      port = other.getsockname()[1]
      result = mains.run('serve_input', f'--port={port}')
    self.assertEqual(result.returncode, 1)
    self.assertRegex(result.stderr, rf'Port {port} cannot be used.*--port')


if __name__ == '__main__':
  tf.test.main()
