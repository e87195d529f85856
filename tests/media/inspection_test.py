"""Inspection: what it says of good, odd and faulty records."""

import os

import cv2
import numpy as np
import tensorflow as tf

from tests import fake_clips
from vatt_tf.input_pipeline.records import reading, schema, writing
from vatt_tf.media import contact_sheet, inspection


class InspectionTest(tf.test.TestCase):
  def report(self, clip, change=None):
    example = writing.make_sequence_example(clip)
    if change:
      change(example)
    return inspection.report_record('shard', example.SerializeToString())

  def test_report(self):
    clip = fake_clips.fake_clip(seed=3, height=48, width=64, num_frames=10)
    report = self.report(clip)
    self.assertEqual(report.example_id, 'fake-000003')
    self.assertEqual((report.width, report.height), (64, 48))
    self.assertEqual((report.num_frames, report.frame_rate), (10, 10.0))
    self.assertEqual((report.num_samples, report.sample_rate), (48000, 48000))
    self.assertAlmostEqual(report.peak, 0.5, places=2)
    self.assertAlmostEqual(report.level, -9, delta=0.1)
    self.assertEqual(report.captions[0], (0.0, 0.5, 'clip 3 says word0'))
    self.assertEqual(report.labels, [(3, 'class 3')])
    self.assertEmpty(report.layout)
    self.assertEmpty(report.faults)

  def test_other_layouts(self):
    def rename(example):
      lists = example.feature_lists.feature_list
      lists['waveform/floats'].CopyFrom(lists['WAVEFORM/feature/floats'])
      del lists['WAVEFORM/feature/floats']
      frames = [
        step.bytes_list.value[0] for step in lists['image/encoded'].feature
      ]
      del lists['image/encoded']
      packed = example.context.feature['image/encoded']
      packed.bytes_list.value.extend(frames)
      example.context.feature['extra'].int64_list.value.append(1)

    clip = fake_clips.fake_clip(height=48, width=64, num_frames=4)
    report = self.report(clip, rename)
    self.assertEqual(
      report.layout,
      [
        '`image/encoded` is packed in one feature of the context',
        '`waveform/floats` stands for `WAVEFORM/feature/floats`',
        '`extra` is not read',
      ],
    )
    self.assertEqual(report.num_frames, 4)

  def test_what_is_no_record_is_a_fault(self):
    record = b'\x07 no record'
    report = inspection.report_record('shard', record)
    self.assertLen(report.faults, 1)
    self.assertIn('not a tf.train.SequenceExample', report.faults[0])
    self.assertIn(report.faults[0], inspection.describe(['a'], 1, [report]))
    path = os.path.join(self.create_tempdir().full_path, 'sheet.png')
    contact_sheet.draw_contact_sheet(path, [report], [record])
    self.assertTrue(os.path.getsize(path))

  def test_faults(self):
    clip = fake_clips.fake_clip(height=48, width=64, num_frames=4)
    clip.frames[2] = b'no picture'
    clip.height = 50
    faults = self.report(clip).faults
    self.assertIn('1 of 4 frames cannot be decoded, the first is', faults[0])
    self.assertIn('it says that frames are 64x50', faults[1])

    def spoil(example):
      step = example.feature_lists.feature_list['WAVEFORM/feature/floats']
      step.feature[0].float_list.value[5] = float('nan')

    report = self.report(
      fake_clips.fake_clip(num_frames=0, num_samples=10), spoil
    )
    self.assertIn('not finite', report.faults[0])
    report = self.report(schema.Clip(example_id='nothing'))
    self.assertEqual(report.faults, ['no video, no sound and no captions'])

  def test_words(self):
    clips = [
      fake_clips.fake_clip(0, height=48, width=64, num_frames=10),
      fake_clips.fake_clip(1, num_frames=0, num_samples=4800, num_captions=0),
      schema.Clip(example_id='silent', waveform=np.zeros([10], np.float32),
                   sample_rate=16000.0),
    ]  # fmt: skip
    reports = [self.report(clip) for clip in clips]
    text = inspection.describe(['a', 'b'], 30, reports)
    self.assertIn('2 shards, 30 records; 3 of them inspected.', text)
    self.assertIn('Video: 1 of 3 records, 10 frames at 10 per second', text)
    self.assertIn('64x48 (width x height)', text)
    self.assertIn('Sound: 3 of 3 records, 16000 to 48000 samples', text)
    self.assertIn('1 without a level (silent or faulty)', text)
    self.assertIn('Captions: 1 of 3 records, 2 each.', text)
    self.assertIn('Labels: 2 of 3 records, class 0, class 1.', text)
    self.assertIn('fake-000000: 1.00 s; 10 frames 64x48 at 10/s', text)
    self.assertNotIn('fault:', text)

  def test_boxes(self):
    clip = fake_clips.fake_clip(height=48, width=64, num_frames=3)
    dog = schema.Region(0, 0, 0.5, 0.5, 'dog', True)
    cat = schema.Region(0.5, 0, 1, 1, 'cat', False)
    clip.regions = [[dog, cat], [], [cat]]
    other = fake_clips.fake_clip(1, height=48, width=64, num_frames=3)
    reports = [self.report(clip), self.report(other)]
    self.assertEqual(reports[0].num_boxes, 3)
    self.assertIsNone(reports[1].num_boxes)
    text = inspection.describe(['a'], 2, reports)
    self.assertIn('Boxes: 1 of 2 records, 3 in all frames, of cat, dog.', text)
    self.assertIn('; 3 boxes; class', text)

    def remove(example):
      for key, steps in example.feature_lists.feature_list.items():
        if key.startswith('region/'):
          del steps.feature[2:]

    faults = self.report(clip, remove).faults
    self.assertEqual(faults, ['boxes of 2 frames, and 3 frames'])

  def test_contact_sheet(self):
    clips = [
      fake_clips.fake_clip(0, height=48, width=64, num_frames=10),
      fake_clips.fake_clip(1, num_frames=0, num_samples=4800, num_captions=9),
      schema.Clip(example_id='nothing'),
    ]
    clips[0].frames[4] = b'damaged'
    clips[0].regions = [[schema.Region(0.25, 0.25, 0.75, 0.75)]] * 10
    serialized = [writing.serialize_clip(clip) for clip in clips]
    reports = [inspection.report_record('s', one) for one in serialized]
    path = os.path.join(self.create_tempdir().full_path, 'sheet.png')
    contact_sheet.draw_contact_sheet(path, reports, serialized)
    image = cv2.imread(path)
    self.assertEqual(image.shape[1], 1200)
    self.assertGreater(image.shape[0], 400)
    # Not an empty page.
    self.assertGreater(image.std(), 10)

  def test_records_are_taken_from_all_shards(self):
    folder = self.create_tempdir().full_path
    paths = [os.path.join(folder, name) for name in 'abc']
    for path, count in zip(paths, (1, 4, 0)):
      with writing.ShardWriter(path) as writer:
        for i in range(count):
          writer.write(schema.Clip(example_id=f'{path[-1]}{i}'))
    found = inspection.read_some(paths, 4)
    ids = [reading.read_clip(record).example_id for _, record in found]
    self.assertEqual(ids, ['a0', 'b0', 'b1', 'b2'])
    self.assertLen(inspection.read_some(paths, 100), 5)
    self.assertEmpty(inspection.read_some(paths[2:], 100))


if __name__ == '__main__':
  tf.test.main()
