"""Files that break the rules of their format, and what becomes of them."""

from fractions import Fraction
import os
import re
import struct

from absl.testing import parameterized
import av
import cv2
import numpy as np
import tensorflow as tf

from tests import sample_media
from vatt_tf.media import (
  containers,
  decode,
  decode_settings,
  decoded_clip,
  errors,
  folders,
  ingest,
  manifest,
  video_frames,
  worker,
)

_RED, _GREEN, _BLUE, _WHITE = (
  (220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250),
)  # fmt: skip
_NAMES = {_RED: 'red', _GREEN: 'green', _BLUE: 'blue', _WHITE: 'white'}

# Extension, encoders of picture and sound, rate of the sound.
_JOINABLE = (
  ('ts', 'libx264', 'aac', 48000),
  ('mpg', 'mpeg2video', 'mp2', 48000),
  ('mkv', 'libx264', 'aac', 44100),
  ('webm', 'libvpx', 'libopus', 48000),
  ('nut', 'mpeg4', 'mp2', 44100),
  ('flv', 'flv', 'libmp3lame', 44100),
)


def _read(path):
  with open(path, 'rb') as file:
    return file.read()


def _write(path, *parts):
  with open(path, 'wb') as file:
    file.write(b''.join(parts))
  return path


class OddFileTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.create_tempdir().full_path

  def path(self, name):
    return os.path.join(self.folder, name)

  def decode(self, path, *spans, **settings):
    spans = spans or (decoded_clip.Span(is_exact=False),)
    results = worker.perform(
      worker.Task(path, '', spans, decode_settings.Settings(**settings))
    )
    return results[0] if len(results) == 1 else results

  def decode_ok(self, path, *spans, **settings):
    result = self.decode(path, *spans, **settings)
    if isinstance(result, errors.MediaError):
      raise result
    return result

  def assert_refused(self, message, path):
    result = self.decode(path)
    self.assertIsInstance(result, errors.MediaError)
    self.assertRegex(str(result), message)

  def levels(self, clip):
    """The gray level of each frame, to the nearest ten."""
    images = [
      cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_GRAYSCALE)
      for frame in clip.frames
    ]
    return [round(float(image.mean()) / 10) * 10 for image in images]

  def tones(self, clip):
    return sample_media.frequencies(clip.audio, 48000)

  def reasons(self, clip):
    return ' '.join(note.reason for note in clip.notes)

  def recording(self, name, level, frequency, codecs, seconds=4.0, **kwargs):
    _, video_codec, sound_codec, rate = codecs
    return sample_media.write(
      self.path(name),
      seconds,
      images=[sample_media.plain(level)],
      video_codec=video_codec,
      sound=sample_media.tone(seconds, rate, frequency=frequency),
      sound_rate=rate,
      sound_codec=sound_codec,
      **kwargs,
    )

  # Clocks that start again.

  @parameterized.parameters(*_JOINABLE)
  def test_joined_recordings(self, *codecs):
    extension = codecs[0]
    parts = [
      self.recording(f'{i}.{extension}', level, frequency, codecs)
      for i, (level, frequency) in enumerate(((40, 300), (200, 900)))
    ]
    path = _write(self.path(f'joined.{extension}'), *map(_read, parts))
    clip = self.decode_ok(path, frame_rate=5)
    self.assertAlmostEqual(clip.end / 1e6, 8, delta=0.2)
    self.assertEqual(self.tones(clip)[:16], [300] * 8 + [900] * 8)
    levels = self.levels(clip)
    for seconds, level in ((1, 40), (3.5, 40), (5, 200), (7, 200)):
      self.assertEqual(levels[round(5 * seconds)], level)
    self.assertEqual(clip.notes, [])
    # Parts of it, each read for itself.
    for start, level, frequency in ((1, 40, 300), (5, 200, 900)):
      span = decoded_clip.Span(start * 1_000_000, (start + 2) * 1_000_000)
      clip = self.decode_ok(path, span, frame_rate=5)
      self.assertEqual(set(self.levels(clip)), {level})
      self.assertEqual(set(self.tones(clip)), {frequency})

  def test_parts_that_cannot_be_read_are_named(self):
    codecs = _JOINABLE[2]
    parts = [
      self.recording(f'{i}.mkv', 40 + 50 * i, 300 + 300 * i, codecs)
      for i in range(3)
    ]
    # FFmpeg reads two segments.
    path = _write(self.path('joined.mkv'), *map(_read, parts))
    clip = self.decode_ok(path, frame_rate=5)
    self.assertEqual(self.tones(clip)[:16], [300] * 8 + [600] * 8)
    self.assertRegex(self.reasons(clip), 'what follows the first .* bytes')

  @parameterized.parameters(('ogg', 'libopus', 48000), ('oga', 'flac', 44100))
  def test_chained_sound(self, extension, codec, rate):
    parts = [
      sample_media.write(
        self.path(f'{frequency}.{extension}'),
        0,
        sound=sample_media.tone(2.0, rate, frequency=frequency),
        sound_rate=rate,
        sound_codec=codec,
      )
      for frequency in (300, 900)
    ]
    path = _write(self.path(f'joined.{extension}'), *map(_read, parts))
    clip = self.decode_ok(path)
    self.assertAlmostEqual(clip.end / 1e6, 4, delta=0.1)
    self.assertEqual(self.tones(clip)[:8], [300] * 4 + [900] * 4)

  @parameterized.parameters(
    ('flv', 'flv', 'libmp3lame', 44100), ('mpg', 'mpeg2video', 'mp2', 48000)
  )
  def test_parts_of_sound_or_picture_alone(self, *codecs):
    extension, video_codec, sound_codec, rate = codecs
    both = self.recording(f'av.{extension}', 200, 900, codecs)
    sound = sample_media.write(
      self.path(f'a.{extension}'),
      0,
      sound=sample_media.tone(2.0, rate, frequency=300),
      sound_rate=rate,
      sound_codec=sound_codec,
    )
    picture = sample_media.write(
      self.path(f'v.{extension}'),
      2.0,
      images=[sample_media.plain(40)],
      video_codec=video_codec,
    )
    path = self.path(f'joined.{extension}')
    # (parts, length, tones, levels at 1, 3, 5 s or none)
    for parts, seconds, tones, levels in (
      ((sound, both), 6, [300] * 4 + [900] * 8, None),
      ((both, sound), 6, [900] * 8 + [300] * 4, None),
      ((picture, both), 6, [0] * 4 + [900] * 8, [40, 200, 200]),
      ((both, picture), 6, [900] * 8 + [0] * 3, [200, 200, 40]),
    ):
      with self.subTest(parts=parts):
        clip = self.decode_ok(_write(path, *map(_read, parts)), frame_rate=5)
        self.assertAlmostEqual(clip.end / 1e6, seconds, delta=0.2)
        # At a joint, half a second may hold both.
        found = self.tones(clip)[: len(tones)]
        apart = sum(a != b for a, b in zip(found, tones))
        self.assertLessEqual(apart, 1, (found, tones))
        if levels is None:
          self.assertEqual(clip.frames, [])
          self.assertIn('another recording', self.reasons(clip))
        else:
          shown = self.levels(clip)
          self.assertEqual([shown[i] for i in (5, 15, 25)], levels)
    for parts in ((sound, picture), (picture, sound)):
      with self.subTest(parts=parts):
        _write(path, *map(_read, parts))
        first, second = self.decode(
          path,
          decoded_clip.Span(0, 2_000_000),
          decoded_clip.Span(2_000_000, 4_000_000),
        )
        if parts[0] == picture:
          first, second = second, first
        self.assertEqual((first.frames, second.audio), ([], None))
        self.assertLen(second.frames, 20)
        self.assertEqual(set(self.tones(first)) - {0}, {300})

  @parameterized.parameters((44100, 48000), (48000, 22050))
  def test_the_sample_rate_changes(self, first_rate, second_rate):
    parts = [
      self.recording(
        f'{rate}.ts', level, frequency, ('ts', 'libx264', 'mp2', rate)
      )
      for rate, level, frequency in (
        (first_rate, 40, 300),
        (second_rate, 200, 900),
      )
    ]
    path = _write(self.path('joined.ts'), *map(_read, parts))
    clip = self.decode_ok(path, frame_rate=5)
    tones = self.tones(clip)
    self.assertEqual(tones[:7] + tones[9:15], [300] * 7 + [900] * 6)
    self.assertLess(np.abs(clip.audio).max(), 0.7)
    clip = self.decode_ok(path, decoded_clip.Span(5_000_000, 7_000_000))
    self.assertEqual(self.tones(clip), [900] * 4)

  def test_time_stamps_that_jump_by_hours(self):
    codecs = _JOINABLE[0]
    first = self.recording('a.ts', 40, 300, codecs)
    second = self.recording(
      'b.ts', 200, 900, codecs, options={'output_ts_offset': '7200'}
    )
    path = _write(self.path('joined.ts'), _read(first), _read(second))
    clip = self.decode_ok(path, frame_rate=5)
    self.assertAlmostEqual(clip.end / 1e6, 8, delta=0.2)
    self.assertEqual(self.tones(clip)[:16], [300] * 8 + [900] * 8)

  def test_time_stamps_that_wrap(self):
    # 33 bits of 90 kHz: 95,443.7 s.
    path = sample_media.write(
      self.path('a.ts'),
      8.0,
      images=[sample_media.plain(20 + n) for n in range(200)],
      video_codec='libx264',
      sound=np.concatenate(
        [
          sample_media.tone(4.0, 48000, frequency=300),
          sample_media.tone(4.0, 48000, frequency=900),
        ]
      ),
      sound_rate=48000,
      options={'output_ts_offset': '95439'},
    )
    clip = self.decode_ok(path, frame_rate=5)
    self.assertAlmostEqual(clip.end / 1e6, 8, delta=0.2)
    self.assertEqual(self.tones(clip)[:16], [300] * 8 + [900] * 8)
    self.assertEqual(self.levels(clip), sorted(self.levels(clip)))

  def test_a_second_recording_that_cannot_be_read_is_named(self):
    codecs = ('mp4', 'libx264', 'aac', 44100)
    first = self.recording('a.mp4', 40, 300, codecs)
    second = self.recording('b.mp4', 200, 900, codecs)
    self.assertEqual(self.decode_ok(first).notes, [])
    path = _write(self.path('c.mp4'), _read(first), _read(second))
    clip = self.decode_ok(path, frame_rate=5)
    self.assertAlmostEqual(clip.end / 1e6, 4, delta=0.1)
    self.assertEqual(set(self.levels(clip)), {40})
    self.assertEqual(set(self.tones(clip)), {300})
    self.assertIn('another recording is joined to it', self.reasons(clip))

  def test_a_publisher_that_comes_back_with_another_codec(self):
    first = self.recording('a.flv', 40, 300, ('', 'libx264', 'aac', 44100))
    second = self.recording(
      'b.flv', 200, 900, ('', 'libx264', 'libmp3lame', 44100), seconds=2.0
    )
    # With the header of the second file, and without.
    for skipped in (0, 13):
      path = self.path(f'{skipped}.flv')
      _write(path, _read(first), _read(second)[skipped:])
      clip = self.decode_ok(path, frame_rate=5)
      self.assertAlmostEqual(clip.end / 1e6, 4, delta=0.1)
      self.assertEqual(set(self.levels(clip)), {40})
      self.assertIn('another recording', self.reasons(clip))

  # Errors of the decoder.

  def test_errors_of_any_class_cost_the_file_alone(self):
    path = sample_media.write(self.path('a.mp4'))
    for error in (IndexError('list index'), ValueError('bad\nvalue'), KeyError):
      with self.subTest(error=error):
        with tf.compat.v1.test.mock.patch.object(
          video_frames.FrameReader, 'feed', side_effect=error
        ):
          result = self.decode(path)
        self.assertIsInstance(result, errors.MediaError)
        self.assertRegex(str(result), r'its decoding failed with \w+Error: ')
        self.assertNotIn('\n', str(result))

  def test_an_error_in_one_clip_costs_that_clip_alone(self):
    path = sample_media.write(self.path('a.mp4'))
    feed = video_frames.FrameReader.feed

    def fail_late(reader, packet):
      if packet.pts is not None and packet.pts * packet.time_base > 1.5:
        raise IndexError('beyond')
      feed(reader, packet)

    with tf.compat.v1.test.mock.patch.object(
      video_frames.FrameReader, 'feed', fail_late
    ):
      first, second = self.decode(
        path,
        decoded_clip.Span(0, 1_000_000),
        decoded_clip.Span(1_000_000, 2_000_000),
      )
    self.assertLen(first.frames, 10)
    self.assertIsInstance(second, errors.MediaError)

  @parameterized.parameters(1, 7, 10, 100, 999)
  def test_sensors_of_few_samples_per_second(self, rate):
    path = self.path('a.wav')
    samples = (10_000 * np.ones([3 * rate])).astype('<i2').tobytes()
    _write(path, _wav_header(len(samples), rate), samples)
    clip = self.decode_ok(path)
    self.assertEqual(clip.end, 3_000_000)
    self.assertLen(clip.audio, 144_000)
    middle = clip.audio[60_000:80_000]
    self.assertAllClose(middle, np.full_like(middle, 0.305), atol=0.03)

  def test_an_impossible_sample_rate(self):
    path = self.path('a.wav')
    _write(path, _wav_header(8000, 0x0FFFFFF0), bytes(8000))
    self.assert_refused('states 268435440 samples per second', path)

  # Where files end.

  def test_sound_goes_on_after_the_picture(self):
    path = sample_media.write(
      self.path('a.mp4'), 3.0, sound=sample_media.tone(12.0)
    )
    clip = self.decode_ok(path)
    self.assertAlmostEqual(clip.end / 1e6, 12, delta=0.1)
    self.assertEqual(clip.frames, [])
    self.assertEqual(self.tones(clip)[:23], [440] * 23)
    self.assertIn('its picture is left out: it covers 3 s', self.reasons(clip))
    # Where the picture covers half of a clip, its last frame is held.
    clip = self.decode_ok(path, decoded_clip.Span(0, 5_000_000))
    self.assertLen(clip.frames, 50)
    self.assertEqual(clip.frames[-1], clip.frames[30])
    result = self.decode(path, decoded_clip.Span(0, 14_000_000))
    self.assertRegex(str(result), 'longer than its audio, which ends at 12')

  def test_a_song_with_a_still_picture(self):
    path = sample_media.write(
      self.path('a.mkv'), 0.04, sound=sample_media.tone(6.0)
    )
    clip = self.decode_ok(path)
    self.assertAlmostEqual(clip.end / 1e6, 6, delta=0.1)
    self.assertEqual(clip.frames, [])
    clip = self.decode_ok(path, decoded_clip.Span(2_000_000, 5_000_000))
    self.assertLen(clip.audio, 144_000)

  def test_sound_that_is_longer_by_what_encoders_add(self):
    path = sample_media.write(
      self.path('a.mp4'), 3.0, sound=sample_media.tone(3.15)
    )
    self.assertEqual(self.decode_ok(path).end, 3_000_000)

  @parameterized.parameters('avi', 'mp4', 'mkv', 'flv', 'wav')
  def test_headers_that_claim_hours(self, extension):
    path = self.path(f'a.{extension}')
    if extension == 'wav':
      samples = np.full([4 * 8000], 9000, '<i2').tobytes()
      # What a program writes that cannot go back to the header.
      _write(path, _wav_header(0xFFFFFFFF - 36, 8000), samples)
    else:
      sample_media.write(
        path,
        4.0,
        video_codec='libx264' if extension == 'flv' else 'mpeg4',
        images=[sample_media.plain(n) for n in range(20, 120)],
      )
      _write(path, _claim_hours(_read(path), extension))
    settings = decode_settings.Settings()
    end = decode.find_end(path, '', settings)
    self.assertAlmostEqual(end / 1e6, 4, delta=0.1)
    clip = self.decode_ok(path)
    self.assertAlmostEqual(clip.end / 1e6, 4, delta=0.1)
    if extension != 'wav':
      self.assertLen(clip.frames, round(clip.end / 1e5 + 0.4))
    # FFmpeg itself corrects the others.
    if extension in ('avi', 'mkv', 'flv'):
      self.assertIn('its header says that it lasts until', self.reasons(clip))

  def test_headers_that_claim_a_frame_a_week(self):
    path = sample_media.write(self.path('a.avi'), 4.0)
    data = bytearray(_read(path))
    # Scale and rate of the stream: seconds of a frame.
    struct.pack_into('<II', data, data.index(b'strh') + 8 + 20, 604_800, 1)
    self.assert_refused(
      'it would last until 604800.. s with its .* bytes', _write(path, data)
    )
    # One sample a second is no sound of a day either.
    path = self.path('a.wav')
    _write(path, _wav_header(200_000, 1), bytes(200_000))
    self.assert_refused('it would last until 100000 s', path)

  @parameterized.parameters('mp4', 'mkv', 'avi')
  def test_a_file_that_breaks_off_is_not_taken_for_a_wrong_header(self, kind):
    path = sample_media.write(
      self.path(f'a.{kind}'),
      20.0,
      frame_rate=10,
      images=[
        np.random.default_rng(n).integers(0, 255, [48, 64, 3], np.uint8)
        for n in range(200)
      ],
      options={'movflags': 'faststart'} if kind == 'mp4' else None,
    )
    data = _read(path)
    _write(path, data[: len(data) // 2])
    if kind == 'avi':  # whose index is gone: FFmpeg does not know its length
      self.assertIn('its end is missing', self.reasons(self.decode(path)))
    else:
      self.assert_refused('should last until 20.*cut off or damaged', path)
    # What is whole stays.
    clip = self.decode_ok(path, decoded_clip.Span(0, 5_000_000, is_exact=False))
    self.assertLen(clip.frames, 50)

  @parameterized.parameters(25, 100)
  def test_the_last_frames_of_program_streams(self, count):
    seconds = count / 25
    path = sample_media.write(
      self.path('a.mpg'),
      seconds,
      images=[sample_media.plain(40 + n) for n in range(count)],
      video_codec='mpeg2video',
      sound=sample_media.tone(seconds, 48000),
      sound_rate=48000,
      sound_codec='mp2',
    )
    clip = self.decode_ok(path, frame_rate=25)
    self.assertAlmostEqual(clip.end / 1e6, seconds, delta=0.05)
    image = cv2.imdecode(np.frombuffer(clip.frames[-1], np.uint8), 0)
    self.assertAlmostEqual(float(image.mean()), 39 + count, delta=2)

  def test_notes_in_the_report_of_ingest(self):
    media, out = self.path('media'), self.path('records')
    os.mkdir(media)
    sample_media.write(
      os.path.join(media, 'long.mp4'), 3.0, sound=sample_media.tone(12.0)
    )
    path = sample_media.write(os.path.join(media, 'claims.avi'), 4.0)
    _write(path, _claim_hours(_read(path), 'avi'))
    sample_media.write(os.path.join(media, 'plain.mp4'), 25.0, frame_rate=5)
    # By its header claims.avi would be 720 clips.
    result = ingest.ingest(
      out, media_root=media, num_workers=0, show_progress=False
    )
    self.assertEqual(
      (result.num_clips, result.num_failed, result.num_notes), (5, 0, 2)
    )
    with open(result.skip_report, encoding='utf-8') as file:
      lines = file.read().splitlines()
    self.assertLen(lines, 3)
    self.assertStartsWith(
      lines[1], 'claims.avi,4,,"note: its header says that it lasts until 7200'
    )
    self.assertStartsWith(lines[2], 'long.mp4,0,12,"note: its picture is left')
    self.assertIn('2 notes on parts of files', result.describe())
    # Nothing is left to do, and the count is still known.
    again = ingest.ingest(
      out, media_root=media, num_workers=0, show_progress=False
    )
    self.assertEqual(again.num_notes, 2)

  # How pictures are shown.

  @parameterized.parameters(
    # a, b, c, d of the matrix: (x, y) is shown at (a x + c y, b x + d y).
    (1, 0, 0, 1, 'red green blue white'),
    (-1, 0, 0, 1, 'green red white blue'),
    (1, 0, 0, -1, 'blue white red green'),
    (-1, 0, 0, -1, 'white blue green red'),
    (0, 1, 1, 0, 'red blue green white'),
    (0, -1, -1, 0, 'white green blue red'),
    (0, 1, -1, 0, 'blue red white green'),
    (0, -1, 1, 0, 'green white red blue'),
  )
  def test_display_matrices(self, a, b, c, d, expected):
    image = np.zeros([48, 64, 3], np.uint8)
    image[:24, :32], image[:24, 32:] = _RED, _GREEN
    image[24:, :32], image[24:, 32:] = _BLUE, _WHITE
    path = sample_media.write(self.path('a.mp4'), 1.0, images=[image])
    data = bytearray(_read(path))
    place = data.index(b'tkhd') + 44
    values = (a, b, 0, c, d, 0)
    data[place : place + 24] = struct.pack('>6i', *(v << 16 for v in values))
    clip = self.decode_ok(_write(path, data))
    self.assertEqual((clip.width, clip.height), (64, 48) if a else (48, 64))
    shown = cv2.imdecode(np.frombuffer(clip.frames[0], np.uint8), 1)[..., ::-1]
    corners = [shown[y, x] for y in (4, -5) for x in (4, -5)]
    names = [
      _NAMES[min(_NAMES, key=lambda one: np.abs(corner - one).sum())]
      for corner in corners.copy()
      for corner in [corner.astype(int)]
    ]
    self.assertEqual(' '.join(names), expected)

  @parameterized.parameters(((48, 96),), ((96, 48),), ((32, 24),))
  def test_the_size_changes(self, size):
    image = sample_media.plain(20)
    image[:32, :16] = _RED
    other = sample_media.plain(20, size)
    other[: size[1] // 2, : size[0] // 4] = _RED
    codecs = {'video_codec': 'libx264', 'frame_rate': 25}
    first = sample_media.write(self.path('a.ts'), 2.0, images=[image], **codecs)
    second = sample_media.write(
      self.path('b.ts'), 2.0, images=[other], size=size, **codecs
    )
    path = _write(self.path('c.ts'), _read(first), _read(second))
    clip = self.decode_ok(path, frame_rate=5)
    self.assertEqual((clip.width, clip.height), (64, 48))
    shown = cv2.imdecode(np.frombuffer(clip.frames[-1], np.uint8), 1)
    self.assertEqual(shown.shape, (48, 64, 3))
    rows, columns = np.where((shown[..., 2] > 150) & (shown[..., 1] < 110))
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    expected = (size[0] // 4) / (size[1] // 2)
    self.assertAlmostEqual(
      width / height, expected, delta=0.12 * expected + 0.05
    )
    # A clip of the second part alone has the size of its own frames, whatever
    # is read along with it.
    _, clip = self.decode(
      path,
      decoded_clip.Span(0, 1_000_000),
      decoded_clip.Span(3_000_000, 4_000_000),
    )
    self.assertEqual((clip.width, clip.height), size)

  @parameterized.parameters(
    ('smpte2084', 'yuv420p10le', 0.5807, 253),  # 203 cd/m2
    ('smpte2084', 'yuv420p10le', 0.9026, 255),  # 4,000 cd/m2
    ('smpte2084', 'yuv420p', 0.5807, 253),
    ('smpte2084', 'yuv444p10le', 0.5081, 189),  # 100 cd/m2
    ('arib-std-b67', 'yuv420p10le', 0.75, 253),
    ('arib-std-b67', 'yuv420p10le', 0.25, 72),
    ('bt709', 'yuv420p10le', 1.0, 255),
    ('bt709', 'yuv420p', 0.5, 128),
  )
  def test_high_dynamic_range(self, transfer, pixels, signal, expected):
    path = self.path('a.mp4')
    is_deep = '10' in pixels
    luma = round((64 + 876 * signal) / (1 if is_deep else 4))
    primaries = 'bt709' if transfer == 'bt709' else 'bt2020'
    matrix = 'bt709' if transfer == 'bt709' else 'bt2020nc'
    with av.open(path, 'w') as container:
      stream = container.add_stream('libx265', rate=10)
      stream.width, stream.height = 640, 480
      stream.pix_fmt = pixels
      stream.options = {
        'x265-params': f'log-level=none:colorprim={primaries}:'
        f'transfer={transfer}:colormatrix={matrix}:range=limited'
      }
      for i in range(5):
        frame = av.VideoFrame(640, 480, pixels)
        frame.pts, frame.time_base = i, Fraction(1, 10)
        for number, plane in enumerate(frame.planes):
          value = luma if not number else 512 if is_deep else 128
          kind = np.uint16 if is_deep else np.uint8
          size = plane.buffer_size // np.dtype(kind).itemsize
          plane.update(np.full([size], value, kind).tobytes())
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))
    clip = self.decode_ok(path)
    self.assertEqual((clip.width, clip.height), (341, 256))
    image = cv2.imdecode(np.frombuffer(clip.frames[0], np.uint8), 1)
    self.assertAllClose(image.mean(axis=(0, 1)), [expected] * 3, atol=3)

  # What is no recording.

  def test_pictures_and_lists_are_no_recordings(self):
    good = sample_media.write(self.path('good.mp4'), 1.0)
    data = _read(good)
    for brand in (b'avif', b'avis', b'heic', b'mif1', b'msf1', b'crx '):
      path = self.path(f'{brand.decode().strip()}.mp4')
      _write(path, data[:8], brand, data[12:])
      self.assert_refused('it is a picture', path)
    lists = {
      'a.m3u8': '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.mp4\n'
      '#EXT-X-ENDLIST\n',
      'b.mp4': "ffconcat version 1.0\nfile 'good.mp4'\n",
      'c.sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n',
      'd.mpd': '<?xml version="1.0"?><MPD '
      'xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    }
    for name, text in lists.items():
      path = _write(self.path(name), text.encode())
      self.assert_refused('no video and no audio|unknown', path)
    icon = cv2.imencode('.png', sample_media.plain(50))[1].tobytes()
    sizes = (0, 1, 1, 64, 48, 0, 0, 1, 32, len(icon), 22)
    header = struct.pack('<3H4B2H2I', *sizes)
    path = _write(self.path('favicon.ico'), header, icon)
    self.assert_refused('no video and no audio', path)

  @parameterized.parameters(
    '12:30 clip.mp4',
    'concat:a.mp4|b.mp4',
    'http://example.org/a.mp4',
    'file:x.mp4',
    'subfile,,start,0,end,9,,:a.mp4',
    '%03d.mp4',
    '-i.mp4',
    'a?b*[c].mp4',
    'é\\n.mp4',
  )
  def test_names_are_no_addresses(self, name):
    os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
    sample_media.write(f'file:{self.path(name)}', 1.0)
    current = os.getcwd()
    self.addCleanup(os.chdir, current)
    os.chdir(self.folder)
    self.assertLen(self.decode_ok(name).frames, 10)

  def test_linked_folders(self):
    for name in ('media/real', 'elsewhere/inner'):
      os.makedirs(self.path(name))
    for name in ('media/a.mp4', 'media/real/b.mp4', 'elsewhere/c.mp4',
                 'elsewhere/inner/d.mp4'):  # fmt: skip
      _write(self.path(name), b'x')
    for target, name in (
      ('elsewhere', 'media/more'),
      ('media', 'media/real/loop'),
      ('media/real', 'media/again'),
      ('media', 'elsewhere/inner/back'),
      ('nowhere', 'media/dead'),
      ('media/self', 'media/self'),
    ):
      os.symlink(self.path(target), self.path(name))
    self.assertEqual(
      [one.video_path for one in manifest.scan_folder(self.path('media'))],
      ['a.mp4', 'dead', 'more/c.mp4', 'more/inner/d.mp4', 'real/b.mp4', 'self'],
    )
    visited = [folder for folder, _ in folders.walk(self.path('media'))]
    self.assertLen(visited, 4)

  def test_what_is_no_file(self):
    os.mkfifo(self.path('pipe.mp4'))
    self.assert_refused('the file is a pipe', self.path('pipe.mp4'))
    os.symlink(self.path('gone'), self.path('link.mp4'))
    self.assert_refused('a link to a missing file', self.path('link.mp4'))

  def test_extents(self):
    whole = sample_media.write(self.path('a.mp4'), 1.0)
    self.assertEqual(containers.extent(whole), containers.Extent())
    data = _read(whole)
    path = _write(self.path('b.mp4'), data[:-100])
    self.assertTrue(containers.extent(path).is_cut_off)
    path = _write(self.path('c.mp4'), data, data)
    self.assertTrue(containers.extent(path).is_followed)
    for extension in ('mkv', 'avi', 'flv'):
      whole = sample_media.write(
        self.path(f'a.{extension}'), 1.0, video_codec='libx264'
      )
      extent = containers.extent(whole)
      self.assertEqual((extent.is_cut_off, extent.is_followed), (False, False))
      path = _write(self.path(f'b.{extension}'), _read(whole)[:-100])
      self.assertTrue(containers.extent(path).is_cut_off)


def _wav_header(num_bytes, rate):
  return struct.pack(
    '<4sI4s4sIHHIIHH4sI',
    *(b'RIFF', 36 + num_bytes, b'WAVE', b'fmt ', 16, 1, 1, rate),
    *(min(2 * rate, 0xFFFFFFFF), 2, 16, b'data', num_bytes),
  )


def _claim_hours(data, extension):
  """A file of 4 s with the header of one of two hours."""
  data = bytearray(data)
  if extension == 'avi':
    for name, offset in ((b'avih', 8 + 16), (b'strh', 8 + 32)):
      place = data.index(name) + offset
      struct.pack_into('<I', data, place, 7200 * 25)
  elif extension == 'mp4':
    for match in re.finditer(b'mvhd|mdhd', data):
      place = match.end() + 12
      rate, _ = struct.unpack_from('>II', data, place)
      struct.pack_into('>II', data, place, rate, 7200 * rate)
  elif extension == 'mkv':
    place = data.index(b'\x44\x89\x88') + 3
    struct.pack_into('>d', data, place, 7_200_000.0)
  elif extension == 'flv':
    place = data.index(b'duration\x00') + 9
    struct.pack_into('>d', data, place, 7200.0)
  return bytes(data)


if __name__ == '__main__':
  tf.test.main()
