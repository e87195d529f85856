"""Decoding: which frame, which sample, and what is wrong with a file."""

from fractions import Fraction

from absl.testing import parameterized
import cv2
import numpy as np
import tensorflow as tf

from tests import sample_media, shared_data
from tests.media import decode_case
from vatt_tf.media import decode, decode_settings, decoded_clip, errors

_SETTINGS = decode_settings.Settings()


def _image(jpeg):
  return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


class DecodeTest(decode_case.DecodeCase):
  # Which frames.

  def test_nearest_frames_of_a_constant_rate(self):
    clip = self.decode_ok(sample_media.write(self.path('a.mp4')))
    # At 25 frames a second frame 2.5 is as far from 2 as from 3: the earlier.
    self.assertEqual(self.numbers(clip), [n // 2 for n in range(0, 100, 5)])
    self.assertEqual((clip.start, clip.end), (0, 2_000_000))
    self.assertEqual((clip.width, clip.height), sample_media.SIZE)

  @parameterized.parameters(
    (30, [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]),
    (24, [0, 2, 5, 7, 10, 12, 14, 17, 19, 22]),
    (5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
  )
  def test_rates(self, rate, expected):
    path = sample_media.write(self.path('a.mp4'), 1.0, frame_rate=rate)
    self.assertEqual(self.numbers(self.decode_ok(path)), expected)

  def test_variable_rate_shows_what_is_on_display(self):
    path = sample_media.write(
      self.path('a.mkv'), 2.0, times=[0, 0.1, 0.2, 1.0, 1.5, 1.9]
    )
    self.assertEqual(
      self.numbers(self.decode_ok(path)),
      [0, 1] + [2] * 8 + [3] * 5 + [4] * 4 + [5],
    )

  @parameterized.parameters('mp4', 'mkv', 'ts', 'avi')
  def test_parts_equal_the_whole(self, extension):
    path = sample_media.write(
      self.path(f'a.{extension}'),
      2.0,
      sound=sample_media.tone(2.0, start=0.5),
      video_codec='mpeg4' if extension != 'ts' else 'libx264',
      sound_codec='aac' if extension != 'avi' else 'pcm_s16le',
    )
    whole = self.decode_ok(path)
    pieces = self.decode_ok(
      path,
      decoded_clip.Span(500_000, 1_500_000),
      decoded_clip.Span(1_000_000, 1_900_000),
    )
    alone = self.decode_ok(path, decoded_clip.Span(1_000_000, 1_900_000))
    self.assertEqual(pieces[0].frames, whole.frames[5:15])
    self.assertEqual(pieces[1].frames, whole.frames[10:19])
    self.assertEqual(alone.frames, whole.frames[10:19])
    self.assertLen(alone.audio, 43_200)
    np.testing.assert_allclose(
      pieces[0].audio, whole.audio[24_000:72_000], atol=2e-2
    )
    # Time stamps of Matroska are rounded to 1 ms.
    expected = whole.audio[48_000:91_200]
    lags = [
      np.corrcoef(expected[100:-100], alone.audio[100 + lag : 43_100 + lag])
      for lag in range(-48, 49)
    ]
    self.assertGreater(max(lag[0, 1] for lag in lags), 0.999)

  def test_long_file_is_not_decoded_from_its_beginning(self):
    path = sample_media.write(
      self.path('a.mp4'),
      40.0,
      frame_rate=5,
      images=[np.full([48, 64, 3], 20 + i, np.uint8) for i in range(200)],
    )
    clip = self.decode_ok(path, decoded_clip.Span(30_000_000, 31_000_000))
    levels = [float(_image(frame).mean()) for frame in clip.frames]
    np.testing.assert_allclose(
      levels, [170, 170, 171, 171, 172, 172, 173, 173, 174, 174], atol=1.5
    )

  # Which size.

  @parameterized.parameters(
    ({'shorter_side': 24}, (32, 24)),
    ({'shorter_side': 96}, (64, 48)),
    ({'shorter_side': 96, 'enlarge': True}, (128, 96)),
  )
  def test_size(self, settings, expected):
    path = sample_media.write(self.path('a.mp4'), 0.4)
    clip = self.decode_ok(path, **settings)
    self.assertEqual((clip.width, clip.height), expected)
    self.assertEqual(_image(clip.frames[0]).shape, (*expected[::-1], 3))

  @parameterized.parameters(
    (90, (48, 64), (1, 0)),
    (180, (64, 48), (1, 1)),
    (270, (48, 64), (0, 1)),
  )
  def test_rotation(self, degrees, size, bright_corner):
    # The upper left corner is bright; turning is counter-clockwise.
    image = np.zeros([48, 64, 3], np.uint8)
    image[:24, :32] = 250
    path = sample_media.write(
      self.path('a.mp4'), 0.4, images=[image], rotation=degrees
    )
    clip = self.decode_ok(path)
    self.assertEqual((clip.width, clip.height), size)
    shown = _image(clip.frames[0])[..., 0].astype(float)
    h, w = shown.shape
    quarters = shown.reshape([2, h // 2, 2, w // 2]).mean(axis=(1, 3))
    self.assertEqual(np.unravel_index(quarters.argmax(), (2, 2)), bright_corner)

  def test_sample_aspect_ratio(self):
    path = sample_media.write(self.path('a.mp4'), 0.4, aspect=Fraction(2, 1))
    clip = self.decode_ok(path)
    self.assertEqual((clip.width, clip.height), (64, 24))

  # Sound.

  def test_sound_of_another_file(self):
    video = sample_media.write(
      self.path('a.mp4'), 2.0, sound=sample_media.tone(2.0)
    )
    other = sample_media.write(
      self.path('b.wav'),
      0,
      sound=sample_media.tone(2.0, start=0.5),
      sound_codec='pcm_s16le',
    )
    clip = self.decode_ok(video, audio_path=other)
    self.assertLen(clip.frames, 20)
    self.assertAlmostEqual(self.onset(clip), 0.5, delta=0.003)
    self.assert_fails(
      r'audio file .*none\.wav: the file does not exist',
      video,
      audio_path=self.path('none.wav'),
    )

  def test_sound_alone(self):
    path = sample_media.write(
      self.path('a.mp4'), 2.0, sound=sample_media.tone(1.0)
    )
    clip = self.decode_ok('', audio_path=path)
    self.assertEmpty(clip.frames)
    # AAC comes in packets of 1,024 samples.
    self.assertAlmostEqual(clip.audio.size / 48_000, 1.0, delta=0.03)

  # Spans and ends.

  def test_clip_longer_than_its_video(self):
    path = sample_media.write(self.path('a.mp4'), 2.0)
    self.assert_fails(
      r'the clip \(1 s to 3 s\) is longer than its video, which ends at 2 s',
      path,
      decoded_clip.Span(1_000_000, 3_000_000),
    )
    self.assert_fails(
      'the clip starts at 2.5 s, but its video ends at 2 s',
      path,
      decoded_clip.Span(2_500_000, 3_000_000),
    )
    self.assert_fails(
      'the clip starts at 9 s, but its video ends at 2 s',
      path,
      decoded_clip.Span(9_000_000, None),
    )
    # Times in manifests are rounded.
    clip = self.decode_ok(path, decoded_clip.Span(1_000_000, 2_200_000))
    self.assertLen(clip.frames, 12)

  def test_one_bad_span_spoils_no_other(self):
    path = sample_media.write(self.path('a.mp4'), 2.0)
    good, bad = self.decode(
      path,
      decoded_clip.Span(0, 1_000_000),
      decoded_clip.Span(1_000_000, 9_000_000),
    )
    self.assertLen(good.frames, 10)
    self.assertIsInstance(bad, errors.MediaError)

  # Streams.

  def test_streams(self):
    path = sample_media.write(self.path('a.mp4'), 1.0)
    self.assert_fails(
      'it has 1 video streams, so none is number 1', path, video_stream=1
    )
    self.assert_fails('it has video but no audio', path, use_video=False)
    self.assertIsNone(self.decode_ok(path, use_audio=False).audio)

  def test_captions_in_the_file(self):
    lines = [(0.2, 0.9, 'one <i>two</i>'), (1.0, 1.5, 'three')]
    path = sample_media.write(self.path('a.mkv'), 2.0, captions=lines)
    clip = self.decode_ok(path, captions=True)
    self.assertEqual(
      clip.cues,
      [(200_000, 900_000, 'one two'), (1_000_000, 1_500_000, 'three')],
    )
    clip = self.decode_ok(
      path, decoded_clip.Span(950_000, 1_950_000), captions=True
    )
    self.assertEqual([cue.text for cue in clip.cues], ['three'])
    self.assertEmpty(self.decode_ok(path).cues)

  # Bad files.

  def test_bad_files(self):
    self.assert_fails('the file does not exist', self.path('none.mp4'))
    self.assert_fails('is a folder', self.folder)
    with open(self.path('empty.mp4'), 'wb'):
      pass
    self.assert_fails(r'the file is empty \(0 bytes\)', self.path('empty.mp4'))
    with open(self.path('noise.mp4'), 'wb') as file:
      file.write(np.random.default_rng(0).bytes(10_000))
    self.assert_fails('FFmpeg cannot open it', self.path('noise.mp4'))
    with open(self.path('a.srt'), 'w') as file:
      file.write(sample_media.srt([(0, 1, 'text')]))
    self.assert_fails('it holds no video and no audio', self.path('a.srt'))
    cv2.imwrite(self.path('a.png'), np.zeros([8, 8, 3], np.uint8))
    self.assert_fails('it holds no video and no audio', self.path('a.png'))

  def test_damaged_in_the_middle(self):
    path = sample_media.write(
      self.path('a.mkv'), 2.0, video_codec='libx264', gop=1
    )
    with open(path, 'rb') as file:
      data = bytearray(file.read())
    middle = slice(len(data) // 3, 2 * len(data) // 3)
    data[middle] = np.random.default_rng(0).bytes(middle.stop - middle.start)
    with open(path, 'wb') as file:
      file.write(data)
    self.assert_fails('it should last until 2 s or longer, but can only', path)

  def test_truncated_file(self):
    path = sample_media.write(
      self.path('a.mkv'), 2.0, sound=sample_media.tone(2.0)
    )
    with open(path, 'rb') as file:
      data = file.read()
    with open(path, 'wb') as file:
      file.write(data[: len(data) // 2])
    self.assert_fails(
      'is longer than its video', path, decoded_clip.Span(0, 2_000_000)
    )

  def test_end_without_a_stated_length(self):
    path = sample_media.write(self.path('a.h264'), 2.0, video_codec='libx264')
    clip = self.decode_ok(path)
    self.assertNear(clip.end, 2_000_000, 100_000)


class RealMediaTest(parameterized.TestCase, tf.test.TestCase):
  def decode(self, *parts, **kwargs):
    path = str(shared_data.path('media', 'misc', *parts))
    result = decode.decode_spans(
      path, '', [decoded_clip.Span(is_exact=False)], _SETTINGS, **kwargs
    )[0]
    if isinstance(result, errors.MediaError):
      raise result
    return result

  def test_same_clip_as_webm_and_mp4(self):
    webm = self.decode('mdn', 'frog.webm')
    mp4 = self.decode('mdn', 'frog.mp4')
    self.assertEqual(len(webm.frames), len(mp4.frames))
    for one, other in zip(webm.frames, mp4.frames):
      error = _image(one).astype(float) - _image(other)
      self.assertGreater(10 * np.log10(255**2 / np.mean(error**2)), 27)
      self.assertLess(np.abs(error).mean(), 6)
    size = min(webm.audio.size, mp4.audio.size)
    correlation = np.corrcoef(webm.audio[:size], mp4.audio[:size])[0, 1]
    self.assertGreaterEqual(correlation, 0.95)

  def test_narration_in_the_file(self):
    clip = self.decode('nasa_13013.mp4', use_caption_stream=True)
    text = ' '.join(cue.text for cue in clip.cues)
    self.assertIn('optical and science segment of the Webb space', text)
    self.assertLen(clip.frames, 130)
    self.assertIsNotNone(clip.audio)

  @parameterized.parameters(
    ('u8.wav', 0.015), ('s24.wav', 1e-4), ('f32.wav', 1e-4), ('flac', 1e-4),
    ('ogg', 1e-3),
  )  # fmt: skip
  def test_one_sound_in_many_formats(self, extension, tolerance):
    name = 'ZASFX_ADSR_no_sustain'
    expected = self.decode('audio', f'{name}.wav').audio
    audio = self.decode('audio', f'{name}.{extension}').audio
    # The Vorbis file ends 128 samples earlier.
    self.assertNear(audio.size, expected.size, 150)
    np.testing.assert_allclose(audio, expected[: audio.size], atol=tolerance)

  def test_other_sounds(self):
    self.assertLen(self.decode('audio', 'mono_10khz.wav').audio, 27_648)
    self.assertLen(self.decode('audio', 'jfk.flac').audio, 528_000)
    clip = self.decode('audio', 'gs-16b-2c-44100hz.mp4')
    self.assertEmpty(clip.frames)
    self.assertNear(clip.audio.size, 15.83 * 48_000, 500)

  def test_pixels_that_are_not_square(self):
    clip = decode.decode_spans(
      str(shared_data.path('media', 'misc', 'popeye', 'p2.mkv')),
      '',
      [decoded_clip.Span(10_000_000, 11_000_000)],
      _SETTINGS,
    )[0]
    self.assertEqual((clip.width, clip.height), (343, 256))
    self.assertLen(clip.frames, 10)
    self.assertIsNone(clip.audio)


if __name__ == '__main__':
  tf.test.main()
