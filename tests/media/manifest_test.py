"""Manifests: columns, grouping, and what is wrong with them."""

import os

from absl.testing import parameterized
import tensorflow as tf

from tests import shared_data
from vatt_tf.media import errors, manifest


class ManifestTest(parameterized.TestCase, tf.test.TestCase):
  def read(self, text, encoding='', ignore_columns=(), data=None):
    path = os.path.join(self.create_tempdir().full_path, 'm.csv')
    with open(path, 'wb') as file:
      file.write(text.encode('utf-8') if data is None else data)
    return manifest.read_manifest(path, encoding, ignore_columns)

  def test_rows_of_one_clip_are_joined(self):
    segments = self.read(
      'video_path,start,end,label,caption\n'
      'a.mp4,0,3.5,dog|barking,a dog  barks\n'
      'b.mp4,00:01:00,1:02.5,,\n'
      'a.mp4,0.0,3.5,dog | small,"a small dog, again"\n'
      'a.mp4,3.5,,,\n'
    )
    self.assertEqual(
      segments,
      [
        manifest.Segment(
          'a.mp4',
          end=3_500_000,
          labels=('dog', 'barking', 'small'),
          captions=('a dog barks', 'a small dog, again'),
        ),
        manifest.Segment('b.mp4', start=60_000_000, end=62_500_000),
        manifest.Segment('a.mp4', start=3_500_000),
      ],
    )

  def test_only_a_path_is_needed(self):
    self.assertEqual(
      self.read('video_path\na.mp4\n'), [manifest.Segment('a.mp4')]
    )
    self.assertEqual(
      self.read('audio_path,label\na.wav,x\n'),
      [manifest.Segment(audio_path='a.wav', labels=('x',))],
    )
    self.assertEqual(
      self.read('\ufeffvideo_path,audio_path\r\na.mp4,b.wav\r\n')[0].audio_path,
      'b.wav',
    )

  @parameterized.parameters(
    ('', r'needs a header.*Valid columns: video_path.*Received: an empty file'),
    ('path,caption\na,b\n', r'a column `path`.*--ignore_columns=path.*Valid'),
    ('video_path,captions\na,b\n', r'`captions`: is it `caption`\?'),
    ('label\na\n', r'`video_path` or `audio_path`. Valid columns'),
    ('video_path,video_path\na,b\n', 'a column twice'),
    ('video_path\n', 'has a header but no rows'),
    ('video_path,start\na,soon\n', r"line 2: `start`.*Received: start='soon'"),
    ('video_path,start\na,-1\n', r"line 2: `start`.*Received: start='-1'"),
    ('video_path,start\na,nan\n', 'line 2: `start`'),
    ('video_path,start,end\na,3,2\n', 'line 2: `end` must be after `start`'),
    ('video_path,caption\na,b\na,one, two\n', 'line 3: expected 2 cells.*: 3'),
    ('video_path,caption\na\n', 'line 2: expected 2 cells.*Received: 1'),
    ('video_path,caption\n,x\n', 'line 2: `video_path` or `audio_path` must'),
    ('video_path,caption\na,"x"y\n', 'is not csv'),
  )
  def test_bad_manifests(self, text, message):
    with self.assertRaisesRegex(errors.MediaError, message):
      self.read(text)

  def test_encoding(self):
    data = 'video_path,caption\na.mp4,café\n'.encode('cp1252')
    with self.assertRaisesRegex(
      errors.MediaError, r'byte 0xe9 at position 28 \(line 2\).*--manifest_enc'
    ):
      self.read('', data=data)
    self.assertEqual(
      self.read('', encoding='cp1252', data=data)[0].captions, ('café',)
    )

  def test_shared_manifests(self):
    path = shared_data.path('media', 'grid', 'manifest.csv')
    self.assertLen(manifest.read_manifest(str(path)), 799)
    path = shared_data.path('media', 'esc10', 'manifest.csv')
    with self.assertRaisesRegex(errors.MediaError, '--ignore_columns=fold'):
      manifest.read_manifest(str(path))
    segments = manifest.read_manifest(str(path), ignore_columns=['fold'])
    self.assertLen(segments, 320)
    self.assertEqual(segments[0].labels, ('Dog bark',))

  def test_folder(self):
    root = self.create_tempdir()
    for name in ('b.mp4', 'sub/a.mp4', 'sub/a.srt', '.hidden', '.git/x'):
      root.create_file(name)
    self.assertEqual(
      [one.path for one in manifest.scan_folder(root.full_path)],
      ['b.mp4', 'sub/a.mp4', 'sub/a.srt'],
    )


if __name__ == '__main__':
  tf.test.main()
