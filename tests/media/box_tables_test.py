"""Boxes in frames: their tables, and the records that hold them."""

import csv
import glob
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import shared_data
from vatt_tf.input_pipeline.records import reading, schema
from vatt_tf.media import box_tables, decoded_clip, errors, ingest
from vatt_tf.media.sample import rendering


def _clip(times, interval=100_000, size=(200.0, 100.0)):
  return decoded_clip.DecodedClip(
    0,
    1,
    frames=[b''] * len(times),
    shown=list(times),
    source_interval=interval,
    source_size=size,
  )


class BoxTableTest(parameterized.TestCase, tf.test.TestCase):
  def _table(self, text):
    path = self.create_tempfile('boxes.csv', text).full_path
    return box_tables.BoxTable(path)

  def test_pixels_by_frame(self):
    table = self._table(
      'video_path,frame,x,y,width,height\n'
      'a.mp4,0,20,10,40,20\na.mp4,2,0,0,100,50\na.mp4,2,150,90,100,50\n'
    )
    found = table.regions('a.mp4', _clip([0, 100_000, 200_000]))
    self.assertEqual(found[0], [schema.Region(0.1, 0.1, 0.3, 0.3)])
    self.assertEqual(found[1], [])
    self.assertEqual(
      found[2],
      [schema.Region(0, 0, 0.5, 0.5), schema.Region(0.75, 0.9, 1.0, 1.0)],
    )

  def test_shares_by_time_with_labels(self):
    table = self._table(
      'video_path,time,xmin,ymin,xmax,ymax,label,is_sounding\n'
      'x/a.mp4,0.5,0.1,0.2,0.3,0.4,dog,1\n'
      'x/a.mp4,0.25,0.5,0.2,0.7,0.4,cat,0\n'
      'x/a.mp4,0.25,0.5,0.2,0.7,0.4,,\n'
    )
    # By name, if the path is not in the table.
    found = table.regions('y/a.webm', _clip([240_000, 400_000, 510_000]))
    cat, nobody = found[0]
    self.assertEqual(cat, schema.Region(0.5, 0.2, 0.7, 0.4, 'cat', False))
    self.assertEqual(nobody.is_sounding, None)
    # 0.4 s is nearer to 0.5 s.
    dog = schema.Region(0.1, 0.2, 0.3, 0.4, 'dog', True)
    self.assertEqual(found[1:], [[dog], [dog]])

  def test_all_frames_without_a_time(self):
    table = self._table(
      'video_path,xmin,ymin,xmax,ymax\na.mp4,0,0,1,1\na.mp4,0,0,0.5,1\n'
    )
    found = table.regions('a.mp4', _clip([0, 100_000]))
    self.assertLen(found[0], 2)
    self.assertEqual(found[0], found[1])
    self.assertEqual(table.regions('b.mp4', _clip([0])), [])

  def test_vgg_ss(self):
    path = self.create_tempfile(
      'vggss.json',
      '[{"file": "-0x_000010", "class": "dog barking", '
      '"bbox": [[0.1, 0.2, 0.5, 0.6], [0.7, 0.0, 1.0, 0.3]]}]',
    ).full_path
    table = box_tables.BoxTable(path)
    found = table.regions('test/-0x_000010.mp4', _clip([0, 40_000]))
    self.assertEqual(
      found[1],
      [
        schema.Region(0.1, 0.2, 0.5, 0.6, 'dog barking', True),
        schema.Region(0.7, 0.0, 1.0, 0.3, 'dog barking', True),
      ],
    )
    self.assertEqual(table.regions('other.mp4', _clip([0])), [])
    for text in ('{"a": 1}', '[{"file": "a"}]', '[{"file": "a", "bbox": [1]}]'):
      path = self.create_tempfile('bad.json', text).full_path
      with self.assertRaisesRegex(errors.MediaError, 'as VGG-SS has it'):
        box_tables.BoxTable(path)

  def test_flickr_soundnet(self):
    folder = self.create_tempdir().full_path
    with self.assertRaisesRegex(errors.MediaError, 'without boxes'):
      box_tables.BoxTable(folder)
    box = (
      '<object><bbox><pos>1</pos><xmin>64</xmin><ymin>0</ymin>'
      '<xmax>128</xmax><ymax>{}</ymax></bbox></object>'
    )
    with open(f'{folder}/12.xml', 'w', encoding='utf-8') as file:
      file.write(f'<annotation>{box.format(256)}{box.format(192)}</annotation>')
    table = box_tables.BoxTable(folder)
    (found,) = table.regions('12.jpg', _clip([0]))
    self.assertEqual(
      found,
      [
        schema.Region(0.25, 0.0, 0.5, 1.0, '', True),
        schema.Region(0.25, 0.0, 0.5, 0.75, '', True),
      ],
    )
    with open(f'{folder}/13.xml', 'w', encoding='utf-8') as file:
      file.write('<annotation>')
    with self.assertRaisesRegex(errors.MediaError, '13.xml cannot be read'):
      box_tables.BoxTable(folder)

  @parameterized.parameters(
    ('video_path,x,y\na,1,2\n', 'must have the column'),
    ('path,x,y,width,height\na,1,2,3,4\n', 'must have the column'),
    ('video_path,frame,time,x,y,width,height\n', 'exclude each other'),
    ('video_path,x,y,width,height\na,1,2,0,4\n', 'line 2: the box is empty'),
    ('video_path,x,y,width,height\na,1,2,q,4\n', "line 2: .*width='q'"),
    ('video_path,x,y,width,height\na,1,2,nan,4\n', "width='nan'"),
    (
      'video_path,x,y,width,height,is_sounding\na,1,2,3,4,yes\n',
      "is_sounding='yes'",
    ),
  )
  def test_errors(self, text, message):
    with self.assertRaisesRegex(errors.MediaError, message):
      self._table(text)


class RecordsTest(tf.test.TestCase):
  def _ingest(self, **arguments):
    out = self.create_tempdir().full_path
    ingest.ingest(out, num_workers=0, show_progress=False, **arguments)
    paths = sorted(glob.glob(f'{out}/train-*.tfrecord'))
    return [clip for path in paths for clip in reading.read_shard(path)]

  def test_sample_clips(self):
    media = self.create_tempdir().full_path
    rendering.write_sample_media(
      media,
      num_workers=1,
      num_train=4,
      num_validation=0,
      distractor_share=1.0,
      duration=1.0,
    )
    clips = self._ingest(
      manifest_path=f'{media}/train.csv', boxes=f'{media}/train_boxes.csv'
    )
    self.assertLen(clips, 4)
    with open(f'{media}/train_boxes.csv', encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
    for clip in clips:
      self.assertLen(clip.regions, len(clip.frames))
      # Frame i, at i / 10 s, shows frame 1.2 i of the file.
      for i in (0, 5):
        expected = [
          tuple(float(row[edge]) for edge in ('xmin', 'ymin', 'xmax', 'ymax'))
          for row in rows
          if row['video_path'] == clip.data_path
          and int(row['frame']) == round(1.2 * i)
        ]
        found = [
          (box.xmin, box.ymin, box.xmax, box.ymax) for box in clip.regions[i]
        ]
        self.assertAllClose(found, expected, atol=1e-6)
      sounding = [box for boxes in clip.regions for box in boxes]
      self.assertLen({box.label for box in sounding if box.is_sounding}, 1)

  def test_drone_videos(self):
    folder = shared_data.path('media/drone')
    path = os.path.join(self.create_tempdir().full_path, 'one.csv')
    with open(path, 'w', encoding='utf-8') as file:
      file.write('video_path,end\nIR_AIRPLANE_001.mp4,3\n')
    (clip,) = self._ingest(
      manifest_path=path,
      media_root=str(folder),
      boxes=f'{folder}/boxes.csv',
    )
    self.assertLen(clip.regions, 30)
    # Its frame 3, which the record's frame 1 shows, at 320 x 256 pixels.
    with open(f'{folder}/boxes.csv', encoding='utf-8') as file:
      row = next(
        row
        for row in csv.DictReader(file)
        if row['video_path'] == clip.data_path and row['frame'] == '3'
      )
    (box,) = clip.regions[1]
    x, y, width, height = (
      float(row[name]) for name in ('x', 'y', 'width', 'height')
    )
    edges = np.array([box.xmin, box.ymin, box.xmax, box.ymax])
    self.assertAllClose(
      edges * np.array([320, 256, 320, 256]),
      [x, y, x + width, y + height],
      atol=1e-3,
    )


if __name__ == '__main__':
  tf.test.main()
