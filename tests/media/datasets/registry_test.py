"""Readers of official lists: layouts, names of files, lists of others."""

import dataclasses
import json
import os

from absl.testing import parameterized
import tensorflow as tf

from tests import shared_data
from vatt_tf.media import errors, manifest
from vatt_tf.media.datasets import registry

_KINETICS = (
  'label,youtube_id,time_start,time_end,split,is_cc\n'
  'testifying,---QUuC4vJs,84,94,train,0\n'
  'eating spaghetti,--3ouPhoy2A,20,30,train,0\n'
  'dribbling basketball,--4-0ihtnBU,58,68,train,0\n'
)
_AUDIOSET_CLASSES = (
  'index,mid,display_name\n'
  '0,/m/09x0r,"Speech"\n'
  '1,/m/05zppz,"Male speech, man speaking"\n'
  '2,/t/dd00088,"Gush"\n'
)
_AUDIOSET = (
  '# Segments csv created Sun Mar  5 10:54:31 2017\n'
  '# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4\n'
  '# YTID, start_seconds, end_seconds, positive_labels\n'
  '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
  '--ZhevVpy1s, 50.000, 60.000, "/m/05zppz"\n'
  '-05e90z0, 0.000, 6.500, "/t/dd00088"\n'
)
_UCF_CLASSES = '1 ApplyEyeMakeup\n2 HandstandPushups\n'
_MSRVTT = {
  'info': {'contributor': 'Microsoft Research'},
  'videos': [
    {
      'category': 9,
      'url': 'https://www.youtube.com/watch?v=9lZi22qLlEo',
      'video_id': f'video{i}',
      'start time': 137.72,
      'end time': 149.44,
      'split': split,
      'id': i,
    }
    for i, split in ((0, 'train'), (1, 'train'), (2, 'validate'))
  ],
  'sentences': [
    {'caption': 'a car is shown', 'video_id': 'video0', 'sen_id': 0},
    {'caption': 'a man  drives', 'video_id': 'video0', 'sen_id': 1},
    {'caption': 'a cat', 'video_id': 'video2', 'sen_id': 2},
    {'caption': 'a dog', 'video_id': 'video1', 'sen_id': 3},
  ],
}


class RegistryTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.lists = self.create_tempdir('lists')
    self.media = self.create_tempdir('media')

  def read(self, dataset, split='', lists=None, media=(), **kwargs):
    """Reads lists {name: text} with empty media files of some names."""
    for name, text in (lists or {}).items():
      self.lists.create_file(name, content=text)
    for name in media:
      self.media.create_file(name)
    return registry.read(
      dataset, self.lists.full_path, self.media.full_path, split, **kwargs
    )

  @parameterized.named_parameters(
    ('deepmind', 'train/testifying/{}', 'mkv'), ('cvdf', 'train/{}', 'mp4')
  )
  def test_kinetics_clips(self, form, extension):
    found = self.read(
      'kinetics400',
      'train',
      {'train.csv': _KINETICS},
      [form.format('---QUuC4vJs_000084_000094') + f'.{extension}'],
    )
    self.assertEqual(
      found.segments[0],
      manifest.Segment(
        form.format('---QUuC4vJs_000084_000094') + f'.{extension}',
        labels=('testifying',),
      ),
    )
    self.assertEqual(found.missing, {'--3ouPhoy2A.mp4', '--4-0ihtnBU.mp4'})
    self.assertEqual(
      found.label_names,
      ['dribbling basketball', 'eating spaghetti', 'testifying'],
    )

  def test_kinetics_whole_videos_and_classes_of_the_training_list(self):
    lists = {
      'train.csv': _KINETICS,
      'annotations/validate.csv': (
        'label,youtube_id,time_start,time_end,split\n'
        'testifying,abc,5,15,validate\n'
      ),
      'test.csv': 'youtube_id,time_start,time_end,split\nabc,5,15,test\n',
    }
    media = ['abc.webm', 'abc.webm.part', 'abc.txt']
    found = self.read('kinetics600', 'validation', lists, media)
    expected = manifest.Segment('abc.webm', '', 5_000_000, 15_000_000)
    self.assertEqual(
      found.segments,
      [dataclasses.replace(expected, labels=('testifying',))],
    )
    self.assertLen(found.label_names, 3)
    found = self.read('kinetics600', 'validation', is_cut=True)
    self.assertEqual(
      (found.segments[0].start, found.segments[0].end), (0, None)
    )
    found = self.read('kinetics600', 'test')
    self.assertEqual(found.segments, [expected])
    self.assertLen(found.label_names, 3)

  def test_more_classes_than_the_data_set_has(self):
    rows = [f'class {i},v{i},0,10,train\n' for i in range(401)]
    text = 'label,youtube_id,time_start,time_end,split\n' + ''.join(rows)
    lists = {'train.csv': text}
    with self.assertRaisesRegex(
      errors.MediaError, '401 classes.*Kinetics-400 has 400.*another data set'
    ):
      self.read('kinetics400', 'train', lists, ['v1.mp4'])
    self.assertEqual(len(self.read('kinetics600', 'train').segments), 401)

  def test_audioset(self):
    lists = {
      'class_labels_indices.csv': _AUDIOSET_CLASSES,
      'eval_segments.csv': _AUDIOSET,
    }
    media = ['a/--PJHxphWEs.mp4', 'Y--ZhevVpy1s.wav', '-05e90z0_0_6500.flac']
    found = self.read('audioset', 'evaluation', lists, media)
    self.assertEqual(
      found.segments,
      [
        manifest.Segment(
          'a/--PJHxphWEs.mp4',
          start=30_000_000,
          end=40_000_000,
          labels=('Speech', 'Gush'),
        ),
        manifest.Segment(
          audio_path='Y--ZhevVpy1s.wav', labels=('Male speech, man speaking',)
        ),
        manifest.Segment(audio_path='-05e90z0_0_6500.flac', labels=('Gush',)),
      ],
    )
    self.assertEqual(
      found.label_names, ['Speech', 'Male speech, man speaking', 'Gush']
    )
    self.assertEmpty(found.missing)
    found = self.read('audioset', 'evaluation', is_cut=True)
    self.assertEqual(found.segments[0].end, None)
    lists['eval_segments.csv'] += 'x, 0.0, 10.0, "/m/unknown"\n'
    with self.assertRaisesRegex(errors.MediaError, 'line 7: expected YTID'):
      self.read('audioset', 'evaluation', lists)

  def test_moments_in_time(self):
    lists = {
      'moments_categories.txt': 'clapping,1\nbaking,0\n',
      'trainingSet.csv': (
        'baking/yt-1_2.mp4,baking,4,1\nclapping/yt-1_2.mp4,clapping,3,0\n'
      ),
      'validationSet.csv': 'yt-1_2.mp4,clapping,3,0\n',
    }
    media = ['training/baking/yt-1_2.mp4', 'training/clapping/yt-1_2.mp4']
    found = self.read('moments_in_time', 'train', lists, media)
    self.assertEqual(found.label_names, ['baking', 'clapping'])
    self.assertEqual([one.path for one in found.segments], media)
    self.assertEqual(found.segments[1].labels, ('clapping',))
    found = self.read('moments_in_time', 'validation')
    self.assertEqual(found.segments[0].path, media[1])
    lists['trainingSet.csv'] = _KINETICS
    with self.assertRaisesRegex(errors.MediaError, 'line 1: expected `file,'):
      self.read('moments_in_time', 'train', lists)

  def test_ucf101(self):
    a, b = 'v_ApplyEyeMakeup_g08_c01', 'v_HandStandPushups_g01_c01'
    lists = {
      'ucfTrainTestlist/classInd.txt': _UCF_CLASSES.replace('\n', '\r\n'),
      'ucfTrainTestlist/trainlist01.txt': f'ApplyEyeMakeup/{a}.avi 1\r\n',
      'ucfTrainTestlist/testlist01.txt': f'HandstandPushups/{b}.avi\n',
      'ucfTrainTestlist/trainlist02.txt': f'HandstandPushups/{b}.avi 2\n',
    }
    media = [f'UCF-101/ApplyEyeMakeup/{a}.avi', f'HandstandPushups/{b}.avi']
    found = self.read('ucf101', '', lists, media)
    self.assertEqual(
      found.segments,
      [
        manifest.Segment(
          media[0], labels=('ApplyEyeMakeup',), splits=('train_1',)
        ),
        manifest.Segment(
          media[1], labels=('HandstandPushups',), splits=('train_2', 'test_1')
        ),
      ],
    )
    self.assertEqual(found.label_names, ['ApplyEyeMakeup', 'HandstandPushups'])

  def test_hmdb51(self):
    lists = {
      'splits/wave_test_split1.txt': '#20_a_np1.avi 1 \nb!.avi 2 \nc.avi 0 \n',
      'splits/wave_test_split2.txt': '#20_a_np1.avi 2 \nb!.avi 1 \nc.avi 1 \n',
      'splits/brush_hair_test_split1.txt': 'c.avi 1 \n',
    }
    media = [
      'wave/#20_a_np1.avi',
      'wave/b!.avi',
      'wave/c.avi',
      'brush_hair/c.avi',
    ]
    found = self.read('hmdb51', '', lists, media)
    self.assertEqual(found.label_names, ['brush_hair', 'wave'])
    self.assertEqual(
      {one.path: one.splits for one in found.segments},
      {
        'wave/#20_a_np1.avi': ('train_1', 'test_2'),
        'wave/b!.avi': ('test_1', 'train_2'),
        'wave/c.avi': ('train_2',),
        'brush_hair/c.avi': ('train_1',),
      },
    )
    self.lists.create_file('splits/wave_test_split3.txt', content='a.avi 7\n')
    with self.assertRaisesRegex(errors.MediaError, '0, 1 or 2.*a.avi 7'):
      self.read('hmdb51')

  def test_esc(self):
    text = (
      'filename,fold,target,category,esc10,src_file,take\n'
      '1-100032-A-0.wav,1,0,dog,True,100032,A\n'
      '1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n'
      '2-100210-A-36.wav,2,36,vacuum_cleaner,False,100210,A\n'
      '3-100210-B-10.wav,3,10,rain,True,100210,B\n'
    )
    media = [f'audio/{line.split(",")[0]}' for line in text.splitlines()[1:]]
    found = self.read('esc50', '', {'meta/esc50.csv': text}, media)
    self.assertEqual(
      found.label_names, ['dog', 'rain', 'chirping_birds', 'vacuum_cleaner']
    )
    self.assertEqual(
      found.segments[2],
      manifest.Segment(
        audio_path='audio/2-100210-A-36.wav',
        labels=('vacuum_cleaner',),
        splits=('test_2', 'train_1', 'train_3'),
      ),
    )
    found = self.read('esc10')
    self.assertEqual(found.label_names, ['dog', 'rain'])
    self.assertLen(found.segments, 2)
    self.assertEqual(found.segments[1].splits, ('test_3', 'train_1'))
    found = self.read('esc10', 'fold3')
    self.assertEqual(
      found.segments,
      [manifest.Segment(audio_path=media[3], labels=('rain',))],
    )
    self.assertEqual(found.label_names, ['dog', 'rain'])

  def test_youcook2_json(self):
    entry = {
      'duration': 311.77,
      'subset': 'training',
      'recipe_type': '113',
      'annotations': [
        {'segment': [90, 102], 'id': 0, 'sentence': 'spread margarine\n on'},
        {'segment': [114, 127], 'id': 1, 'sentence': 'place cheese'},
      ],
      'video_url': 'https://www.youtube.com/watch?v=GLd3aX16zBg',
    }
    other = {**entry, 'subset': 'validation', 'annotations': []}
    text = json.dumps({'database': {'GLd3aX16zBg': entry, 'x': other}})
    name = 'annotations/youcookii_annotations_trainval.json'
    found = self.read(
      'youcook2', 'train', {name: text}, ['training/113/GLd3aX16zBg.mkv']
    )
    self.assertEqual(
      found.segments,
      [
        manifest.Segment(
          'training/113/GLd3aX16zBg.mkv',
          start=90_000_000,
          end=102_000_000,
          captions=('spread margarine on',),
        ),
        manifest.Segment(
          'training/113/GLd3aX16zBg.mkv',
          start=114_000_000,
          end=127_000_000,
          captions=('place cheese',),
        ),
      ],
    )
    with self.assertRaisesRegex(
      errors.MediaError, 'lists nothing for YouCook2'
    ):
      self.read('youcook2', 'validation')
    with self.assertRaisesRegex(errors.MediaError, "database.*KeyError: 'data"):
      self.read('youcook2', 'train', {name: json.dumps(_MSRVTT)})

  def test_youcook2_validation_captions(self):
    path = shared_data.path('media', 'misc', 'captions')
    self.media.create_file('xHr8X2Wpmno.mp4')
    found = registry.read(
      'youcook2', str(path), self.media.full_path, 'validation'
    )
    # 3,350 lines, of which two are one segment with two captions.
    self.assertEqual(len(found.segments), 3349)
    self.assertEqual(sum(len(one.captions) for one in found.segments), 3350)
    self.assertEqual(
      found.segments[0],
      manifest.Segment(
        'xHr8X2Wpmno.mp4',
        start=47_000_000,
        end=60_000_000,
        captions=('pick the ends off the verdalago',),
      ),
    )
    videos = {one.path for one in found.segments}
    self.assertEqual(len(found.missing), len(videos) - 1)
    self.assertTrue(all(one.start < one.end for one in found.segments))

  def test_msrvtt_1k_captions(self):
    path = shared_data.path('media', 'misc', 'captions')
    self.media.create_file('TestVideo/video7020.mp4')
    found = registry.read('msrvtt', str(path), self.media.full_path, 'test_1k')
    self.assertEqual(len(found.segments), 1000)
    self.assertEqual(len(found.missing), 999)
    self.assertEqual(
      found.segments[2],
      manifest.Segment(
        'TestVideo/video7020.mp4',
        captions=('a woman creating a fondant baby and flower',),
      ),
    )

  def test_msrvtt_splits(self):
    test = {
      'videos': [{'video_id': 'video7', 'split': 'test'}],
      'sentences': [{'caption': 'a pan', 'video_id': 'video7'}],
    }
    lists = {
      'train_val_videodatainfo.json': json.dumps(_MSRVTT),
      'test_videodatainfo.json': json.dumps(test),
      'MSRVTT_JSFUSION_test.csv': (
        'key,vid_key,video_id,sentence\nret0,msr1,video1,"a dog, again"\n'
      ),
    }
    media = [f'video{i}.mp4' for i in (0, 1, 2, 7)]
    first = ('a car is shown', 'a man drives')
    expected = {
      'train': {'video0': first, 'video1': ('a dog',)},
      'validation': {'video2': ('a cat',)},
      'test': {'video7': ('a pan',)},
      'test_1k': {'video1': ('a dog, again',)},
      'train_9k': {
        'video0': first,
        'video2': ('a cat',),
        'video7': ('a pan',),
      },
    }
    for split, captions in expected.items():
      found = self.read('msrvtt', split, lists, media)
      self.assertEqual(
        {one.path: one.captions for one in found.segments},
        {f'{video}.mp4': texts for video, texts in captions.items()},
      )
      lists, media = {}, ()

  def test_howto100m(self):
    lists = {
      'HowTo100M_v1.csv': (
        'video_id,category_1,category_2,rank,task_id\n'
        'nVbIUDjzWY4,Cars & Other Vehicles,Motorcycles,27,52907\n'
        'CTPAZ2euJ2Q,Cars & Other Vehicles,Motorcycles,35,109057\n'
      ),
      'raw_caption.json': '{}',
    }
    found = self.read('howto100m', 'train', lists, ['x/nVbIUDjzWY4.webm'])
    self.assertEqual(
      [one.path for one in found.segments],
      ['x/nVbIUDjzWY4.webm', 'CTPAZ2euJ2Q.mp4'],
    )
    self.assertEqual(found.missing, {'CTPAZ2euJ2Q.mp4'})
    self.assertEqual(os.path.basename(found.captions), 'raw_caption.json')
    self.assertEqual(found.clip_seconds, 10.0)
    found = self.read('howto100m', 'train', {'caption.json': '{}'})
    self.assertEqual(os.path.basename(found.captions), 'caption.json')

  def test_imagenet_folders(self):
    for name in (
      'n02/x',
      'n01440764/a.JPEG',
      'n01443537/a.JPEG',
      'n01443537/t',
    ):
      self.media.create_file(name)
    folder = self.media.full_path
    found = registry.read('imagenet', folder, folder, 'train')
    self.assertEqual(found.label_names, ['n01440764', 'n01443537'])
    self.assertEqual(
      found.segments,
      [
        manifest.Segment(f'{name}/a.JPEG', labels=(name,))
        for name in found.label_names
      ],
    )

  def test_imagenet_flat_validation(self):
    text = (
      'ImageId,PredictionString\n'
      'ILSVRC2012_val_00048981,n03995372 85 1 499 272 \n'
      'ILSVRC2012_val_00037956,n03481172 131 0 499 254 \n'
    )
    found = self.read(
      'imagenet',
      'validation',
      {'LOC_val_solution.csv': text},
      ['ILSVRC2012_val_00048981.JPEG'],
    )
    self.assertEqual(
      found.segments[0],
      manifest.Segment('ILSVRC2012_val_00048981.JPEG', labels=('n03995372',)),
    )
    self.assertEqual(found.label_names, ['n03481172', 'n03995372'])
    self.assertEqual(found.missing, {'ILSVRC2012_val_00037956.jpeg'})

  # What is wrong.

  def test_list_of_another_data_set(self):
    lists = {'train.csv': _KINETICS}
    with self.assertRaisesRegex(
      errors.MediaError,
      r'None of the 3 clips.*such as ---QUuC4vJs.mp4, and the folder has 1 '
      r'media files, such as UCF-101/v_a.avi. Is it the list of another',
    ):
      self.read('kinetics400', 'train', lists, ['UCF-101/v_a.avi'])
    with self.assertRaisesRegex(
      errors.MediaError, 'class_labels_indices.csv in it.*train.csv'
    ):
      self.read('audioset', 'evaluation')
    self.lists.create_file('train.csv', content=_AUDIOSET)
    with self.assertRaisesRegex(
      errors.MediaError, 'train.csv, line 1: expected a header with the columns'
    ):
      self.read('kinetics400', 'train')

  def test_two_files_of_one_name(self):
    media = ['a/---QUuC4vJs.mp4', 'b/---QUuC4vJs.webm']
    with self.assertRaisesRegex(errors.MediaError, 'several files named ---QU'):
      self.read('kinetics400', 'train', {'train.csv': _KINETICS}, media)

  @parameterized.parameters(
    (
      {'dataset': 'kinetics'},
      '`dataset` must be one of howto100m, .*kinetics4',
    ),
    ({'dataset': 'kinetics400'}, "be train or validation or test. .*split=''"),
    ({'dataset': 'ucf101', 'split': 'train_1'}, 'UCF101 must be left out, for'),
    ({'dataset': 'esc50', 'split': 'fold6'}, 'fold5 or left out, for one set'),
    ({'dataset': 'youcook2', 'split': 'train', 'is_cut': True}, '`is_cut` is'),
  )
  def test_bad_arguments(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      self.read(**arguments)

  def test_folders_that_are_not_there(self):
    with self.assertRaisesRegex(ValueError, '`annotations` must be a folder'):
      registry.read('ucf101', 'nowhere', self.media.full_path)
    with self.assertRaisesRegex(ValueError, '`media_root` must be a folder'):
      registry.read('ucf101', self.lists.full_path, 'nowhere')


if __name__ == '__main__':
  tf.test.main()
