"""Cues: clean text, and those of a span."""

from absl.testing import parameterized
import tensorflow as tf

from vatt_tf.media import (
  caption_cues,
)


class CaptionCuesTest(parameterized.TestCase, tf.test.TestCase):
  def test_an_open_end_is_that_of_the_span(self):
    cues = [caption_cues.Cue(5, caption_cues.OPEN_END, 'a')]
    self.assertEqual(
      caption_cues.in_span(cues, 0, 20), [caption_cues.Cue(5, 20, 'a')]
    )
    self.assertEqual(caption_cues.in_span(cues, 20, 40)[0].end, 40)
    self.assertEqual(caption_cues.in_span(cues, 0, 4, margin=2)[0].end, 5)

  @parameterized.parameters(
    ('a&nbsp;red\u3000star', 'a red star'),
    ('\u202bשלום\u202c &lrm;x', 'שלום x'),
    ('cafe\u0301 e\u00adlectric', 'café electric'),
    ('one\x0btwo\x1cthree\x85four\u2028five', 'one two three four five'),
    ('a\x00\x08b', 'ab'),
    ('wait… ½', 'wait… ½'),
  )
  def test_clean(self, text, expected):
    self.assertEqual(caption_cues.clean(text), expected)

  def test_in_span(self):
    cues = [caption_cues.Cue(0, 10, 'a'), caption_cues.Cue(10, 20, 'b')]
    self.assertEqual(caption_cues.in_span(cues, 0, 10), cues[:1])
    self.assertEqual(caption_cues.in_span(cues, 10, 20), cues[1:])
    self.assertEqual(caption_cues.in_span(cues, 10, 20, margin=5), cues)
    # A caption without length counts where it starts.
    moment = [caption_cues.Cue(10, 10, 'c')]
    self.assertEqual(caption_cues.in_span(moment, 10, 20), moment)
    self.assertEqual(caption_cues.in_span(moment, 0, 10), [])


if __name__ == '__main__':
  tf.test.main()
