"""Tests of `vatt_tf.input_pipeline.video`."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import fake_clips
from vatt_tf.input_pipeline import (
  colors,
  crop_windows,
  frame_ops,
  video,
  video_config,
)
from vatt_tf.input_pipeline.records import schema


def _seed(number=0):
  return tf.constant([3, number], tf.int64)


def _frames(num_frames=4, height=48, width=64):
  clip = fake_clips.fake_clip(
    1, num_frames=num_frames, height=height, width=width, num_samples=0
  )
  return tf.constant(clip.frames)


def _int64(values):
  return tf.constant(values, tf.int64)


class SampleTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(
    stored_rate=[5.0, 10.0, 25.0, 29.97],
    offset=[0, 130_000],
    short_clip=[video_config.LOOP, video_config.HOLD],
  )
  def test_nearest_in_time(self, stored_rate, offset, short_clip):
    count = 12
    times = schema.frame_times(count, stored_rate)
    duration = round(count * 1e6 / stored_rate)
    expected = []
    for step in range(20):
      time = offset + step * 100_000
      if short_clip == video_config.LOOP:
        time %= duration
      distances = [abs(time - stored) for stored in times]
      expected.append(distances)
    config = video_config.VideoConfig(
      num_frames=20, frame_rate=10.0, short_clip=short_clip
    )
    indices = tf.function(video.sample_indices, autograph=False)(
      _int64(times), _int64(offset), _int64(duration), config
    )
    self.assertEqual(indices.shape, [20])
    for index, distances in zip(indices.numpy(), expected):
      self.assertLessEqual(distances[index], min(distances) + 1)

  def test_same_rate_takes_every_frame_and_loops(self):
    times = schema.frame_times(30, 10.0)
    clip = _int64(times), _int64(0), _int64(3_000_000)
    indices = video.sample_indices(*clip, video_config.VideoConfig())
    self.assertAllEqual(indices, [*range(30), 0, 1])
    config = video_config.VideoConfig(short_clip=video_config.HOLD)
    indices = video.sample_indices(*clip, config)
    self.assertAllEqual(indices, [*range(30), 29, 29])

  def test_one_frame(self):
    config = video_config.VideoConfig(num_frames=3, frame_rate=25.0)
    indices = video.sample_indices(
      _int64([0]), _int64(0), _int64(40_000), config
    )
    self.assertAllEqual(indices, [0, 0, 0])

  def test_still_clip(self):
    config = video_config.VideoConfig(num_frames=8, is_still=True)
    self.assertEqual(config.seconds, 0.1)
    times = schema.frame_times(30, 10.0)
    indices = video.sample_indices(
      _int64(times), _int64(2_900_000), _int64(3_000_000), config
    )
    self.assertAllEqual(indices, [29] * 8)


class WindowTest(tf.test.TestCase, parameterized.TestCase):
  def test_default_window_of_the_paper_needs_no_resizing(self):
    config = video_config.VideoConfig()
    for number in range(5):
      window = crop_windows.random_window(
        256, 320, config, _seed(number)
      ).numpy()
      self.assertAllEqual(window[2:], [224, 224])
      self.assertBetween(window[0], 0, 32)
      self.assertBetween(window[1], 0, 96)

  def test_every_place_is_reached(self):
    config = video_config.VideoConfig(frame_size=6, scale=0.75)
    windows = {
      tuple(crop_windows.random_window(8, 9, config, _seed(n)).numpy())
      for n in range(200)
    }
    self.assertEqual(
      windows, {(y, x, 6, 6) for y in range(3) for x in range(4)}
    )

  @parameterized.parameters((256, 320), (40, 300), (17, 9), (1, 1))
  def test_windows_lie_inside(self, height, width):
    for config in (
      video_config.VideoConfig(frame_size=64, scale=1.0, scale_jitter=0.5),
      video_config.VideoConfig(frame_size=(32, 64), area_range=(0.08, 1.0)),
    ):
      for number in range(20):
        top, left, rows, columns = crop_windows.random_window(
          height, width, config, _seed(number)
        ).numpy()
        self.assertGreaterEqual(min(top, left), 0)
        self.assertGreaterEqual(min(rows, columns), 1)
        self.assertLessEqual(top + rows, height)
        self.assertLessEqual(left + columns, width)

  def test_area_and_aspect_ratio(self):
    config = video_config.VideoConfig(
      area_range=(0.2, 0.4), aspect_ratio_range=(0.8, 1.25)
    )
    areas, ratios = [], []
    for number in range(60):
      window = crop_windows.random_window(
        200, 200, config, _seed(number)
      ).numpy()
      areas.append(window[2] * window[3] / 200**2)
      ratios.append(window[3] / window[2])
    self.assertBetween(min(areas), 0.19, 0.23)
    self.assertBetween(max(areas), 0.37, 0.41)
    self.assertBetween(min(ratios), 0.78, 0.85)
    self.assertBetween(max(ratios), 1.18, 1.27)

  def test_central_windows(self):
    one = video_config.VideoConfig(scale=1.0)
    self.assertAllEqual(
      crop_windows.central_window(256, 320, one), [0, 32, 256, 256]
    )
    three = video_config.VideoConfig(scale=1.0, num_crops=3)
    wide = [crop_windows.central_window(256, 320, three, c) for c in range(3)]
    self.assertAllEqual([window[1] for window in wide], [0, 32, 64])
    tall = [crop_windows.central_window(320, 256, three, c) for c in range(3)]
    self.assertAllEqual([window[0] for window in tall], [0, 32, 64])
    self.assertAllEqual([window[1] for window in tall], [0, 0, 0])


class DecodeTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(sampling=[4, 0], ratio=[1, 2, 4, 8])
  def test_window_is_that_of_the_whole_frame(self, sampling, ratio):
    rng = np.random.default_rng(ratio)
    images = rng.integers(0, 256, [2, 14, 17, 3])
    images = tf.image.resize(images, [205, 243])
    images = tf.cast(images, tf.uint8)
    frames = tf.stack(
      [
        tf.io.encode_jpeg(i, quality=90, chroma_downsampling=sampling > 0)
        for i in images
      ]
    )
    whole = tf.stack([tf.io.decode_jpeg(f, ratio=ratio) for f in frames])
    decode = tf.function(frame_ops.decode_frames, autograph=False)
    windows = [(0, 0, 205, 243), (16, 32, 160, 176), (33, 63, 172, 180)]
    windows += [(100, 203, 40, 40), (44, 19, 161, 1)]
    for top, left, height, width in windows:
      window = tf.constant([top, left, height, width])
      # The least output that asks for this ratio.
      size = (max(height // ratio, 1), max(width // ratio, 1))
      if min(height, width) < ratio:
        continue
      self.assertEqual(2 ** int(frame_ops.jpeg_ratio(window, size)), ratio)
      decoded = decode(frames, window, size)
      top, left = top // ratio, left // ratio
      self.assertAllEqual(
        decoded,
        whole[:, top : top + height // ratio, left : left + width // ratio],
      )

  @parameterized.named_parameters(
    ('full', {'frame_size': 40}, [0]),
    ('jitter', {'frame_size': 16, 'scale_jitter': 0.5}, [0, 1]),
    ('half', {'frame_size': 16, 'scale': 1.0}, [1]),
    ('area', {'frame_size': 6, 'area_range': (0.02, 1.0)}, [0, 1, 2]),
    ('small', {'frame_size': (4, 5), 'scale': 0.9}, [3]),
  )
  def test_clip_of_decoded_frames(self, changes, scales):
    config = video_config.VideoConfig(num_frames=5, **changes)
    clip = fake_clips.fake_clip(1, num_frames=6, height=46, width=60)
    frames = tf.constant(clip.frames)
    decoded, size = tf.function(frame_ops.decode_whole, autograph=False)(
      frames, config
    )
    self.assertAllEqual(size, [46, 60])
    self.assertEqual([i for i in range(4) if tf.size(decoded[i])], scales)
    take, load = (
      tf.function(frame_ops.take_frames, autograph=False),
      tf.function(video.load_frames, autograph=False),
    )
    shapes = set()
    for number in range(40):
      indices = tf.constant([number % 6, 5, 2, 2, 0])
      seed = tf.constant([3, number])
      found = take(decoded, size, indices, config, seed)
      self.assertAllEqual(found, load(frames, indices, config, seed))
      shapes.add(tuple(found.shape))
    is_random = 'area_range' in changes or 'scale_jitter' in changes
    self.assertEqual(len(shapes) > 1, is_random)

  def test_never_fewer_pixels_than_the_output_needs(self):
    ratio_of = tf.function(frame_ops.jpeg_ratio, autograph=False)
    for height in (*range(1, 70, 3), 223, 224, 447, 448, 2000):
      for width in (7, 48, 96, 191, 192, 400):
        for size in ((24, 24), (7, 48), (224, 224)):
          ratio = 2 ** int(ratio_of(tf.constant([0, 0, height, width]), size))
          if ratio > 1:
            self.assertGreaterEqual(height // ratio, size[0])
            self.assertGreaterEqual(width // ratio, size[1])
          if ratio < 8:  # and it is the largest such one
            self.assertTrue(
              height < 2 * ratio * size[0] or width < 2 * ratio * size[1]
            )

  @parameterized.parameters((24, (48, 64)), (12, (24, 32)), (5, (12, 16)))
  def test_decodes_at_a_fraction_where_that_is_enough(self, size, expected):
    frames = _frames(height=96, width=128)
    window = tf.constant([0, 0, 48, 64])
    decoded = frame_ops.decode_frames(frames, window, (size * 2, size * 2))
    self.assertEqual(decoded.shape[1:3], expected)
    whole = tf.stack([tf.io.decode_jpeg(frame) for frame in frames])
    part = tf.image.resize(whole[:, :48, :64], expected, method='area')
    error = tf.abs(tf.cast(decoded, tf.float32) - part)
    self.assertLess(tf.reduce_mean(error), 8.0)

  def test_each_stored_frame_is_decoded_once(self):
    config = video_config.VideoConfig(num_frames=5, frame_size=16)
    frames = tf.concat([_frames(3), [b'not a JPEG image']], axis=0)
    indices = tf.constant([2, 0, 0, 1, 2])
    loaded = video.load_frames(frames, indices, config)  # Frame 3 is not asked.
    self.assertAllEqual(loaded[0], loaded[4])
    self.assertAllEqual(loaded[1], loaded[2])
    self.assertNotAllEqual(loaded[0], loaded[1])

  def test_corrupt_frame_raises(self):
    frames = _frames(2)
    cut = tf.strings.substr(frames[0], 0, 600)
    for bad in (cut, tf.constant(b''), tf.constant(b'text')):
      with self.assertRaises(tf.errors.InvalidArgumentError):
        video.load_frames(
          tf.stack([frames[1], bad]),
          tf.constant([0, 1]),
          video_config.VideoConfig(num_frames=2, frame_size=16),
        )

  @parameterized.parameters(8, 48, 200)
  def test_resizes_up_and_down(self, size):
    config = video_config.VideoConfig(num_frames=4, frame_size=size)
    load = tf.function(video.load_frames, autograph=False)
    frames = load(_frames(), tf.range(4), config)
    finished = tf.function(video.finish_frames, autograph=False)(frames, config)
    self.assertEqual(finished.shape, [4, size, size, 3])
    self.assertAllInRange(finished, -1.0, 1.0)
    self.assertBetween(tf.reduce_mean(finished), -0.3, 0.3)


def _color_reference(frames, mean, brightness, contrast, saturation, hue):
  """One pixel at a time, in the order that the documentation gives."""
  to_yiq = np.array(
    [
      [0.299, 0.587, 0.114],
      [0.5959, -0.2746, -0.3213],
      [0.2115, -0.5227, 0.3112],
    ]
  )
  from_yiq = np.linalg.inv(to_yiq)

  def chroma(color):
    luma, in_phase, quadrature = to_yiq @ (color + brightness)
    turned = (in_phase + 1j * quadrature) * np.exp(1j * 2 * np.pi * hue)
    turned *= saturation
    return from_yiq @ [luma, turned.real, turned.imag]

  mean = chroma(mean)
  result = np.zeros_like(frames)
  for place in np.ndindex(frames.shape[:-1]):
    color = mean + contrast * (chroma(frames[place]) - mean)
    result[place] = 2.0 * np.clip(color, 0.0, 1.0) - 1.0
  return result


class AugmentTest(tf.test.TestCase, parameterized.TestCase):
  def test_flip(self):
    frames = tf.reshape(tf.range(2 * 3 * 4 * 3), [2, 3, 4, 3])
    self.assertAllEqual(frame_ops.flip(frames), frames[:, :, ::-1])
    flipped = [
      bool(
        tf.reduce_all(frame_ops.random_flip(frames, 0.5, _seed(n)) != frames)
      )
      for n in range(100)
    ]
    self.assertBetween(sum(flipped), 30, 70)
    self.assertAllEqual(frame_ops.random_flip(frames, 0.0, _seed()), frames)

  @parameterized.named_parameters(
    ('brightness', {'max_brightness': 0.2}, 'brightness'),
    ('contrast', {'contrast_range': (1.5, 1.5)}, 'contrast'),
    ('saturation', {'saturation_range': (0.3, 0.3)}, 'saturation'),
    ('hue', {'max_hue': 0.3}, 'hue'),
  )
  def test_colors_follow_the_equations(self, changes, name):
    nothing = {
      'max_brightness': 0.0,
      'contrast_range': (1.0, 1.0),
      'saturation_range': (1.0, 1.0),
      'max_hue': 0.0,
      'color_rate': 1.0,
    }
    config = video_config.VideoConfig(**{**nothing, **changes})
    seed = _seed(4)
    draws = tf.random.stateless_uniform([6], seed).numpy()
    values = {'brightness': 0.0, 'contrast': 1.0, 'saturation': 1.0, 'hue': 0.0}
    values[name] = {
      'brightness': 0.2 * (2 * draws[0] - 1),
      'contrast': 1.5,
      'saturation': 0.3,
      'hue': 0.3 * (2 * draws[3] - 1),
    }[name]
    frames = np.random.default_rng(0).uniform(size=[2, 4, 6, 3])
    frames = frames.astype(np.float32)
    mean = frames.mean(axis=(0, 1, 2))
    expected = _color_reference(frames, mean, **values)
    transform = colors.color_transform(tf.constant(mean), config, seed)
    result = colors.apply_transform(tf.constant(255.0 * frames), *transform)
    self.assertAllClose(result, expected, atol=2e-3)

  def test_no_change_is_only_scaling(self):
    frames = tf.random.stateless_uniform([2, 5, 7, 3], [1, 2], 0.0, 255.0)
    result = colors.apply_transform(frames, tf.eye(3), tf.zeros([3]))
    self.assertAllClose(result, frame_ops.scale_values(frames), atol=1e-5)
    config = video_config.VideoConfig(color_rate=0.0)
    transform = colors.color_transform(tf.zeros([3]), config, _seed())
    self.assertAllClose(transform[0], tf.eye(3), atol=1e-5)
    self.assertAllClose(transform[1], [0.0, 0.0, 0.0], atol=1e-6)

  def test_gray(self):
    config = video_config.VideoConfig(color_rate=0.0, gray_rate=1.0)
    frames = tf.random.stateless_uniform([2, 4, 4, 3], [1, 2], 0.0, 255.0)
    result = colors.apply_transform(
      frames, *colors.color_transform(tf.zeros([3]), config, _seed())
    )
    self.assertAllClose(result[..., 0], result[..., 1], atol=1e-5)
    self.assertAllClose(result[..., 0], result[..., 2], atol=1e-5)
    luma = tf.tensordot(frames, [0.299, 0.587, 0.114], 1) * 2 / 255 - 1
    self.assertAllClose(result[..., 0], luma, atol=1e-4)

  def test_equal_seeds_equal_clips_in_a_data_set(self):
    config = video_config.VideoConfig(
      num_frames=4, frame_size=16, area_range=(0.3, 1.0)
    )
    frames = _frames()

    def load(number):
      seed = tf.stack([tf.constant(3, tf.int64), number])
      loaded = video.load_frames(frames, tf.range(4), config, seed)
      return video.finish_frames(loaded, config, seed)

    dataset = tf.data.Dataset.from_tensor_slices(_int64([1, 2, 1]))
    first, second, again = dataset.map(load, num_parallel_calls=2)
    self.assertEqual(dataset.map(load).element_spec.shape, [4, 16, 16, 3])
    self.assertAllEqual(first, again)
    self.assertNotAllClose(first, second)
    self.assertAllClose(first, load(_int64(1)))


class ConfigTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    ({'num_frames': 0}, 'num_frames=0'),
    ({'frame_rate': 0.0}, 'frame_rate=0.0'),
    ({'frame_size': (0, 4)}, r'frame_size=\(0, 4\)'),
    ({'short_clip': 'x'}, "'loop' or 'hold'.*short_clip='x'"),
    ({'scale': 1.5}, 'scale=1.5'),
    ({'scale_jitter': 1.0}, 'scale_jitter=1.0'),
    ({'flip_rate': 2.0}, 'flip_rate=2.0'),
    ({'area_range': (0.5, 0.2)}, 'area_range='),
    ({'contrast_range': (-1.0, 1.0)}, 'contrast_range='),
    ({'num_crops': 2}, 'num_crops=2'),
  )
  def test_errors(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      video_config.VideoConfig(**arguments)


if __name__ == '__main__':
  tf.test.main()
