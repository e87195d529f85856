"""Tests of the sample media: the plan, the files, and that both repeat."""

import csv
import dataclasses
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized
import av
import numpy as np
import tqdm

from vatt_tf.media.sample import pictures, plan, rendering, sounds, words

SCRIPT = (
  pathlib.Path(__file__).resolve().parents[3] / 'data/make_sample_media.py'
)


def _bytes(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


class PlanTest(parameterized.TestCase):
  def test_no_validation_caption_is_in_training(self):
    for seed in range(5):
      clips = plan.plan_clips(
        plan.Options(num_train=864, num_validation=288, seed=seed)
      )
      texts = {split: set() for split in plan.SPLITS}
      for clip in clips:
        texts[clip.split].update(text for _, _, text in clip.captions)
      self.assertNotEmpty(texts['validation'])
      self.assertEmpty(texts['train'] & texts['validation'])

  def test_no_phrasing_of_one_split_can_give_a_caption_of_the_other(self):
    def every_caption(split):
      for template in words.TEMPLATES[split]:
        for does, doing in sum(words.MOTIONS.values(), ()):
          for shape in sum(words.SHAPES.values(), ()):
            for _, colours in words.COLOURS.values():
              for colour in colours:
                yield template.format(
                  shape=shape, colour=colour, does=does, doing=doing
                )

    train = set(every_caption('train'))
    self.assertFalse(train & set(every_caption('validation')))

  def test_every_validation_word_is_in_training(self):
    vocabulary = {split: set() for split in plan.SPLITS}
    for clip in plan.plan_clips(plan.Options()):
      for _, _, text in clip.captions:
        bare = text.replace(',', '').replace(':', '').lower()
        vocabulary[clip.split].update(bare.split())
    self.assertEmpty(vocabulary['validation'] - vocabulary['train'])

  def test_captions_are_short_and_grammatical(self):
    for clip in plan.plan_clips(plan.Options()):
      for _, _, text in clip.captions:
        self.assertLessEqual(len(text.split()), 15, text)
        self.assertNotRegex(text, r'\ba [aeio]')
        self.assertNotRegex(text, r'\ban [^aeio]')

  @parameterized.parameters(100, 144, 288)
  def test_validation_clips_all_differ_and_are_whole(self, count):
    clips = plan.plan_clips(plan.Options(num_validation=count))
    clips = [clip for clip in clips if clip.split == 'validation']
    shown = {(clip.shape, clip.colour, clip.motion) for clip in clips}
    self.assertLen(shown, count)
    self.assertTrue(all(clip.has_audio for clip in clips))
    self.assertTrue(all(len(clip.captions) == 1 for clip in clips))
    self.assertSetEqual({clip.caption_form for clip in clips}, {'csv', 'vtt'})

  def test_training_shows_everything_and_lacks_some(self):
    clips = plan.plan_clips(plan.Options(num_train=576))
    clips = [clip for clip in clips if clip.split == 'train']
    shown = {(clip.shape, clip.colour, clip.motion) for clip in clips}
    self.assertLen(shown, 288)
    self.assertLen([clip for clip in clips if not clip.has_audio], 29)
    self.assertLen([clip for clip in clips if not clip.captions], 29)
    self.assertGreater(
      len([clip for clip in clips if clip.caption_form == 'vtt']), 200
    )

  @parameterized.parameters('other', 'same')
  def test_distractors(self, colour):
    options = plan.Options(
      num_train=40,
      num_validation=288,
      distractor_share=0.5,
      distractor_colour=colour,
    )
    clips = plan.plan_clips(options)
    train, validation = clips[:40], clips[40:]
    self.assertLen([clip for clip in train if clip.distractor], 20)
    shown = {(clip.shape, clip.colour, clip.motion) for clip in validation}
    self.assertLen(shown, 288)
    for clip in clips:
      silent = clip.distractor
      if silent is not None:
        self.assertNotEqual(clip.shape, silent.shape)
        self.assertNotEqual(clip.motion, silent.motion)
        self.assertEqual(clip.colour == silent.colour, colour == 'same')
    for first, second in zip(validation[::2], validation[1::2]):
      for clip, other in ((first, second), (second, first)):
        self.assertEqual(
          clip.distractor, dataclasses.replace(other, distractor=None)
        )
    # Without distractors nothing changes.
    plain = plan.plan_clips(plan.Options(num_train=40, num_validation=288))
    for clip, other in zip(train, plain):
      self.assertEqual(dataclasses.replace(clip, distractor=None), other)

  def test_same_combination_looks_different(self):
    options = plan.Options(num_train=288, num_validation=288)
    clips = plan.plan_clips(options)
    first = clips[0]
    (other,) = (
      clip
      for clip in clips[288:]
      if (clip.shape, clip.colour, clip.motion)
      == (first.shape, first.colour, first.motion)
    )
    difference = np.abs(
      pictures.render(first, options)[0].astype(int)
      - pictures.render(other, options)[0]
    )
    self.assertGreater(difference.mean(), 2)

  @parameterized.parameters(
    ({'num_validation': 289}, 'num_validation=289'),
    ({'num_train': -1}, 'num_train=-1'),
    ({'duration': 0.5}, 'duration=0.5'),
    ({'frame_size': 33}, 'frame_size=33'),
    ({'frame_rate': 0}, 'frame_rate=0'),
    ({'audio_rate': 8001}, 'audio_rate=8001'),
    ({'silent_share': 1.5}, 'silent_share=1.5'),
    ({'label': 'size'}, "label='size'"),
    ({'distractor_share': -0.1}, 'distractor_share=-0.1'),
    ({'distractor_colour': 'red'}, "distractor_colour='red'"),
    ({'distractor_share': 0.5, 'num_validation': 7}, 'num_validation=7'),
  )
  def test_options_out_of_range(self, options, received):
    with self.assertRaisesRegex(ValueError, f'Received: {received}'):
      plan.Options(**options)


class RenderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.options = plan.Options(
      num_train=288, num_validation=0, frame_size=64, frame_rate=10
    )
    self.clips = plan.plan_clips(self.options)

  def _find(self, **wanted):
    return next(
      clip
      for clip in self.clips
      if all(getattr(clip, key) == value for key, value in wanted.items())
    )

  @parameterized.parameters(*words.COLOURS)
  def test_the_colour_is_shown(self, colour):
    clip = self._find(colour=colour, motion='orbit', shape='square')
    frames = pictures.render(clip, self.options)[0].astype(int)
    self.assertEqual(frames.shape, (32, 64, 64, 3))
    wanted = np.array(words.COLOURS[colour][0])
    near = np.abs(frames - wanted).max(-1) < 30
    self.assertGreater(near.mean(), 0.03)

  @parameterized.parameters(*words.SHAPES)
  def test_distances_have_the_area_of_the_shape(self, shape):
    # Areas by geometry, for the sizes in `_distance`.
    areas = {
      'circle': np.pi * 0.9**2,
      'ring': np.pi * (0.95**2 - 0.49**2),
      'square': 1.6**2,
      'triangle': 0.75 * np.sqrt(3),
      'cross': 2 * 1.9 * 0.6 - 0.6**2,
      'star': 5 * 0.42 * np.sin(np.pi / 5),
    }
    axis = np.linspace(-1.2, 1.2, 601)
    x, y = np.meshgrid(axis, axis)
    area = np.mean(pictures._distance(shape, x, y) < 0) * 2.4**2
    self.assertAlmostEqual(area, areas[shape], delta=0.03 * areas[shape])

  @parameterized.parameters(*words.COLOURS)
  def test_the_pitch_is_heard(self, colour):
    clip = self._find(
      colour=colour, motion='orbit', shape='circle', has_audio=True
    )
    sound = sounds.render_audio(clip, self.options)
    self.assertEqual(sound.shape, (51200,))
    self.assertEqual(sound.dtype, np.float32)
    self.assertLessEqual(np.abs(sound).max(), 1)
    spectrum = np.abs(np.fft.rfft(sound))
    heard = spectrum.argmax() / self.options.duration
    step = list(words.COLOURS).index(colour)
    wanted = words.LOWEST_PITCH * 2 ** (step * 5 / 12)
    self.assertAlmostEqual(heard, wanted, delta=0.02 * wanted)

  def test_a_pair_shows_both_shapes_apart(self):
    options = plan.Options(
      num_train=0, num_validation=24, distractor_share=0.5, frame_size=64
    )
    clips = plan.plan_clips(options)
    for first, second in zip(clips[::2], clips[1::2]):
      frames, boxes = pictures.render(first, options)
      others, other_boxes = pictures.render(second, options)
      np.testing.assert_array_equal(frames, others)
      sounding = set()
      for frame, of_frame, of_other in zip(frames, boxes, other_boxes):
        for box, other in zip(of_frame, of_other, strict=True):
          self.assertEqual(
            dataclasses.replace(other, is_sounding=box.is_sounding), box
          )
          self.assertNotEqual(other.is_sounding, box.is_sounding)
          clip = first if box.is_sounding else second
          self.assertEqual(box.label, clip.shape)
          sounding.add(box.is_sounding)
          # Its colour is in its box, and not outside of both.
          wanted = np.array(words.COLOURS[clip.colour][0])
          near = np.abs(frame.astype(int) - wanted).max(-1) < 40
          left, top, right, bottom = (
            round(64 * edge)
            for edge in (box.left, box.top, box.right, box.bottom)
          )
          self.assertTrue(near[top:bottom, left:right].any())
        if len(of_frame) == 2:
          left, right = sorted(of_frame, key=lambda box: box.left)
          self.assertLessEqual(left.right, right.left)
      self.assertEqual(sounding, {True, False})
    self.assertFalse(
      np.array_equal(
        sounds.render_audio(clips[0], options),
        sounds.render_audio(clips[1], options),
      )
    )

  def test_sound_follows_the_size(self):
    clip = self._find(motion='blink', shape='circle', has_audio=True)
    frames = pictures.render(clip, self.options)[0]
    sound = sounds.render_audio(clip, self.options)
    # How colourful each frame is, and how loud the sound is meanwhile.
    shown = (frames.max(-1).astype(int) - frames.min(-1)).mean((1, 2))
    per_frame = len(sound) // len(frames)
    loud = np.abs(sound[: per_frame * len(frames)])
    loud = loud.reshape(len(frames), per_frame).mean(1)
    self.assertGreater(np.corrcoef(shown, loud)[0, 1], 0.7)


class FilesTest(parameterized.TestCase):
  OPTIONS = {
    'num_train': 7,
    'num_validation': 4,
    'duration': 1.5,
    'frame_size': 48,
    'silent_share': 0.3,
    'uncaptioned_share': 0.3,
  }

  def _make(self, **changes):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    clips = rendering.write_sample_media(folder, **{**self.OPTIONS, **changes})
    return folder, clips

  def test_files_say_what_the_plan_says(self):
    folder, clips = self._make()
    self.assertEqual(len(clips), 11)
    rows = {}
    for split in plan.SPLITS:
      with open(folder / f'{split}.csv', encoding='utf-8') as file:
        rows.update({row['video_path']: row for row in csv.DictReader(file)})
    self.assertEqual(list(rows), [clip.video_path for clip in clips])
    for clip in clips:
      with self.subTest(clip.video_path):
        row = rows[clip.video_path]
        self.assertEqual(row['label'], clip.shape)
        self.assertEqual((row['start'], row['end']), ('0', '1.5'))
        sidecar = (folder / clip.video_path).with_suffix('.vtt')
        texts = [text for _, _, text in clip.captions]
        if clip.caption_form == 'csv':
          self.assertEqual([row['caption']], texts)
        else:
          self.assertEqual(row['caption'], '')
        self.assertEqual(sidecar.exists(), clip.caption_form == 'vtt')
        if sidecar.exists():
          lines = sidecar.read_text(encoding='utf-8').splitlines()
          self.assertEqual(lines[0], 'WEBVTT')
          self.assertEqual(lines[3::3], texts)
        with av.open(str(folder / clip.video_path)) as container:
          video = container.streams.video[0]
          self.assertEqual(video.codec_context.name, 'h264')
          self.assertEqual(len(list(container.decode(video))), 18)
          self.assertEqual(bool(container.streams.audio), clip.has_audio)
          if clip.has_audio:
            audio = container.streams.audio[0]
            self.assertEqual(audio.codec_context.name, 'aac')
            self.assertEqual(audio.codec_context.sample_rate, 16000)

  @parameterized.parameters(*plan.LABELS)
  def test_label(self, label):
    folder, clips = self._make(num_train=0, label=label)
    with open(folder / 'validation.csv', encoding='utf-8') as file:
      labels = [row['label'] for row in csv.DictReader(file)]
    self.assertEqual(labels, [getattr(clip, label) for clip in clips])
    by_path = {clip.video_path: getattr(clip, label) for clip in clips}
    with open(folder / 'validation_boxes.csv', encoding='utf-8') as file:
      for row in csv.DictReader(file):
        self.assertEqual(row['label'], by_path[row['video_path']])

  def test_decoded_sound_is_the_rendered_one(self):
    folder, clips = self._make(silent_share=0.0)
    settings = plan.Options(**{**self.OPTIONS, 'silent_share': 0.0})
    for clip in clips[:3]:
      rendered = sounds.render_audio(clip, settings)
      with av.open(str(folder / clip.video_path)) as container:
        decoded = np.concatenate(
          [frame.to_ndarray() for frame in container.decode(audio=0)], axis=1
        )[0]
      count = min(len(decoded), len(rendered))
      self.assertGreaterEqual(count, 0.95 * len(rendered))
      correlation = np.corrcoef(decoded[:count], rendered[:count])[0, 1]
      self.assertGreater(correlation, 0.9)

  def test_bytes_do_not_depend_on_the_number_of_workers(self):
    one, _ = self._make(num_workers=1)
    three, _ = self._make(num_workers=3)
    self.assertEqual(_bytes(one), _bytes(three))
    other, _ = self._make(seed=1)
    self.assertNotEqual(_bytes(one), _bytes(other))

  def test_command_line(self):
    with tempfile.TemporaryDirectory() as folder:
      command = [sys.executable, str(SCRIPT), f'--output_dir={folder}/new']
      command += [f'--{key}={value}' for key, value in self.OPTIONS.items()]
      done = subprocess.run(command, capture_output=True, text=True, check=True)
      self.assertIn('11 clips', done.stdout)
      expected, _ = self._make()
      self.assertEqual(_bytes(pathlib.Path(folder, 'new')), _bytes(expected))

  def test_command_line_says_what_is_wrong(self):
    command = [sys.executable, str(SCRIPT), '--num_validation=1000']
    done = subprocess.run(command, capture_output=True, text=True)
    self.assertEqual(done.returncode, 2)
    self.assertIn('`num_validation` must be in [0, 288]', done.stderr)

  def test_a_failed_worker_is_an_error(self):
    settings = dataclasses.asdict(plan.Options(**self.OPTIONS))
    with tempfile.TemporaryDirectory() as folder:
      pathlib.Path(folder, 'train').write_text('not a folder')
      job = {
        'options': settings,
        'output_dir': folder,
        'worker': 0,
        'num_workers': 1,
      }
      with self.assertRaisesRegex(RuntimeError, 'exit code 1'):
        rendering._run_workers([job], tqdm.tqdm(disable=True))


if __name__ == '__main__':
  absltest.main()
