"""The clock of a file, from packets of known times."""

from fractions import Fraction
import types

from absl.testing import parameterized
import tensorflow as tf

from vatt_tf.media import errors, timeline, timeline_measurement

_SECOND = 1_000_000
_MILLISECOND = Fraction(1, 1000)


_STREAM = types.SimpleNamespace(time_base=_MILLISECOND)


def _packet(time, duration=40, dts='pts', is_keyframe=True):
  """A packet at a time, in ms (None: without a time stamp)."""
  return types.SimpleNamespace(
    pts=time,
    dts=time if dts == 'pts' else dts,
    duration=duration,
    is_keyframe=is_keyframe,
    stream=_STREAM,
  )


def _recording(start, seconds, step=40, kinds=('video', 'audio')):
  """Packets of a recording whose clock begins at `start`, in seconds."""
  return [
    (kind, _packet(round(1000 * start) + time))
    for time in range(0, round(1000 * seconds), step)
    for kind in kinds
  ]


def _measure(packets, **kwargs):
  return timeline_measurement.measure(
    [
      timeline.Packet(
        *(kind, one.pts, one.dts, one.duration, 10, 0),
        *(one.is_keyframe, one.stream),
      )
      for kind, one in packets
    ],
    lambda stamp, stream: stamp * 1000,
    **kwargs,
  )


def _times(line, packets):
  """Of each kind the times on the clock of the file, s; None if unknown."""
  shifts = {
    kind: timeline.Shifts(line.shifts.get(kind, ()))
    for kind in ('video', 'audio', 'text')
  }
  times = {}
  for kind, packet in packets:
    if shifts[kind].apply(packet):
      time = None if packet.pts is None else packet.pts / 1000
      times.setdefault(kind, []).append(time)
  return times


class TimelineTest(parameterized.TestCase, tf.test.TestCase):
  def test_one_clock_has_no_shifts(self):
    packets = _recording(0, 4)
    line = _measure(packets)
    self.assertEqual(line.shifts, {})
    self.assertEqual(line.ends, {'video': 4 * _SECOND, 'audio': 4 * _SECOND})
    self.assertEqual(line.num_packets, {'video': 100, 'audio': 100})

  @parameterized.parameters(0, 2, 3.5, 3600, 5 * 3600)
  def test_the_second_part_follows_the_first(self, start):
    packets = _recording(0, 4) + _recording(start, 4)
    line = _measure(
      packets, max_gap=timeline_measurement.MAX_GAP_OF_LIVE_STREAMS
    )
    times = _times(line, packets)
    expected = [i * 0.04 for i in range(200)]
    self.assertAllClose(times['video'], expected)
    self.assertAllClose(times['audio'], expected)
    self.assertEqual(line.ends['video'], 8 * _SECOND)
    self.assertEqual(line.notes, ())

  def test_many_parts(self):
    packets = sum((_recording(2 * (i % 3), 3) for i in range(9)), [])
    times = _times(_measure(packets), packets)
    self.assertAllClose(times['video'], [i * 0.04 for i in range(675)])
    self.assertAllClose(times['audio'], times['video'])

  def test_sound_of_the_first_part_that_comes_after_the_second_began(self):
    first, second = _recording(10, 4), _recording(0, 4)
    late = [one for one in first if one[0] == 'audio'][-10:]
    early = [one for one in second if one[0] == 'video'][:10]
    packets = [one for one in first if one not in late] + early + late
    packets += [one for one in second if one not in early]
    times = _times(_measure(packets), packets)
    self.assertAllClose(times['audio'], [10 + i * 0.04 for i in range(200)])
    self.assertAllClose(times['video'], times['audio'])

  def test_sound_that_begins_before_the_picture_of_its_part(self):
    first = _recording(0, 4)
    second = _recording(0, 1, kinds=('audio',)) + _recording(1, 3)
    packets = first + second
    times = _times(_measure(packets), packets)
    self.assertAllClose(times['audio'], [i * 0.04 for i in range(200)])
    # The picture lies where its own sound does.
    self.assertAlmostEqual(times['video'][100], 5.0)

  def test_parts_never_overlap(self):
    # The sound of the first part is longer, the picture of the second.
    first = _recording(0, 4) + _recording(4, 1, kinds=('audio',))
    second = _recording(0, 4) + _recording(4, 1, kinds=('video',))
    packets = first + second
    times = _times(_measure(packets), packets)
    self.assertAlmostEqual(times['video'][100], 5.0)
    self.assertAlmostEqual(times['audio'][125], 5.0)

  def test_a_gap_is_a_gap(self):
    packets = _recording(0, 4) + _recording(100, 4)
    line = _measure(packets)
    self.assertEqual(line.shifts, {})
    self.assertEqual(line.ends['video'], 104 * _SECOND)
    # But not one of hours.
    packets = _recording(0, 4) + _recording(5000, 4)
    self.assertEqual(_measure(packets).ends['video'], 8 * _SECOND)

  def test_a_jump_ahead_and_back(self):
    packets = _recording(0, 4) + _recording(500, 1) + _recording(5, 4)
    line = _measure(packets)
    self.assertEqual(line.ends['video'], 9 * _SECOND)
    times = _times(line, packets)
    self.assertAllClose(times['video'], [i * 0.04 for i in range(225)])
    self.assertAllClose(times['audio'], times['video'])

  def test_sound_alone_between_two_parts(self):
    # What was repeated at the end of the first part held no picture.
    alone = _recording(3, 1, kinds=('audio',))
    packets = _recording(0, 4) + alone + _recording(0, 4)
    times = _times(_measure(packets), packets)
    self.assertAllClose(times['audio'], [i * 0.04 for i in range(225)])
    self.assertAllClose(times['video'][100:], times['audio'][125:])

  def test_a_part_after_a_gap_that_overlaps_the_next(self):
    packets = _recording(0, 1.7) + _recording(2.7, 2.3) + _recording(4.1, 3)
    line = _measure(packets)
    times = _times(line, packets)
    self.assertAllClose(times['video'], times['audio'])
    self.assertNotIn(None, times['video'])

  def test_a_stream_with_gaps_that_the_other_fills(self):
    packets = _recording(0, 30, kinds=('video',))
    sound = _recording(0, 2, kinds=('audio',)) + _recording(
      25, 2, kinds=('audio',)
    )
    packets = sorted(packets + sound, key=lambda one: one[1].pts)
    line = _measure(
      packets, max_gap=timeline_measurement.MAX_GAP_OF_LIVE_STREAMS
    )
    times = _times(line, packets)
    self.assertAllClose(times['video'], [i * 0.04 for i in range(750)])
    self.assertAlmostEqual(times['audio'][50], 25.0)

  @parameterized.parameters(500_000, 3)
  def test_a_wrong_time_stamp_is_not_a_jump(self, wrong):
    packets = _recording(0, 10)
    places = [i for i, (kind, _) in enumerate(packets) if kind == 'video']
    packets[places[100]] = ('video', _packet(wrong))
    line = _measure(
      packets, max_gap=timeline_measurement.MAX_GAP_OF_LIVE_STREAMS
    )
    times = _times(line, packets)
    self.assertIsNone(times['video'][100])
    expected = [i * 0.04 for i in range(250)]
    self.assertAllClose(times['video'][101:], expected[101:])
    self.assertAllClose(times['audio'], expected)
    self.assertEqual(line.ends['video'], 10 * _SECOND)

  @parameterized.parameters(4, -3, 300, 5000)
  def test_a_stretch_of_wrong_time_stamps(self, wrong):
    packets = _recording(0, 20)
    for kind, packet in packets:
      if kind == 'video' and 8000 <= packet.pts < 8500:
        packet.pts += 1000 * wrong
        packet.dts += 1000 * wrong
    line = _measure(
      packets, max_gap=timeline_measurement.MAX_GAP_OF_LIVE_STREAMS
    )
    times = _times(line, packets)
    expected = [i * 0.04 for i in range(500)]
    self.assertEqual(times['video'][200:213], [None] * 13)
    self.assertAllClose(times['video'][213:], expected[213:])
    self.assertAllClose(times['audio'], expected)
    self.assertEqual(line.ends['video'], 20 * _SECOND)
    self.assertEqual(line.notes, ())

  def test_a_still_picture_with_many_gaps(self):
    packets = [('video', _packet(5000 * i)) for i in range(3000)]
    for max_gap in (
      timeline_measurement.MAX_GAP,
      timeline_measurement.MAX_GAP_OF_LIVE_STREAMS,
    ):
      line = _measure(packets, max_gap=max_gap)
      self.assertEqual(line.shifts, {})

  def test_a_jump_of_the_sound_alone_cannot_be_placed(self):
    video = _recording(0, 60, kinds=('video',))
    sound = _recording(0, 20, kinds=('audio',)) + _recording(
      0, 40, kinds=('audio',)
    )
    packets = [one for pair in zip(video, sound) for one in pair]
    line = _measure(packets)
    times = _times(line, packets)
    self.assertAllClose(times['video'], [i * 0.04 for i in range(1500)])
    self.assertAllClose(times['audio'], [i * 0.04 for i in range(500)])
    self.assertLen(line.notes, 1)
    self.assertStartsWith(
      line.notes[0].reason, '1000 packets of its audio are left out'
    )
    self.assertAlmostEqual(line.notes[0].start, 20 * _SECOND, delta=50_000)

  def test_packets_in_the_order_of_decoding(self):
    # I0 P3 B1 B2: times of display go back, those of decoding do not.
    packets = []
    for i in range(0, 300, 3):
      for n, order in enumerate((2, 0, 1)):
        packets.append(
          ('video', _packet(40 * (i + order) + 80, dts=40 * (i + n)))
        )
    self.assertEqual(_measure(packets).shifts, {})
    # Without times of decoding, too.
    packets = [('video', _packet(p.pts, dts=None)) for _, p in packets]
    self.assertEqual(_measure(packets).shifts, {})

  def test_captions_follow_the_part_that_they_are_in(self):
    first, second = _recording(0, 4), _recording(0, 4)
    first.insert(50, ('text', _packet(1000)))
    second.insert(50, ('text', _packet(1000)))
    packets = first + second
    times = _times(_measure(packets), packets)
    self.assertAllClose(times['text'], [1.0, 5.0])

  def test_key_frames_are_on_the_one_clock(self):
    packets = _recording(0, 2) + _recording(0, 2)
    for i, (_, packet) in enumerate(packets):
      packet.is_keyframe = i % 50 == 0
    line = _measure(packets)
    self.assertEqual(
      line.keys,
      ((0, 0), (1_000_000, 25), (2_000_000, 50), (3_000_000, 75)),
    )

  def test_a_recording_whose_sound_is_another_stream_is_left_out(self):
    packets = _recording(0, 4) + _recording(0, 4, kinds=('video',))
    kept = _measure(packets)
    self.assertEqual(kept.ends['video'], 8 * _SECOND)
    line = _measure(packets, has_late_streams=lambda: True)
    self.assertEqual(line.ends, {'video': 4 * _SECOND, 'audio': 4 * _SECOND})
    self.assertIn('another recording with other streams', line.notes[0].reason)
    self.assertLen(_times(line, packets)['video'], 100)
    # The same where that stream is known, but is not the one that is read.
    other = [('other audio', _packet(40 * i)) for i in range(100)]
    line = _measure(packets + other)
    self.assertEqual(line.ends, {'video': 4 * _SECOND, 'audio': 4 * _SECOND})
    # Another language beside it is none.
    line = _measure(other + packets)
    self.assertEqual(line.ends['video'], 8 * _SECOND)

  def test_packets_without_times_follow(self):
    packets = [('video', _packet(80))] + [('video', _packet(None))] * 49
    line = _measure(packets)
    self.assertEqual(line.ends['video'], 80_000 + 50 * 40_000)

  def test_parts_by_their_number(self):
    # As a reader gives them that takes the earliest packet of all streams.
    packets = _recording(0, 4, kinds=('video',))
    packets += _recording(0, 3, kinds=('video',))
    packets += _recording(0, 4, kinds=('audio',))
    packets += _recording(3, 1, kinds=('video',))
    packets += _recording(0, 4, kinds=('audio',))
    line = _measure(packets, is_in_order=False)
    more = packets + _recording(0, 4, kinds=('audio',))
    with self.assertRaisesRegex(errors.MediaError, 'audio has 3 parts'):
      _measure(more, is_in_order=False)
    times = _times(line, packets)
    self.assertAllClose(times['video'], [i * 0.04 for i in range(200)])
    self.assertAllClose(times['audio'], times['video'])

  def test_no_clock_at_all(self):
    packets = sum((_recording(0, 0.4) for _ in range(1500)), [])
    with self.assertRaisesRegex(errors.MediaError, 'jump more than 1000 times'):
      _measure(packets)

  def test_restarts_are_not_looked_for_in_formats_with_one_clock(self):
    packets = _recording(0, 4) + _recording(0, 4)
    line = _measure(packets, has_restarts=False)
    self.assertEqual(line.shifts, {})
    self.assertEqual(line.ends['video'], 4 * _SECOND)


if __name__ == '__main__':
  tf.test.main()
