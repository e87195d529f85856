"""Tests of `vatt_tf.embedding`: what is embedded, and how a run goes on."""

import contextlib
import csv
import functools
import glob
import gzip
import math
import os
import shutil
import signal
import tempfile
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import fake_clips, sample_media, tiny_vatt
from tests.embedding import tiny_model
from vatt_tf.embedding import journal as journal_lib
from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import run, sources, table
from vatt_tf.input_pipeline import pipeline
from vatt_tf.input_pipeline.records import reading, schema, writing
from vatt_tf.media import errors, ingest, ingest_report, worker
from vatt_tf.media import journal as ingest_journal


class RunTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.base = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.embedders = staticmethod(functools.cache(model_lib.Embedder))
    cls.saved, cls.model = tiny_model.exported()
    cls.version = os.path.join(cls.saved, '1')
    cls.media = os.path.join(cls.base, 'media')
    tiny_model.write_media(cls.media)
    cls.plain = os.path.join(cls.base, 'plain')
    cls.result = run.embed(
      cls._options(output=cls.plain, media=cls.media),
      tiny_model.FORM,
      show_progress=False,
    )

  @classmethod
  def _options(cls, **values):
    values = {'saved_model': cls.saved, **values}
    return tiny_model.options(**values)

  def setUp(self):
    super().setUp()
    # A model that is there already is not loaded for each run.
    self.enter_context(mock.patch.object(model_lib, 'Embedder', self.embedders))
    self.out = os.path.join(self.create_tempdir().full_path, 'out')

  def embed(self, **values):
    return run.embed(
      self._options(**{'output': self.out, **values}),
      tiny_model.FORM,
      show_progress=False,
    )

  def assert_same_rows(self, one, other, atol=1e-5, spaces=table.SPACES):
    for space in spaces:
      expected = tiny_model.rows(table.read(one, space=space))
      found = tiny_model.rows(table.read(other, space=space))
      self.assertEqual(expected.keys(), found.keys())
      for key in expected:
        self.assertAllClose(expected[key], found[key], atol=atol, msg=str(key))

  def files(self, folder):
    found = {}
    for path in glob.glob(os.path.join(folder, '*', '*.parquet')):
      with open(path, 'rb') as file:
        found[os.path.relpath(path, folder)] = file.read()
    return found

  def assert_same_files(self, one, other):
    found, expected = self.files(one), self.files(other)
    self.assertEqual(sorted(found), sorted(expected))
    differing = [name for name in found if found[name] != expected[name]]
    self.assertEqual(differing, [])

  # What is embedded.

  @parameterized.parameters('a [b]*', 'back\\slash, {x}?', ' ~100% "q"')
  def test_names_of_folders_are_no_patterns(self, name):
    folder = os.path.join(self.create_tempdir().full_path, name)
    media = os.path.join(folder, 'me[d]ia')
    shutil.copytree(self.media, media)
    model = os.path.join(folder, 'model [1]')
    shutil.copytree(os.path.dirname(self.version), model)
    out = os.path.join(folder, 'out?')
    for given in (media, f'{media}/**', f'{folder}/*/**'):
      result = self.embed(
        media=given, saved_model=model, output=out, overwrite=True
      )
      self.assertEqual(result.num_clips, 12)
      if given != f'{folder}/*/**':  # whose paths begin with that of the folder
        self.assert_same_rows(self.plain, out)
    ingest.ingest(
      f'{folder}/records*', media_root=media, audio_rate=16000,
      clip_seconds=0.8, num_workers=0, num_shards=2, show_progress=False,
    )  # fmt: skip
    for path in glob.glob(f'{glob.escape(folder)}/records[*]/*.tfrecord'):
      with open(path, 'rb') as file:
        content = gzip.compress(file.read())
      with open(path, 'wb') as file:
        file.write(content)
    self.embed(
      records=f'{folder}/records*/train-*', saved_model=model, output=out,
      overwrite=True,
    )  # fmt: skip
    self.assert_same_rows(self.plain, out)

  def test_rows_of_media(self):
    result = self.result
    self.assertEqual(result.num_clips, 12)
    self.assertEqual(result.num_failed, 0)
    # The captions of `a`: 1, 2 of which one is shown on, 1.
    self.assertEqual(result.num_of, {'video': 9, 'audio': 9, 'text': 3})
    self.assertEqual(
      result.num_rows,
      {table.VIDEO_AUDIO: 18, table.VIDEO_TEXT: 12, table.AUDIO_TEXT: 9},
    )
    self.assertIn('9 with video, 9 with sound, 3 captions', result.describe())
    found = table.read(self.plain, space=table.VIDEO_TEXT)
    self.assertEqual(found.embedding.shape, (12, 6))
    self.assertAllClose(
      np.linalg.norm(found.embedding, axis=1), np.ones([12]), atol=1e-5
    )
    # Clips differ, or nothing would be compared below.
    self.assertGreater(np.ptp(found.embedding, axis=0).max(), 0.01)
    of_a = found.path == 'a.mp4'
    self.assertAllClose(
      found.clip_start[of_a & (found.modality == 'video')], [0.0, 0.8, 1.6]
    )
    self.assertEqual(
      list(found.text[of_a & (found.modality == 'text')]),
      ['a red star moves', 'a blue ring', 'a blue ring'],
    )
    rest = (found.path == 'rest.mp4') & (found.modality == 'video')
    self.assertAllClose(found.clip_end[rest], [0.8, 1.8], atol=0.03)
    self.assertIn('ünter/☂ kreis.mp4', found.path)
    self.assertEqual(set(found.model_version), {result.model_version})
    self.assertRegex(result.model_version, '^1-[0-9a-f]{12}$')
    metadata = found.metadata
    self.assertEqual(metadata['dimension'], '6')
    self.assertEqual(metadata['clip_seconds'], '0.8')
    self.assertEqual(metadata['model_path'], self.version)
    self.assertEqual(metadata['media_root'], self.media)

  def test_records_give_what_their_media_gave(self):
    """Ingest with the same options stores the same JPEG bytes and samples."""
    folder = self.create_tempdir().full_path
    ingest.ingest(
      folder, media_root=self.media, audio_rate=16000, clip_seconds=0.8,
      num_workers=0, num_shards=2, show_progress=False,
    )  # fmt: skip
    self.embed(records=f'{folder}/train-*')
    self.assert_same_rows(self.plain, self.out)

  def test_records_are_cut_as_media_are(self):
    """A record of the whole file: its windows have the same frames."""
    folder = self.create_tempdir().full_path
    ingest.ingest(
      folder, media_root=self.media, audio_rate=16000, clip_seconds=0,
      num_workers=0, show_progress=False,
    )  # fmt: skip
    self.embed(
      records=f'{folder}/train-*',
      modalities=('video', 'text'),
      max_failed_share=0.3,
    )  # One file is of sound alone.
    for space in (table.VIDEO_AUDIO, table.VIDEO_TEXT):
      expected = tiny_model.rows(
        table.read(self.plain, ('video', 'text'), space)
      )
      found = tiny_model.rows(table.read(self.out, space=space))
      self.assertEqual(expected.keys(), found.keys())
      for key in expected:
        self.assertAllClose(expected[key], found[key], atol=1e-5)

  def test_smaller_frames_change_little(self):
    """Other JPEG bytes: the cosine is near 1, but not 1."""
    self.embed(media=self.media, jpeg_quality=60, modalities=('video',))
    one, other = (
      table.read(path, 'video', table.VIDEO_TEXT).embedding
      for path in (self.plain, self.out)
    )
    cosine = np.sum(one * other, axis=1)
    self.assertAllGreater(cosine, 0.98)
    self.assertGreater(np.abs(one - other).max(), 1e-5)

  def test_equals_the_signatures(self):
    """A clip of the very length: raw frames and samples, one by one."""
    loaded = tf.saved_model.load(self.version)
    folder = self.create_tempdir().full_path
    ingest.ingest(
      folder, media_root=self.media, audio_rate=16000, clip_seconds=0.8,
      num_workers=0, num_shards=1, show_progress=False,
    )  # fmt: skip
    [path] = glob.glob(f'{folder}/*.tfrecord')
    expected = {}
    for clip in reading.read_shard(path):
      key = clip.data_path, round(clip.start / 1e6, 3)
      if clip.frames:
        frames = [tf.io.decode_jpeg(frame).numpy() for frame in clip.frames]
        expected[*key, 'video'] = loaded.signatures['embed_video'](
          frames=tf.constant([frames], tf.uint8)
        )['video_audio_embedding'][0]
      if clip.waveform is not None:
        # In `short.mp4` it ends before the last frame: it starts again with
        # the first one.
        missing = len(clip.frames) * 1600 - clip.waveform.size
        waveform = np.pad(clip.waveform, [0, max(missing, 0)])
        expected[*key, 'audio'] = loaded.signatures['embed_audio'](
          waveform=tf.constant([waveform]),
          sample_rate=tf.constant([16000]),
        )['video_audio_embedding'][0]
    found = tiny_model.rows(table.read(self.plain, space=table.VIDEO_AUDIO))
    self.assertLen(expected, 18)
    for key, value in found.items():
      self.assertAllClose(value, expected[key[:3]], atol=1e-5, msg=str(key))

  def test_equals_evaluation(self):
    """The middle of longer records, sound and all, as evaluation takes it."""
    pattern = str(tiny_vatt.RECORDS / 'validation-*')
    dataset = pipeline.make_dataset(
      pattern, 8, is_training=False, video=tiny_model.VIDEO,
      audio=tiny_model.AUDIO, text=tiny_model.TEXT,
    )  # fmt: skip
    expected = self.model(next(iter(dataset)))
    self.embed(records=pattern, clip_seconds=0.0)
    for space, modality, key in (
      (table.VIDEO_AUDIO, 'video', 'video_va'),
      (table.VIDEO_TEXT, 'video', 'video_vt'),
      (table.VIDEO_AUDIO, 'audio', 'audio_va'),
      (table.AUDIO_TEXT, 'audio', 'audio_vt'),
    ):
      found = table.read(self.out, modality, space)
      value = tf.math.l2_normalize(expected[key], -1)
      self.assertAllClose(found.embedding, value, atol=1e-5)
    # Three windows of 0.8 s and one of 1.0 s, of which it takes the middle.
    self.embed(records=pattern, output=f'{self.out}-cut', media_root='/')
    cut = table.read(f'{self.out}-cut', 'video', table.VIDEO_TEXT)
    self.assertLen(cut, 4 * 8)
    self.assertAllClose(cut.clip_start[:4], [0.0, 0.8, 1.6, 2.4])
    self.assertAllClose(cut.clip_end[3], 3.4, atol=0.02)
    self.assertEqual(cut.metadata['media_root'], '/')

  def test_stride_and_modalities(self):
    result = self.embed(
      media=os.path.join(self.media, '*.mp4'),
      stride_seconds=0.4,
      modalities=('audio',),
    )
    self.assertEqual(
      set(result.num_rows), {table.VIDEO_AUDIO, table.AUDIO_TEXT}
    )
    found = table.read(self.out, space=table.AUDIO_TEXT)
    self.assertEqual(set(found.modality), {'audio'})
    self.assertEqual(set(found.path), {'a.mp4', 'rest.mp4', 'short.mp4'})
    self.assertAllClose(
      found.clip_start[found.path == 'a.mp4'], [0.0, 0.4, 0.8, 1.2]
    )
    self.assertEqual(found.metadata['stride_seconds'], '0.4')

  def test_manifest(self):
    path = os.path.join(self.media, '.manifest.csv')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(
        'video_path,start,end,caption\n'
        'ünter/☂ kreis.mp4,0.8,1.6,a gray circle\n'
        'ünter/☂ kreis.mp4,0.8,1.6,a circle\n'
        'a.mp4,0,5,too long\n'
        'missing.mp4,0,1,\n'
      )
    result = self.embed(manifest=path, max_failed_share=0.9)
    # The file ends at 2 s: of 6 windows of its row it has the first 2.
    self.assertEqual((result.num_clips, result.num_failed), (3, 5))
    found = table.read(self.out, space=table.VIDEO_TEXT)
    self.assertEqual(
      list(found.text[:3]),
      ['a gray circle\na circle', 'a gray circle', 'a circle'],
    )
    whole = tiny_model.rows(table.read(self.plain, 'video', table.VIDEO_TEXT))
    [expected] = [
      value
      for key, value in whole.items()
      if key[:2] == ('ünter/☂ kreis.mp4', 0.8)
    ]
    self.assertAllClose(found.embedding[0], expected, atol=1e-5)
    with open(result.skip_report, encoding='utf-8') as file:
      skips = list(csv.DictReader(file))
    self.assertIn('does not exist', skips[-1]['reason'])

  def test_a_table_among_the_media(self):
    media = self.create_tempdir().full_path
    shutil.copy(os.path.join(self.media, 'short.mp4'), media)
    output = os.path.join(media, 'embeddings')
    for num_resumed in (0, 1):
      result = self.embed(media=media, output=output)
      self.assertEqual((result.num_clips, result.num_others), (1, 0))
      self.assertEqual(result.num_resumed, num_resumed)

  # What fails.

  def test_failures_are_named_and_the_rest_is_done(self):
    media = self.create_tempdir().full_path
    shutil.copy(os.path.join(self.media, 'a.mp4'), media)
    with open(os.path.join(media, 'broken.mp4'), 'wb') as file:
      file.write(b'no video' * 100)
    with open(os.path.join(media, 'empty.mp4'), 'wb'):
      pass
    with open(os.path.join(media, 'notes.md'), 'w') as file:
      file.write('not a media file')
    with self.assertRaisesRegex(
      errors.TooManyFailedError, '2 of 5 clips failed.*`max_failed_share`=0.1'
    ):
      self.embed(media=media)
    result = self.embed(media=media, max_failed_share=0.5)
    self.assertEqual((result.num_clips, result.num_failed), (3, 2))
    self.assertEqual((result.num_others, result.num_resumed), (1, 3))
    with open(result.skip_report, encoding='utf-8') as file:
      found = {row['file']: row['reason'] for row in csv.DictReader(file)}
    self.assertEqual(set(found), {'broken.mp4', 'empty.mp4', 'notes.md'})
    self.assertIn('empty', found['empty.mp4'])
    self.assertLen(table.read(self.out, 'video', table.VIDEO_TEXT), 3)

  def _write_records(self, **changes):
    folder = self.create_tempdir().full_path
    clips = [
      fake_clips.fake_clip(
        seed, 8, height=40, width=60, sample_rate=16000.0, num_captions=1
      )
      for seed in range(4)
    ]
    for name, value in changes.items():
      setattr(clips[2], name, value)
    path = writing.shard_path(folder, 'x', 0, 1)
    with (
      mock.patch.object(schema, 'check_clip'),
      writing.ShardWriter(path) as writer,
    ):
      for clip in clips:
        writer.write(clip)
    return path

  @parameterized.parameters(
    ({'frames': [b'no picture'] * 8}, 'video: .*JPEG', (3, 4, 4)),
    (
      {'waveform': np.full([12800], np.nan, np.float32)},
      'audio: the waveform holds values that are not finite',
      (4, 3, 4),
    ),
    (
      {'captions': [schema.Caption('...')]},
      "caption '...': `text` must hold a word",
      (4, 4, 3),
    ),
    ({'frames': [], 'waveform': None, 'captions': []}, 'nothing of', (3, 3, 3)),
    ({'frame_rate': 0.0, 'timestamps': [5, 4] * 4}, 'times of', (3, 4, 4)),
  )
  def test_a_bad_record_takes_nothing_with_it(self, changes, reason, counts):
    path = self._write_records(**changes)
    result = self.embed(records=path, max_failed_share=0.3)
    self.assertEqual(tuple(result.num_of.values()), counts)
    with open(result.skip_report, encoding='utf-8') as file:
      [row] = csv.DictReader(file)
    self.assertRegex(row['reason'], reason)
    self.assertEqual(row['file'], 'fake/000002.mp4')
    is_caption = 'captions' in changes and len(changes) == 1
    self.assertEqual(result.num_failed, 0 if is_caption else 1)
    self.assertEqual(result.num_others, 1 if is_caption else 0)

  @parameterized.parameters(
    (
      {'timestamps': [100_000 * i for i in range(12)]},
      'video: it has more times than frames',
      (6, 8, 8),
    ),
    ({'frame_rate': math.nan}, 'video: its frame rate, nan, is not', (6, 8, 8)),
    ({'frame_rate': 1e-10}, 'video: its frame rate, .* is not', (6, 8, 8)),
    ({'sample_rate': math.nan}, 'audio: its sample rate, nan, is', (8, 6, 8)),
    ({'sample_rate': math.inf}, 'audio: its sample rate, inf, is', (8, 6, 8)),
    ({'sample_rate': 0.0}, 'audio: it has no sample rate', (8, 6, 8)),
  )
  def test_a_bad_record_of_several_windows(self, changes, reason, counts):
    """The other of frames and sound is cut as it would be without a fault."""
    path = self._write_records(**changes)
    result = self.embed(records=path, clip_seconds=0.4, max_failed_share=0.3)
    self.assertEqual(tuple(result.num_of.values()), counts)
    self.assertEqual((result.num_clips, result.num_failed), (6, 2))
    with open(result.skip_report, encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
    self.assertEqual(
      [(row['file'], row['start'], row['end']) for row in rows],
      [('fake/000002.mp4', '0', '0.4'), ('fake/000002.mp4', '0.4', '0.8')],
    )
    for row in rows:
      self.assertRegex(row['reason'], reason)
    found = table.read(self.out, space=table.VIDEO_AUDIO)
    of_file = found.path == 'fake/000002.mp4'
    self.assertAllClose(found.clip_start[of_file], [0.0, 0.4])
    self.assertAllClose(found.clip_end[of_file], [0.4, 0.8])

  def test_frames_without_times_are_not_cut(self):
    clip = fake_clips.fake_clip(0, 8, height=40, width=60, sample_rate=16000.0)
    clip.timestamps, clip.frame_rate = (), math.nan
    parts = sources.cut_clip(clip, sources.Windows(400_000, 0))
    self.assertLen(parts, 2)
    for part, samples in zip(parts, np.split(clip.waveform, 2)):
      self.assertEqual(part.frames, clip.frames)
      self.assertAllEqual(part.waveform, samples)

  def test_no_record_and_no_shard(self):
    path = self._write_records()
    with tf.io.TFRecordWriter(path) as writer:
      writer.write(b'\xff no record')
      writer.write(writing.serialize_clip(fake_clips.fake_clip(1, 8)))
    result = self.embed(records=path, max_failed_share=0.5)
    self.assertEqual((result.num_clips, result.num_failed), (1, 1))
    with open(path, 'r+b') as file:
      file.seek(300)
      file.write(b'xxxx')
    with self.assertRaisesRegex(ValueError, 'truncated or corrupt'):
      self.embed(records=path, output=f'{self.out}-2')

  def test_nothing_to_embed(self):
    """Captions of a file that has none: nothing has failed."""
    path = os.path.join(self.media, 'short.mp4')
    with self.assertRaisesRegex(
      errors.TooManyFailedError,
      'Nothing was embedded: 0 of 1 clip failed, and the others hold nothing '
      'of text(.|\n)*short.mp4: it has nothing of text',
    ) as raised:
      self.embed(media=path, modalities=('text',))
    self.assertNotIn('max_failed_share', str(raised.exception))

  # How a run goes on.

  @parameterized.parameters(2, 5, 8)
  def test_goes_on_where_it_was_interrupted(self, after):
    """Interrupted between any two files: the files are those of one run."""
    whole = f'{self.out}-whole'
    self.embed(media=self.media, output=whole, clips_per_file=4)
    expected = self.files(whole)
    self.assertEqual(len(expected), 9)  # Three parts in three spaces.
    write, count = table.write_file, 0

    def interrupted(*arguments):
      nonlocal count
      count += 1
      if count == after:
        raise KeyboardInterrupt
      write(*arguments)

    with mock.patch.object(table, 'write_file', interrupted):
      with self.assertRaises(KeyboardInterrupt):
        self.embed(media=self.media, clips_per_file=4)
    # As a run leaves it that was killed in the middle of a write.
    journal = os.path.join(self.out, 'progress.jsonl')
    with open(journal, 'a') as file:
      file.write('{"part": 7, "rows"')
    folder = os.path.join(self.out, table.VIDEO_TEXT)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, '.part-00001.parquet.1.part'), 'w'):
      pass
    result = self.embed(media=self.media, clips_per_file=4)
    self.assertEqual(result.num_clips, 12)
    self.assert_same_files(self.out, whole)
    self.assertEmpty(glob.glob(os.path.join(folder, '.*')))
    done = {2: 0, 5: 4, 8: 8}[after]
    self.assertEqual(result.num_resumed, done)
    # Nothing is left to do.
    with mock.patch.object(table, 'write_file', interrupted):
      result = self.embed(media=self.media, clips_per_file=4)
    self.assertEqual((result.num_clips, result.num_resumed), (12, 12))
    # A file that is lost is made again.
    path = os.path.join(self.out, sorted(expected)[0])
    os.remove(path)
    self.embed(media=self.media, clips_per_file=4)
    self.assert_same_files(self.out, whole)

  def test_rows_do_not_depend_on_the_workers(self):
    self.embed(media=self.media, num_workers=2)
    self.assert_same_files(self.out, self.plain)

  def test_changes_are_refused(self):
    media = self.create_tempdir().full_path
    shutil.copy(os.path.join(self.media, 'a.mp4'), media)
    saved = os.path.join(self.create_tempdir().full_path, 'saved')
    shutil.copytree(self.saved, saved)
    values = {'media': media, 'saved_model': saved}
    self.embed(**values)
    for change, message in (
      ({'clip_seconds': 1.0}, '`clip_seconds` was 0.8, and is 1.0'),
      ({'modalities': ('video',)}, "`modalities` was 'video,audio,text'"),
      ({'jpeg_quality': 50}, '`jpeg_quality` was 90, and is 50'),
      (
        {'media': '', 'records': str(tiny_vatt.RECORDS / 'train-*')},
        "`media` was '1 files .*`records` was None, and is '16 records ",
      ),
    ):
      with self.assertRaisesRegex(ValueError, message + '.*`overwrite`'):
        self.embed(**{**values, **change})
    # A batch size is no property of the rows.
    self.assertEqual(self.embed(**values, batch_size=3).num_resumed, 3)
    # Another model.
    version = os.path.join(saved, '2')
    shutil.copytree(os.path.join(saved, '1'), version)
    with open(model_lib.find_config(version), 'a') as file:
      file.write('# another')
    with self.assertRaisesRegex(ValueError, "`saved_model` was '1-.* is '2-"):
      self.embed(**values)
    shutil.copy(os.path.join(self.media, 'short.mp4'), media)
    version = os.path.join(saved, '1')
    with self.assertRaisesRegex(ValueError, "`media` was '1 files.* is '2 fil"):
      self.embed(**{**values, 'saved_model': version})
    result = self.embed(**values, overwrite=True)
    self.assertEqual((result.num_clips, result.num_resumed), (4, 0))
    self.assertStartsWith(result.model_version, '2-')

  def test_other_files_of_the_same_names_are_refused(self):
    folders = [self.create_tempdir().full_path for _ in range(2)]
    for folder, seconds in zip(folders, (0.5, 0.7)):
      sample_media.write(os.path.join(folder, 'a.mp4'), seconds)
    self.embed(media=folders[0])
    with self.assertRaisesRegex(
      ValueError,
      r"`media` was '1 files of \d+ bytes .*, and is '1 files of .*`overwrite`",
    ):
      self.embed(media=folders[1])
    # The same ones in another place.
    moved = os.path.join(folders[1], 'moved')
    shutil.move(folders[0], moved)
    self.assertEqual(self.embed(media=moved).num_resumed, 1)

  def test_other_files_of_a_manifest_are_refused(self):
    media = self.create_tempdir().full_path
    path = os.path.join(media, '.manifest.csv')
    with open(path, 'w', encoding='utf-8') as file:
      file.write('video_path\na.mp4\n')
    sample_media.write(os.path.join(media, 'a.mp4'), 0.5)
    self.embed(manifest=path)
    self.assertEqual(self.embed(manifest=path).num_resumed, 1)
    sample_media.write(os.path.join(media, 'a.mp4'), 0.7)
    with self.assertRaisesRegex(ValueError, "`manifest` was '1 rows of "):
      self.embed(manifest=path)

  def test_other_records_of_the_same_names_are_refused(self):
    path = self._write_records()
    self.embed(records=path)
    other = self._write_records(captions=[])
    self.assertEqual(os.path.basename(path), os.path.basename(other))
    with self.assertRaisesRegex(
      ValueError,
      r"`records` was '4 records of \d+ bytes .*, and is '4 records of ",
    ):
      self.embed(records=other)
    moved = os.path.join(
      self.create_tempdir().full_path, os.path.basename(path)
    )
    shutil.move(path, moved)
    self.assertEqual(self.embed(records=moved).num_resumed, 4)

  def test_a_run_in_progress_is_not_overwritten(self):
    media = self.create_tempdir().full_path
    for name in ('a.mp4', 'b.mp4'):
      sample_media.write(os.path.join(media, name), 0.5)
    self.embed(media=media, clips_per_file=1)
    before = self.files(self.out)
    self.assertLen(before, 4)  # Two parts in the two spaces of video.
    with contextlib.closing(journal_lib.Journal(self.out)):
      for overwrite in (False, True):
        with self.assertRaisesRegex(ValueError, 'Another process is writing'):
          self.embed(media=media, clips_per_file=1, overwrite=overwrite)
    self.assertEqual(self.files(self.out), before)
    result = self.embed(media=media, clips_per_file=1)
    self.assertEqual(result.num_resumed, 2)
    result = self.embed(media=media, overwrite=True)
    self.assertEqual((result.num_clips, result.num_resumed), (2, 0))
    self.assertLen(self.files(self.out), 2)
    self.assertEqual(self.embed(media=media).num_resumed, 2)

  def test_files_of_others_are_not_overwritten(self):
    media = os.path.join(self.media, 'short.mp4')
    self.embed(media=media)
    other = os.path.join(self.out, table.VIDEO_TEXT, 'other.parquet')
    with open(other, 'wb') as file:
      file.write(b'other')
    for overwrite in (True, False):
      with self.assertRaisesRegex(ValueError, 'already.*other.parquet'):
        self.embed(media=media, overwrite=overwrite)
    os.remove(other)
    self.assertEqual(self.embed(media=media).num_resumed, 0)

  def test_a_table_of_unknown_origin_is_kept(self):
    table.write_file(
      table.part_path(self.out, table.VIDEO_TEXT, 0),
      [],
      table.make_schema(table.VIDEO_TEXT, 6),
    )
    with self.assertRaisesRegex(ValueError, 'has embeddings already'):
      self.embed(media=self.media)
    self.assertEqual(len(self.files(self.out)), 1)

  @parameterized.parameters(
    (table, 'write_file'),
    (ingest_report, 'write_skip_report'),
    (ingest_journal.JsonLines, '_write'),
  )
  def test_full_disk(self, where, name):
    with mock.patch.object(
      where, name, side_effect=OSError(28, 'No space left on device')
    ):
      with self.assertRaisesRegex(
        OSError, f'^{self.out} cannot be written.*No space left.*to resume'
      ):
        self.embed(media=os.path.join(self.media, 'short.mp4'))

  def test_what_cannot_be_read_is_not_the_output(self):
    error = PermissionError(13, 'Permission denied', 'captions.json')
    with mock.patch.object(sources, 'plan_media', side_effect=error):
      with self.assertRaises(PermissionError) as raised:
        self.embed(media=self.media)
    self.assertEqual(raised.exception.filename, 'captions.json')

  def test_memory_runs_out(self):
    embedder = model_lib.Embedder(self.version, tiny_model.FORM)
    error = tf.errors.ResourceExhaustedError(None, None, 'OOM')
    functions = {'video': mock.Mock(side_effect=error)}
    with mock.patch.object(embedder, '_functions', functions):
      with self.assertRaisesRegex(ValueError, 'smaller `batch_size`'):
        embedder.embed([fake_clips.fake_clip(0, 8, num_samples=0)])

  @parameterized.parameters(
    ({}, 'One of `media`, `manifest` and `records` must be given.*none'),
    ({'media': '.', 'records': 'x'}, 'Received: media, records'),
    ({'media': '.', 'media_root': '.'}, '`media_root` goes with'),
    ({'media': '/nowhere/*.mp4'}, '`media` must be a folder, a media file'),
    ({'media': '.', 'modalities': ('image',)}, '`modalities` must be among'),
    ({'media': '.', 'clip_seconds': -1.0}, '`clip_seconds` must not be neg'),
    ({'media': '.', 'stride_seconds': 1.0}, '`stride_seconds` must be above 0'),
    ({'media': '.', 'stride_seconds': 0.0}, '`stride_seconds` must be above 0'),
    ({'media': '.', 'batch_size': 0}, '`batch_size` must be at least 1'),
    ({'media': '.', 'audio_rate': 0}, '`audio_rate` must be in'),
    ({'media': '.', 'jpeg_quality': 0}, '`jpeg_quality` must be in'),
    ({'media': '.', 'max_failed_share': 2.0}, '`max_failed_share` must be in'),
    ({'media': '.', 'saved_model': '/nowhere'}, '`saved_model` must be a fold'),
    ({'media': '.', 'output': 'gs://x/y'}, '`output` must be a folder of this'),
    ({'records': '/nowhere-*'}, '`records` .* must be a pattern'),
  )
  def test_wrong_arguments(self, values, message):
    with self.assertRaisesRegex(ValueError, message):
      self.embed(**values)

  def test_a_model_without_embeddings(self):
    path = os.path.join(self.create_tempdir().full_path, '1')
    module = tf.Module()
    module.f = tf.function(
      lambda x: {'x': x}, input_signature=[tf.TensorSpec([], tf.float32)]
    )
    tf.saved_model.save(module, path, signatures={'classify_video': module.f})
    with self.assertRaisesRegex(ValueError, '`saved_model` must have assets'):
      model_lib.find_config(path)
    shutil.copytree(
      os.path.join(self.version, 'assets.extra'),
      os.path.join(path, 'assets.extra'),
      dirs_exist_ok=True,
    )
    with self.assertRaisesRegex(
      ValueError, '`saved_model` must have a signature'
    ):
      self.embed(media=self.media, saved_model=path)

  def test_a_decoder_that_dies_takes_one_file_with_it(self):
    media = self.create_tempdir().full_path
    for name, seconds in (('a.mp4', 1.0), ('b.mp4', 1.0), ('c.mp4', 4.0)):
      sample_media.write(os.path.join(media, name), seconds)
    call, killed = worker._Process.call, []

    def killing(process, task):
      if task.path.endswith('b.mp4'):
        os.kill(process._process.pid, signal.SIGKILL)
        killed.append(task.path)
      return call(process, task)

    # Not cut: each file is opened once.
    values = {'media': media, 'num_workers': 1, 'clip_seconds': 0.0}
    with mock.patch.object(worker._Process, 'call', killing):
      result = self.embed(**values, max_failed_share=0.5)
    self.assertEqual(killed, [os.path.join(media, 'b.mp4')])
    self.assertEqual((result.num_clips, result.num_failed), (2, 1))
    with open(result.skip_report, encoding='utf-8') as file:
      [row] = csv.DictReader(file)
    self.assertEqual(row['file'], 'b.mp4')
    self.assertRegex(row['reason'], 'decoding process died .*SIGKILL')
    found = table.read(self.out, space=table.VIDEO_TEXT)
    self.assertEqual(list(found.path), ['a.mp4', 'c.mp4'])
    self.assertAllClose(found.clip_end, [1.0, 4.0], atol=0.05)


if __name__ == '__main__':
  tf.test.main()
