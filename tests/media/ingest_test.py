"""Ingest: what the records hold, resuming, labels, skips, bad input."""

import contextlib
import csv
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from unittest import mock

from absl.testing import parameterized
import cv2
import numpy as np
import tensorflow as tf

from tests import sample_media, shared_data
from vatt_tf.input_pipeline.records import reading, schema, writing
from vatt_tf.media import (
  decode_settings,
  decoded_clip,
  errors,
  ingest,
  ingest_report,
  shard_writing,
  worker,
)
from vatt_tf.media import journal as journal_lib


class IngestTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.media = os.path.join(cls.create_class_folder(), 'media')
    os.makedirs(os.path.join(cls.media, 'sub'))
    for i in range(4):
      sample_media.write(
        os.path.join(cls.media, f'v{i}.mp4'),
        2.0,
        sound=sample_media.tone(2.0) if i else None,
      )
    sample_media.write(
      os.path.join(cls.media, 'sub', 'a.wav'),
      0,
      sound=sample_media.tone(1.5),
      sound_codec='pcm_s16le',
    )

  @classmethod
  def create_class_folder(cls):
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    return folder.name

  def setUp(self):
    super().setUp()
    self.out = os.path.join(self.create_tempdir().full_path, 'out')

  def manifest(self, text):
    path = os.path.join(self.create_tempdir().full_path, 'm.csv')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
    return path

  def ingest(self, text='', **kwargs):
    arguments = {
      'output_dir': self.out,
      'media_root': self.media,
      'num_workers': 0,
      'show_progress': False,
    }
    if text:
      arguments['manifest_path'] = self.manifest(text)
    return ingest.ingest(**{**arguments, **kwargs})

  def clips(self, name='train', folder=None):
    found = []
    for path in sorted(glob.glob(f'{folder or self.out}/{name}-*.tfrecord')):
      found += list(reading.read_shard(path))
    return found

  def skipped(self, name='train'):
    with open(
      os.path.join(self.out, f'{name}.skipped.csv'), encoding='utf-8'
    ) as file:
      return list(csv.DictReader(file))

  def split_lists(self):
    found = {}
    for path in glob.glob(f'{self.out}/splits/*.txt'):
      with open(path, encoding='utf-8') as file:
        found[os.path.basename(path)] = file.read().splitlines()
    return found

  # Lists of ids.

  def test_lists_of_ids(self):
    text = (
      'video_path,start,end,splits,fold\n'
      'v3.mp4,0,1,,1\nv1.mp4,,,few,2\nno.mp4,,,gone,2\nv2.mp4,,,,\n'
    )
    arguments = {'max_failed_share': 0.3, 'clip_seconds': 1.0}
    result = self.ingest(text, **arguments)
    two = ['v1.mp4:0-1000000', 'v1.mp4:1000000-2000000']
    expected = {
      'test_1.txt': ['v3.mp4:0-1000000'],
      'train_2.txt': ['v3.mp4:0-1000000'],
      'test_2.txt': two,
      'train_1.txt': two,
      'few.txt': two,
      'gone.txt': [],
    }
    self.assertEqual(self.split_lists(), expected)
    ids = {clip.example_id for clip in self.clips()}
    self.assertLen(ids, 5)
    self.assertContainsSubset(two, ids)
    self.assertEqual(
      result.split_sizes,
      {'few': 2, 'gone': 0, 'test_1': 1, 'test_2': 2, 'train_1': 2,
       'train_2': 1},
    )  # fmt: skip
    self.assertIn('/splits: few 2, gone 0, test_1 1,', result.describe())
    again = self.ingest(text, **arguments)
    self.assertEqual(again.num_resumed, 5)
    self.assertEqual(again.split_sizes, result.split_sizes)
    # Another set of records here must not take its lists.
    with self.assertRaisesRegex(ValueError, "list of ids 'few'.*named train"):
      self.ingest('video_path,splits\nv2.mp4,few\n', name='other')
    # A list that is lost is made again with the records.
    os.remove(f'{self.out}/splits/few.txt')
    with self.assertRaisesRegex(ValueError, 'not all that dataset_info.json'):
      self.ingest(text, **arguments)
    self.ingest(text, overwrite=True, **arguments)
    self.assertEqual(self.split_lists(), expected)
    self.ingest('video_path\nv2.mp4\n', overwrite=True)
    self.assertEmpty(self.split_lists())

  def test_lists_of_ids_after_an_interruption(self):
    text = 'video_path,splits\n' + ''.join(
      f'v{i % 3 + 1}.mp4,{"even" if i % 2 else "odd"}_{i}\n' for i in range(3)
    )
    self.ingest(text, num_shards=3)
    expected = self.split_lists()
    self.assertLen(expected, 3)
    shutil.rmtree(self.out)

    def write(*args, **kwargs):
      if len(calls) == 2:
        raise KeyboardInterrupt
      calls.append(args)
      return original(*args, **kwargs)

    calls, original = [], shard_writing._make_clip
    with mock.patch.object(shard_writing, '_make_clip', write):
      with self.assertRaises(KeyboardInterrupt):
        self.ingest(text, num_shards=3)
    result = self.ingest(text, num_shards=3)
    self.assertEqual(result.num_resumed, 2)
    self.assertEqual(self.split_lists(), expected)

  # What records hold.

  def test_pictures(self):
    folder = self.create_tempdir().full_path
    image = np.zeros([60, 80, 3], np.uint8)
    image[:] = (10, 200, 100)
    cv2.imwrite(os.path.join(folder, 'a.JPEG'), image)
    cv2.imwrite(os.path.join(folder, 'b.png'), image[:, :30, 0])
    with open(os.path.join(folder, 'c.jpg'), 'wb') as file:
      file.write(b'\xff\xd8 no picture')
    result = self.ingest(
      'video_path,start,label\na.JPEG,,x\nb.png,,y\nc.jpg,,x\nd.jpg,,x\n'
      'a.JPEG,3,x\n',
      media_root=folder,
      shorter_side=48,
      max_failed_share=0.6,
    )
    self.assertEqual((result.num_clips, result.num_with_video), (2, 2))
    clips = {clip.data_path: clip for clip in self.clips()}
    self.assertLen(clips['a.JPEG'].frames, 1)
    self.assertEqual((clips['a.JPEG'].height, clips['a.JPEG'].width), (48, 64))
    self.assertEqual((clips['b.png'].height, clips['b.png'].width), (60, 30))
    self.assertEqual(clips['a.JPEG'].example_id, 'a.JPEG:0-100000')
    self.assertEqual(clips['b.png'].label_names, ['y'])
    pixels = cv2.imdecode(
      np.frombuffer(clips['a.JPEG'].frames[0], np.uint8), cv2.IMREAD_COLOR
    )
    self.assertAllClose(pixels.mean((0, 1)), [10, 200, 100], atol=3)
    self.assertEqual(
      [(row['file'], row['reason']) for row in self.skipped()],
      [
        ('a.JPEG', 'it is a picture: leave `start` out'),
        ('c.jpg', 'it cannot be decoded as JPEG or PNG'),
        ('d.jpg', 'the file does not exist'),
      ],
    )

  def test_manifest(self):
    result = self.ingest(
      'video_path,audio_path,start,end,label,caption\n'
      'v1.mp4,,0.5,1.5,dog|cat,a dog\n'
      'v1.mp4,,0.5,1.5,dog,"a cat, too"\n'
      'v0.mp4,sub/a.wav,,1,ant,\n'
      ',sub/a.wav,0.5,,,a tone\n'
      'v2.mp4,,,,,\n'
    )
    self.assertEqual(result.num_clips, 4)
    self.assertEqual(result.num_with_video, 3)
    self.assertEqual(result.num_with_audio, 4)
    self.assertEqual(result.num_with_captions, 2)
    self.assertEqual(result.num_captions, 3)
    self.assertEqual(result.num_shards, 4)
    self.assertAlmostEqual(result.seconds, 5.0)
    clips = {clip.example_id: clip for clip in self.clips()}
    clip = clips['v1.mp4:500000-1500000']
    self.assertEqual((clip.start, clip.end), (500_000, 1_500_000))
    self.assertEqual(
      [sample_media.frame_number(frame) for frame in clip.frames],
      [12, 15, 17, 20, 22, 25, 27, 30, 32, 35],
    )
    # Frames and captions count from the start of the clip.
    self.assertEqual(list(clip.timestamps), list(range(0, 1_000_000, 100_000)))
    self.assertEqual(
      clip.captions,
      [
        schema.Caption('a dog', 0, 1_000_000),
        schema.Caption('a cat, too', 0, 1_000_000),
      ],
    )
    self.assertEqual(clip.label_names, ['dog', 'cat'])
    self.assertEqual(clip.label_indices, [2, 1])
    self.assertEqual(clip.data_path, 'v1.mp4')
    self.assertEqual(clip.dataset_name, 'media')
    self.assertEqual(clip.waveform.shape, (48_000,))
    self.assertLessEqual(np.abs(clip.waveform).max(), 1.0)
    self.assertEqual(clip.sample_rate, 48_000)
    clip = clips['v0.mp4:0-1000000']
    self.assertLen(clip.frames, 10)
    self.assertLen(clip.waveform, 48_000)
    clip = clips['sub/a.wav:500000-1500000']
    self.assertEmpty(clip.frames)
    self.assertEqual(clip.captions, [schema.Caption('a tone', 0, 1_000_000)])
    self.assertLen(clips['v2.mp4:0-2000000'].frames, 20)
    with open(os.path.join(self.out, 'labels.txt')) as file:
      self.assertEqual(file.read(), 'ant\ncat\ndog\n')
    with open(os.path.join(self.out, 'dataset_info.json')) as file:
      info = json.load(file)['splits']['train']
    self.assertEqual(info['num_examples'], 4)
    self.assertEqual(info['shard_lengths'], [1, 1, 1, 1])
    self.assertEmpty(self.skipped())
    self.assertEqual(
      sorted(os.listdir(self.out)),
      ['dataset_info.json', 'labels.txt', 'train-00000-of-00004.tfrecord',
       'train-00001-of-00004.tfrecord', 'train-00002-of-00004.tfrecord',
       'train-00003-of-00004.tfrecord', 'train.skipped.csv'],
    )  # fmt: skip

  def test_folder_with_captions_beside_and_inside(self):
    root = self.create_tempdir().full_path
    lines = [(0.2, 0.9, 'first'), (1.2, 1.9, 'second')]
    sample_media.write(os.path.join(root, 'a.mp4'), 2.0)
    with open(os.path.join(root, 'a.srt'), 'w') as file:
      file.write(sample_media.srt(lines))
    sample_media.write(os.path.join(root, 'b.mkv'), 2.0, captions=lines)
    with open(os.path.join(root, 'orphan.vtt'), 'w') as file:
      file.write('WEBVTT\n')
    with open(os.path.join(root, 'notes'), 'w') as file:
      file.write('no media')
    result = self.ingest(media_root=root, clip_seconds=1.0)
    self.assertEqual(result.num_clips, 4)
    self.assertEqual(result.num_failed, 0)
    self.assertEqual(result.num_other_files, 2)
    clips = {clip.example_id: clip for clip in self.clips()}
    for name in ('a.mp4', 'b.mkv'):
      self.assertEqual(
        clips[f'{name}:1000000-2000000'].captions,
        [schema.Caption('second', 200_000, 900_000)],
      )
      self.assertEqual(
        clips[f'{name}:0-1000000'].captions,
        [schema.Caption('first', 200_000, 900_000)],
      )
    reasons = {row['file']: row['reason'] for row in self.skipped()}
    self.assertRegex(reasons['notes'], 'not a media file: FFmpeg cannot open')
    self.assertRegex(reasons['orphan.vtt'], 'the captions of none')
    # Without them, and with some from around the clip.
    self.ingest(media_root=root, captions='none', name='none')
    self.assertFalse(any(clip.captions for clip in self.clips('none')))
    self.ingest(
      media_root=root, clip_seconds=1.0, caption_margin_seconds=0.5, name='more'
    )
    counts = [len(clip.captions) for clip in self.clips('more')]
    self.assertEqual(counts, [2, 2, 2, 2])

  def test_captions_of_a_table_and_a_folder(self):
    folder = self.create_tempdir().full_path
    table = os.path.join(folder, 'asr.json')
    with open(table, 'w') as file:
      json.dump({'v1': {'start': [0.5], 'end': [1.0], 'text': ['hello']}}, file)
    self.ingest(captions=table)
    texts = {clip.data_path: clip.captions for clip in self.clips()}
    self.assertEqual(
      texts['v1.mp4'], [schema.Caption('hello', 500_000, 1_000_000)]
    )
    self.assertEmpty(texts['v2.mp4'])
    with open(os.path.join(folder, 'v2.vtt'), 'w') as file:
      file.write('WEBVTT\n\n00:00.000 --> 00:01.000\nthere\n')
    self.ingest(captions=folder, name='other')
    texts = {clip.data_path: clip.captions for clip in self.clips('other')}
    self.assertEqual(texts['v2.mp4'], [schema.Caption('there', 0, 1_000_000)])
    with self.assertRaisesRegex(ValueError, "captions='/none', which does not"):
      self.ingest(captions='/none', name='third')

  def test_long_file_is_cut_with_overlap(self):
    result = self.ingest(
      'video_path\nv1.mp4\n', clip_seconds=1.0, clip_overlap_seconds=0.5
    )
    self.assertEqual(result.num_clips, 3)
    clips = sorted(self.clips(), key=lambda clip: clip.start)
    self.assertEqual(
      [(clip.start, clip.end) for clip in clips],
      [(0, 1_000_000), (500_000, 1_500_000), (1_000_000, 2_000_000)],
    )
    self.assertEqual(clips[0].frames[5:], clips[1].frames[:5])
    np.testing.assert_allclose(
      clips[0].waveform[24_000:], clips[1].waveform[:24_000], atol=1e-3
    )

  def test_min_clip_seconds(self):
    result = self.ingest(
      'video_path,audio_path\nv1.mp4,\n,sub/a.wav\n',
      min_clip_seconds=1.8,
      max_failed_share=0.5,
    )
    self.assertEqual(result.num_clips, 1)
    self.assertRegex(self.skipped()[0]['reason'], 'it is 1.5 s long, shorter')

  def test_first_seconds(self):
    # The file is 2 s long.
    for limit, clip_seconds, expected in (
      (1.2, None, [(0, 1.2), (0.2, 1.0), (0.5, 1.7)]),
      (1.2, 0.6, [(0, 0.6), (0.2, 1.0), (0.5, 1.1), (0.6, 1.2), (1.1, 1.7)]),
      (5.0, None, [(0, 2.0), (0.2, 1.0), (0.5, 2.0)]),
    ):
      with self.subTest(limit=limit, clip_seconds=clip_seconds):
        self.ingest(
          'video_path,start,end\nv1.mp4,,\nv1.mp4,0.2,1.0\nv1.mp4,0.5,\n',
          first_seconds=limit,
          clip_seconds=clip_seconds,
          overwrite=True,
        )
        found = sorted((clip.start, clip.end) for clip in self.clips())
        expected = [(start * 1e6, end * 1e6) for start, end in expected]
        np.testing.assert_allclose(found, expected)

  # The same shards, whatever happens.

  def shards(self, folder=None, name='train'):
    shards = {}
    for path in glob.glob(f'{folder or self.out}/{name}-*.tfrecord'):
      with open(path, 'rb') as file:
        shards[os.path.basename(path)] = file.read()
    return shards

  def test_shards_do_not_depend_on_the_workers(self):
    self.ingest(num_shards=2, clip_seconds=0.5)
    expected = self.shards()
    self.assertLen(expected, 2)
    for workers in (1, 3):
      out = f'{self.out}{workers}'
      self.ingest(
        num_shards=2, clip_seconds=0.5, num_workers=workers, output_dir=out
      )
      self.assertEqual(self.shards(out), expected)

  def test_resumes_after_any_task(self):
    self.ingest(num_shards=2)
    expected = self.shards()
    with open(os.path.join(self.out, 'dataset_info.json')) as file:
      info = file.read()
    perform = worker.perform
    for stop in range(5):
      out = f'{self.out}-{stop}'
      calls = []

      def stopping(task, stop=stop, calls=calls):
        if task.spans is not None:
          calls.append(task)
          if len(calls) > stop:
            raise KeyboardInterrupt
        return perform(task)

      with mock.patch.object(worker, 'perform', stopping):
        with self.assertRaises(KeyboardInterrupt):
          self.ingest(num_shards=2, output_dir=out)
      self.assertFalse(os.path.exists(os.path.join(out, 'dataset_info.json')))
      done = []

      def counting(task, done=done):
        done.append(task)
        return perform(task)

      with mock.patch.object(worker, 'perform', counting):
        result = self.ingest(num_shards=2, output_dir=out)
      self.assertEqual(self.shards(out), expected)
      self.assertEqual(result.num_clips, 5)
      self.assertEqual(result.num_resumed, stop)
      self.assertLen([task for task in done if task.spans], 5 - stop)
      with open(os.path.join(out, 'dataset_info.json')) as file:
        self.assertEqual(file.read(), info)
      self.assertEmpty(glob.glob(f'{out}/.*') + glob.glob(f'{out}/*.jsonl'))
      with mock.patch.object(worker, 'perform', counting):
        del done[:]
        again = self.ingest(num_shards=2, output_dir=out)
      self.assertEmpty(done)
      self.assertEqual(again.num_resumed, 5)

  def test_resumes_after_the_last_shard(self):
    self.ingest(num_shards=2)
    expected, out = self.shards(), f'{self.out}-2'
    with mock.patch.object(
      ingest_report, 'write_reports', side_effect=KeyboardInterrupt
    ):
      with self.assertRaises(KeyboardInterrupt):
        self.ingest(num_shards=2, output_dir=out)
    self.assertEqual(self.shards(out), expected)
    result = self.ingest(num_shards=2, output_dir=out)
    self.assertEqual(self.shards(out), expected)
    self.assertEqual((result.num_clips, result.num_resumed), (5, 5))

  def test_a_lost_shard_is_made_again(self):
    self.ingest(num_shards=5)
    expected = self.shards()
    for path in sorted(glob.glob(f'{self.out}/train-*'))[1:3]:
      os.remove(path)
    with self.assertRaisesRegex(ValueError, 'has 3 shards.*but not all that'):
      self.ingest(num_shards=5)
    self.ingest(num_shards=5, overwrite=True)
    self.assertEqual(self.shards(), expected)

  def test_what_another_process_writes_is_not_overwritten(self):
    self.ingest()
    before = self.shards()
    path = os.path.join(self.out, 'train.progress.jsonl')
    with contextlib.closing(journal_lib.hold(path)):
      with self.assertRaisesRegex(ValueError, 'Another ingest is writing'):
        self.ingest(overwrite=True)
    self.assertEqual(self.shards(), before)
    self.ingest(overwrite=True)
    self.assertFalse(os.path.exists(path))

  def test_resumes_after_kill(self):
    text = 'video_path,start,end\n' + ''.join(
      f'v1.mp4,{i / 100},{i / 100 + 1}\n' for i in range(60)
    )
    arguments = {
      'manifest_path': self.manifest(text),
      'media_root': self.media,
      'num_shards': 3,
      'num_workers': 1,
      'show_progress': False,
    }
    ingest.ingest(output_dir=self.out, **arguments)
    expected = self.shards()
    out = f'{self.out}-killed'
    code = (
      'from vatt_tf.media import ingest\n'
      f'ingest.ingest(output_dir={out!r}, **{arguments!r})'
    )
    process = subprocess.Popen(
      [sys.executable, '-c', code], cwd=shared_data.REPOSITORY
    )
    journal = os.path.join(out, 'train.progress.jsonl')
    deadline = time.time() + 50
    while time.time() < deadline and process.poll() is None:
      if os.path.exists(journal):
        with open(journal) as file:
          if sum(1 for _ in file) > 25:
            break
      time.sleep(0.01)
    process.kill()
    process.wait()
    # A part of the first shard or more is done, not all.
    self.assertTrue(os.path.exists(journal))
    result = ingest.ingest(output_dir=out, **arguments)
    self.assertEqual(self.shards(out), expected)
    self.assertBetween(result.num_resumed, 15, 59)

  def test_changed_input_is_refused(self):
    text = 'video_path,label\nv1.mp4,a\nv2.mp4,b\n'
    self.ingest(text)
    before = self.shards()
    for kwargs in ({'frame_rate': 5}, {'audio_rate': 16000}):
      with self.assertRaisesRegex(ValueError, '--overwrite'):
        self.ingest(text, **kwargs)
    with self.assertRaisesRegex(
      ValueError, 'belongs to an ingest with another'
    ):
      self.ingest(text.replace('v2', 'v3'))
    self.assertEqual(self.shards(), before)
    self.ingest(text, frame_rate=5, overwrite=True, num_shards=1)
    self.assertEqual(
      [os.path.basename(path) for path in glob.glob(f'{self.out}/train-*')],
      ['train-00000-of-00001.tfrecord'],
    )
    self.assertLen(self.clips()[0].frames, 10)

  def test_changed_options_of_an_interrupted_run_are_refused(self):
    text = 'video_path\nv1.mp4\nv2.mp4\n'
    perform = worker.perform
    for count, options in ((0, {'frame_rate': 5}), (1, {})):
      # Where nothing was made nothing is lost, and other options are welcome.
      task = worker.Task(
        f'{self.media}/v1.mp4',
        '',
        (decoded_clip.Span(),),
        decode_settings.Settings(),
      )
      effects = [perform(task)] * count + [KeyboardInterrupt]
      with mock.patch.object(worker, 'perform', side_effect=effects):
        with self.assertRaises(KeyboardInterrupt):
          self.ingest(text, **options)
    with self.assertRaisesRegex(ValueError, r'train\.progress\.jsonl belongs'):
      self.ingest(text, jpeg_quality=50)

  def test_shards_of_unknown_origin_are_kept(self):
    os.makedirs(self.out)
    path = os.path.join(self.out, 'train-00000-of-00001.tfrecord')
    with open(path, 'w') as file:
      file.write('precious')
    with self.assertRaisesRegex(ValueError, 'that no dataset_info.json'):
      self.ingest()
    with open(path) as file:
      self.assertEqual(file.read(), 'precious')

  # Labels.

  def test_second_split_takes_the_labels_of_the_first(self):
    self.ingest('video_path,label\nv1.mp4,b\nv2.mp4,a\n')
    self.ingest('video_path,label\nv3.mp4,b\n', name='validation')
    self.assertEqual(self.clips('validation')[0].label_indices, [1])
    with self.assertRaisesRegex(
      ValueError, r'1 labels of .*: c\. It has 2: a, b'
    ):
      self.ingest('video_path,label\nv3.mp4,c\n', name='test')
    other = f'{self.out}2'
    self.ingest(
      'video_path,label\nv3.mp4,b\n',
      output_dir=other,
      labels=os.path.join(self.out, 'labels.txt'),
    )
    self.assertEqual(self.clips(folder=other)[0].label_indices, [1])
    with open(os.path.join(other, 'labels.txt')) as file:
      self.assertEqual(file.read(), 'a\nb\n')

  # What fails.

  def bad_folder(self):
    root = self.create_tempdir().full_path
    good = sample_media.write(os.path.join(root, 'good.mp4'), 2.0)
    with open(os.path.join(root, 'empty.mp4'), 'wb'):
      pass
    with open(os.path.join(root, 'noise.mp4'), 'wb') as file:
      file.write(np.random.default_rng(0).bytes(5000))
    with open(good, 'rb') as source:
      with open(os.path.join(root, 'latin.mp4'), 'wb') as file:
        file.write(source.read())
    with open(os.path.join(root, 'latin.srt'), 'wb') as file:
      file.write('1\n00:00:00,000 --> 00:00:01,000\ncafé\n'.encode('cp1252'))
    return root

  def test_failures_are_named_and_the_rest_is_done(self):
    root = self.bad_folder()
    text = (
      'video_path,start,end\ngood.mp4,,\nempty.mp4,,\nnoise.mp4,,\n'
      'none.mp4,,\nlatin.mp4,,\ngood.mp4,1,4\ngood.mp4,7,8\n'
    )
    with self.assertRaisesRegex(
      errors.TooManyFailedError, '5 of 7 clips failed, more than'
    ) as context:
      self.ingest(text, media_root=root)
    self.assertEqual(context.exception.result.num_clips, 2)
    self.assertEqual(context.exception.result.num_notes, 1)
    rows = self.skipped()
    self.assertLen(rows, 6)
    reasons = {(row['file'], row['start']): row['reason'] for row in rows}
    for key, message in {
      ('empty.mp4', '0'): r'the file is empty \(0 bytes\)',
      ('noise.mp4', '0'): 'FFmpeg cannot open it',
      ('none.mp4', '0'): 'the file does not exist',
      ('latin.srt', ''): (
        r'note: no captions are taken from it: latin\.srt is not UTF-8.*'
        '--caption_encoding=cp1252'
      ),
      ('good.mp4', '1'): r'\(1 s to 4 s\) is longer than its video.*at 2 s',
      ('good.mp4', '7'): 'the clip starts at 7 s, but its video ends at 2 s',
    }.items():
      self.assertRegex(reasons[key], message)
    # The same again: what is done is not done twice, what failed is told again.
    with self.assertRaises(errors.TooManyFailedError):
      self.ingest(text, media_root=root)
    result = self.ingest(text, media_root=root, max_failed_share=0.9)
    self.assertEqual((result.num_clips, result.num_failed), (2, 5))

  def test_folder_with_failures(self):
    root = self.bad_folder()
    result = self.ingest(media_root=root, max_failed_share=0.8)
    self.assertEqual((result.num_clips, result.num_failed), (2, 2))
    self.assertEqual((result.num_notes, result.num_with_captions), (1, 0))
    result = self.ingest(
      media_root=root,
      max_failed_share=0.8,
      caption_encoding='cp1252',
      name='again',
    )
    self.assertEqual((result.num_clips, result.num_failed), (2, 2))
    self.assertEqual((result.num_notes, result.num_with_captions), (0, 1))
    texts = [clip.captions for clip in self.clips('again') if clip.captions]
    self.assertEqual(texts[0][0].text, 'café')

  def test_a_decoder_that_dies_takes_one_file_with_it(self):
    # A worker that is killed on one of the files.
    text = 'video_path\n' + ''.join(f'v{i}.mp4\n' for i in range(4))
    call = worker._Process.call

    def dying(process, task):
      if task.path.endswith('v2.mp4'):
        process.kill()
      return call(process, task)

    with mock.patch.object(worker._Process, 'call', dying):
      result = self.ingest(text, num_workers=2, max_failed_share=0.3)
    self.assertEqual((result.num_clips, result.num_failed), (3, 1))
    row = self.skipped()[0]
    self.assertEqual(row['file'], 'v2.mp4')
    self.assertRegex(
      row['reason'], r'process died on this file \(signal SIGKILL'
    )

  def test_full_disk(self):
    text = 'video_path\nv1.mp4\nv2.mp4\nv3.mp4\n'
    self.ingest(text, num_shards=2)
    expected = self.shards()
    write = writing.ShardWriter.write
    for error in (
      tf.errors.ResourceExhaustedError(None, None, 'No space left on device'),
      OSError(28, 'No space left on device'),
    ):
      out = f'{self.out}-{type(error).__name__}'
      written = []

      def filling(writer, clip, error=error, written=written):
        if len(written) == 2:
          raise error
        written.append(clip)
        write(writer, clip)

      with mock.patch.object(writing.ShardWriter, 'write', filling):
        with self.assertRaisesRegex(
          OSError, f'{out} cannot be written: .*No space.*the same command'
        ):
          self.ingest(text, num_shards=2, output_dir=out)
      result = self.ingest(text, num_shards=2, output_dir=out)
      self.assertEqual(result.num_resumed, 2)
      self.assertEqual(self.shards(out), expected)

  def test_names_of_any_kind(self):
    root = self.create_tempdir().full_path
    source = os.path.join(self.media, 'v0.mp4')
    names = (
      'my holiday, "day 1".mp4',
      'видео 日本.mp4',
      'two\nlines.mp4',
      'x' * 250 + '.mp4',
      'same.mp4',
      'c/same.mp4',
      'd/same.mp4',
      'UPPER.MP4',
    )
    os.makedirs(os.path.join(root, 'c'))
    os.makedirs(os.path.join(root, 'd'))
    for name in names:
      shutil.copy(source, os.path.join(root, name))
    shutil.copy(source, os.path.join(root.encode(), b'caf\xe9.mp4'))
    result = self.ingest(media_root=root, max_failed_share=0.2)
    self.assertEqual((result.num_clips, result.num_failed), (8, 1))
    self.assertCountEqual([clip.data_path for clip in self.clips()], names)
    row = self.skipped()[0]
    self.assertEqual(row['file'], r'caf\udce9.mp4')
    self.assertRegex(row['reason'], 'its name is in another encoding')
    with self.assertRaisesRegex(errors.MediaError, 'gives no clip'):
      shutil.rmtree(root)
      os.makedirs(root)
      shutil.copy(source, os.path.join(root.encode(), b'caf\xe9.mp4'))
      self.ingest(media_root=root, name='again')

  @parameterized.parameters(
    ({'media_root': ''}, '`manifest_path`'),
    ({'media_root': '/none'}, '`media_root` must be a folder'),
    ({'output_dir': 'gs://bucket/x'}, '`output_dir` must be a folder of this'),
    ({'name': 'a/b'}, "`name` must.*Received: name='a/b'"),
    ({'frame_rate': 0}, '`frame_rate` must be in'),
    ({'jpeg_quality': 101}, r'`jpeg_quality` must be in \[1, 100\]'),
    ({'num_shards': 0}, '`num_shards` must be in'),
    ({'num_shards': 9}, '`num_shards` must be at most the number of clips, 5'),
    ({'max_failed_share': 2}, '`max_failed_share`'),
    ({'clip_seconds': 1, 'clip_overlap_seconds': 1}, '`clip_overlap_seconds`'),
    ({'clip_overlap_seconds': 1}, '`clip_overlap_seconds` needs'),
    ({'use_video': False, 'use_audio': False}, '`use_video` or `use_audio`'),
    ({'caption_encoding': 'x-y'}, '`caption_encoding` must be an encoding'),
    ({'num_workers': -1}, '`num_workers` must not be negative'),
  )
  def test_bad_arguments(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      self.ingest(**arguments)

  def test_output_that_cannot_be_written(self):
    path = os.path.join(self.create_tempdir().full_path, 'file')
    with open(path, 'w'):
      pass
    with self.assertRaisesRegex(OSError, 'cannot be written: .*not a direct'):
      self.ingest(output_dir=os.path.join(path, 'records'))

  def test_folder_without_media(self):
    root = self.create_tempdir().full_path
    with self.assertRaisesRegex(errors.MediaError, 'gives no clip'):
      self.ingest(media_root=root)
    with open(os.path.join(root, 'a.txt'), 'w') as file:
      file.write('text')
    with self.assertRaisesRegex(errors.MediaError, r'a\.txt: not a media file'):
      self.ingest(media_root=root)


class RealMediaTest(tf.test.TestCase):
  def test_every_file_gives_a_record_or_a_line(self):
    root = str(shared_data.path('media', 'misc'))
    out = self.create_tempdir().full_path
    result = ingest.ingest(
      out, media_root=root, show_progress=False, shorter_side=64
    )
    self.assertEqual(result.num_failed, 0)
    clips = [
      clip
      for path in glob.glob(f'{out}/train-*')
      for clip in reading.read_shard(path)
    ]
    with open(result.skip_report) as file:
      skipped = {row['file']: row['reason'] for row in csv.DictReader(file)}
    used = {clip.data_path for clip in clips} | skipped.keys()
    used |= {'popeye/p2.srt', 'popeye/p3.srt'}
    every = {
      os.path.relpath(os.path.join(folder, name), root)
      for folder, _, names in os.walk(root)
      for name in names
    }
    self.assertEqual(used, every)
    self.assertCountEqual(
      skipped,
      [
        'audio/LICENSE-tensorflow-io',
        'captions/msrvtt_test.csv',
        'captions/sintel-en.vtt',
        'captions/validation_youcook.csv',
      ],
    )
    of_popeye = [one for one in clips if one.data_path == 'popeye/p2.mkv']
    self.assertLen(of_popeye, 6)
    texts = [caption.text for clip in of_popeye for caption in clip.captions]
    self.assertIn("Who's the most phenominal Extra ordinary fellow?", texts)


if __name__ == '__main__':
  tf.test.main()
