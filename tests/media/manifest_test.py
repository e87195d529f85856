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
    ('path,caption\na,b\n', r'`video_path` or.*is it `path`\? Valid columns'),
    ('a.mp4,0,3\n', r'needs a header.*Received: a.mp4, 0, 3'),
    ('video_path,x\na,b\n', r'a column `x`.*--ignore_columns=x\. Valid'),
    (
      'video_path,"x, ""y"""\na,b\n',
      r"""it out with '--ignore_columns="x, ""y""\"'\. Valid""",
    ),
    ('video_path,captions\na,b\n', r'`captions`: is it `caption`\?'),
    ('label\na\n', r'`video_path` or `audio_path`: Valid columns'),
    ('video_path,video_path\na,b\n', 'a column twice'),
    ('video_path\n', 'has a header but no rows'),
    ('video_path,start\na,soon\n', r"line 2: `start`.*Received: start='soon'"),
    ('video_path,start\na,-1\n', r"line 2: `start`.*Received: start='-1'"),
    ('video_path,start\na,inf\n', 'line 2: `start`'),
    ('video_path,end\na,1e305\n', r"line 2: `end`.*Received: end='1e305'"),
    ('video_path,"x\ny\u2028z"\na,b\n', r'^[^\n]* column `x y z`[^\n\u2028]*$'),
    (f'video_path,start\na,{"1" * 5000}:00:00\n', 'line 2: `start`'),
    ('video_path,start,end\na,3,2\n', 'line 2: `end` must be after `start`'),
    ('video_path,caption\na,b\na,one, two\n', 'line 3: expected 2 cells.*: 3'),
    ('video_path,caption\na\n', 'line 2: expected 2 cells.*Received: 1'),
    ('video_path,caption\n,x\n', 'line 2: `video_path` or `audio_path` must'),
    ('video_path;caption\na;b, c\n', 'separated by `;`: save it with commas'),
    ('video_path\tcaption\na\tb\n', 'separated by tabs: save it with commas'),
    ('label|"video_path"\nx|b\n', r'separated by `\|`: save it with commas'),
    ('video_path caption\na b\n', 'separated by spaces: save it with commas'),
    ('video_path，caption\na，b\n', 'separated by `，`: save it with commas'),
    ('my caption\nb\n', 'needs a header'),
    ('sep=;\nvideo_path;caption\na;b\n', 'separated by `;`'),
    ('video_path,caption\na,"x"y\n', 'line 2, is not csv.*twice'),
    (
      'video_path,caption\na,fine\na,"he said "hi" to me"\n',
      r'line 3, is not csv: a cell begins there with a double quote',
    ),
    ('video_path,caption\na,b\nc,"d\ne,f\ng,h\n', 'line 3, is not csv'),
    ('video_path,caption\n\na,"1\n2"\nc,"d\ne,"f"\n', 'line 5, is not csv'),
    ('video_path,label,caption\na,"1\n""2","d\n', 'line 3, is not csv'),
    ('video_path,fold\na,1\nb,../x\n', "line 3: `fold`.*Received: '../x'"),
    ('video_path,splits\na,a b\n', "line 2: `splits`.*Received: 'a b'"),
  )
  def test_bad_manifests(self, text, message):
    with self.assertRaisesRegex(errors.MediaError, message):
      self.read(text)

  @parameterized.parameters(';', '\t', '|')
  def test_quoted_cells_with_another_delimiter(self, delimiter):
    cells = (('"video_path"', '"caption"'), ('"a.mp4"', '"one, two"'))
    text = ''.join(delimiter.join(row) + '\n' for row in cells)
    path = os.path.join(self.create_tempdir().full_path, 'm.csv')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
    with self.assertRaisesRegex(errors.MediaError, 'are separated by'):
      manifest.read_manifest(path)

  @parameterized.parameters(
    ',video_path,caption\n0,a.mp4,a dog\n',
    'Unnamed: 0,,video_path,caption\n0,7,a.mp4,a dog\n',
    'video_path,,caption\na.mp4,0,a dog\n',
    'video_path,caption,\na.mp4,a dog,\n',
    ' video_path , caption\na.mp4,a dog\n',
    '\ufeff"video_path","caption"\r\r\n"a.mp4","a dog"\r\r\n',
    'sep=,\nvideo_path,caption\na.mp4,a dog\n',
    ',\n,,\nvideo_path,caption\n,\na.mp4,a dog\n,,,\n , \n',
    'video_path,caption\na.mp4,a dog,,,\n',
  )
  def test_what_spreadsheets_and_pandas_add(self, text):
    for ignored in ((), ('',)):
      self.assertEqual(
        self.read(text, ignore_columns=ignored),
        [manifest.Segment('a.mp4', captions=('a dog',))],
      )

  def test_cells_that_stand_for_no_value(self):
    for cell in ('nan', 'NaN', 'None', 'null', 'NULL', '<NA>', 'NaT', 'N/A'):
      self.assertEqual(
        self.read(
          'video_path,audio_path,start,end,label,caption,splits,fold\n'
          f'a.mp4,{cell},{cell},{cell},{cell},{cell},{cell},{cell}\n'
          f'a.mp4,,,,dog|{cell},,,\n'
        ),
        [manifest.Segment('a.mp4', labels=('dog',))],
      )
    texts = ('none of them', 'None.', 'nan bread', 'null set', 'none', 'NA')
    rows = ''.join(f'a.mp4,{text}\n' for text in texts)
    (segment,) = self.read('video_path,caption\n' + rows)
    self.assertEqual(segment.captions, texts)

  def test_one_form_of_labels_and_captions(self):
    self.assertEqual(
      self.read(
        'video_path,label,caption\n'
        'a.mp4,café|cafe\u0301,le chat\u202f: noir\n'
        'a.mp4,\u200ecafé\u200f|ca\u00adfé,le chat : noir\n'
        'a.mp4,\ufb01re|fire|ｆｉｒｅ,\u200e…½\n'
      ),
      [
        manifest.Segment(
          'a.mp4', labels=('café', 'fire'), captions=('le chat : noir', '…½')
        )
      ],
    )

  def test_captions_alone(self):
    path = os.path.join(self.create_tempdir().full_path, 'm.csv')

    def read(text, **arguments):
      return manifest.read_captions(path, data=text.encode(), **arguments)

    self.assertEqual(
      read('video_path, caption,x\na,one\x0btwo,1\na,one two,1\nb,one two,2\n'),
      ['one two', 'one two'],
    )
    self.assertEqual(read('n,caption\n1,a\n2,a\n3,\n,\n4,nan\n'), ['a', 'a'])
    for text in ('video_path,text\na,b\n', 'video_path,captions\na,b\n'):
      with self.assertRaisesRegex(errors.MediaError, '`caption`.*video_path, '):
        read(text)
    text = 'video_path,start,caption\na,x,b\n'
    with self.assertRaisesRegex(errors.MediaError, 'line 2: `start`'):
      read(text)
    self.assertEqual(read(text, ignore_columns=['start']), ['b'])
    self.assertEqual(
      manifest.read_captions(path, 'cp1252', data=b'caption\n\xe9\n'), ['é']
    )

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
    segments = manifest.read_manifest(str(path))
    self.assertLen(segments, 320)
    self.assertEqual(segments[0].labels, ('Dog bark',))
    self.assertEqual(
      segments[0].splits, ('test_1', 'train_2', 'train_3', 'train_4')
    )
    for name, count in (('test_1', 80), ('train_1', 240)):
      self.assertEqual(sum(name in one.splits for one in segments), count)
    segments = manifest.read_manifest(str(path), ignore_columns=['fold'])
    self.assertEqual(segments[0].splits, ())

  def test_splits_and_folds(self):
    segments = self.read(
      'video_path,splits,fold\na.mp4,train_1|test_2,\nb.mp4,extra,1\n'
      'c.mp4,,x\na.mp4,more | test_2,\nd.mp4,,\n'
    )
    self.assertEqual(
      {one.path: one.splits for one in segments},
      {
        'a.mp4': ('train_1', 'test_2', 'more'),
        'b.mp4': ('extra', 'test_1', 'train_x'),
        'c.mp4': ('test_x', 'train_1'),
        'd.mp4': (),
      },
    )

  def test_what_is_written_reads_as_the_same(self):
    path = os.path.join(self.create_tempdir().full_path, 'm.csv')
    segments = [
      manifest.Segment(
        'a, b.mp4',
        'c.wav',
        1_500_001,
        62_000_000,
        ('Male speech, man speaking', 'dog'),
        ('one, "two"', 'three'),
        ('train_1', 'test_2'),
      ),
      manifest.Segment(audio_path='d.wav', end=10_000_000),
      manifest.Segment('e.mp4', captions=('four',)),
    ]
    manifest.write_manifest(path, segments)
    self.assertEqual(manifest.read_manifest(path), segments)
    with self.assertRaisesRegex(ValueError, r"must not hold `\|`.*'a\|b'"):
      manifest.write_manifest(path, [manifest.Segment('x', labels=('a|b',))])
    for name in (' x.mp4', 'x.mp4 ', 'nan'):
      for segment in (
        manifest.Segment(name),
        manifest.Segment('x', audio_path=name),
      ):
        with self.assertRaisesRegex(ValueError, f"path.*Received: '{name}'"):
          manifest.write_manifest(path, [segment])
    # What was there stays.
    self.assertEqual(manifest.read_manifest(path), segments)

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
