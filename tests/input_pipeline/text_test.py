"""Tests of `vatt_tf.input_pipeline.text`."""

import os
import random
import unicodedata

from absl.testing import parameterized
import numpy as np
import sentencepiece
import tensorflow as tf

from tests import sentence_pieces
from vatt_tf.core import plain_text
from vatt_tf.input_pipeline import text, tokenizers

_SPECIALS = ['<pad>', '<bos>', '<eos>', '<unk>']
_WORDS = ['red', 'ball', 'élan', 'dont']
_PIECES = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'red', 'ba', '##ll', '!']


def _int64(values):
  return tf.constant(values, tf.int64)


class TextTest(tf.test.TestCase, parameterized.TestCase):
  def _write(self, name, content):
    path = os.path.join(self.get_temp_dir(), name)
    mode = 'wb' if isinstance(content, bytes) else 'w'
    encoding = None if isinstance(content, bytes) else 'utf-8'
    with open(path, mode, encoding=encoding) as file:
      file.write(content)
    return path

  def _vocabulary(self, kind):
    if kind == text.WORD:
      return self._write('words.txt', '\n'.join(_SPECIALS + _WORDS) + '\n')
    if kind == text.WORDPIECE:
      return self._write('pieces.txt', '\n'.join(_PIECES) + '\n')
    return self._write('pieces.model', sentence_pieces.train())

  def _encode(self, texts, **arguments):
    config = text.TextConfig(**arguments)
    tokenizer = text.make_tokenizer(config)

    @tf.function(autograph=False)
    def encode(texts):
      return text.encode_captions(texts, tokenizer, config)

    ids, mask = encode(tf.constant(texts, tf.string))
    self.assertEqual(ids.shape, config.shape)
    self.assertEqual(ids.dtype, tf.int32)
    return ids.numpy().tolist(), mask.numpy().tolist()

  def test_normalize(self):
    result = tokenizers.normalize(
      tf.constant(['A Red, BALL!', "Don't—stop", b'\xff\xc3\x89', '"…"'])
    )
    self.assertAllEqual(
      result,
      [b'a red ball', b'dontstop', '\ufffdé'.encode(), b''],
    )

  @parameterized.parameters(
    ('a\u00a0b', ['a', 'b']),
    ('\u3000赤い\u3000円\u2028。\u0085x\x1cy', ['赤い', '円', 'x', 'y']),
    ('cafe\u0301 CAFE\u0301 café', ['café'] * 3),
    ('\u200eabc\u200f a\u00adb \u202bשלום\u202c', ['abc', 'ab', 'שלום']),
    ('می\u200cخواهم ❤\ufe0f', ['میخواهم', '❤']),
    ('\ufb01re ｆｉｒｅ', ['fire', 'fire']),
    ('don´t don\u2019t e\u200b\u0301', ['dont', 'dont', 'é']),
    ('ΟΔΟΣ Straße İ', ['οδος', 'straße', 'i\u0307']),
    ('a\x00b', ['ab']),
    ('\u200b \u00a0', []),
  )
  def test_words_in_unicode(self, string, words):
    found = tokenizers.split_words(tf.constant([string])).to_list()[0]
    self.assertEqual([word.decode() for word in found], words)

  def test_one_form_for_all_of_unicode(self):
    # Characters that are older than every library's tables.
    characters = [
      chr(i)
      for i in range(0x110000)
      if unicodedata.ucd_3_2_0.category(chr(i)) not in ('Cn', 'Cs', 'Co')
    ]
    self.assertGreater(len(characters), 90_000)
    lone = {
      chr(i)
      for first, last in plain_text.LONE_ACCENTS
      for i in range(first, last + 1)
    }
    # Some of these become another one with the accent that follows.
    joined = [one for one in characters if one not in lone]
    rng = random.Random(0)
    marks = 'aeIİΣς \u0301\u0307\u0323\u200b\u00ad-'
    strings = [
      *characters,
      *(f'e{one}\u0301 {one}x' for one in joined),
      *(
        ''.join(rng.choice(rng.choice([joined, marks])) for _ in range(8))
        for _ in range(20_000)
      ),
    ]
    texts = tf.constant([one.encode() for one in strings])
    cleaned = [plain_text.clean(one).encode() for one in strings]
    self.assertEqual(tokenizers.clean(texts).numpy().tolist(), cleaned)
    normal = tokenizers.normalize(texts)
    self.assertEqual(
      tokenizers.normalize(normal).numpy().tolist(), normal.numpy().tolist()
    )
    words = tokenizers.split_words(texts).to_list()
    # What ingest keeps has the words that were there.
    self.assertEqual(
      tokenizers.split_words(tf.constant(cleaned)).to_list(), words
    )
    for row in words:
      for word in row:
        self.assertEqual(word.decode().split(), [word.decode()])

  def test_words_of_a_file_in_other_unicode_forms(self):
    path = self._write(
      'v.txt', 'cafe\u0301\n½\nDog\nélan\ne\u0301lan\nab\u200e\n'
    )
    ids = tokenizers.WordTokenizer(path).tokenize(
      tf.constant(['Café ½ dog Élan e\u0301lan ab'])
    )
    self.assertEqual(ids.to_list(), [[4, 5, 3, 7, 7, 9]])

  def test_white_space_for_pieces(self):
    for kind in (text.WORDPIECE, text.SENTENCEPIECE):
      plain, odd = (
        self._encode(
          [caption],
          kind=kind,
          vocabulary=self._vocabulary(kind),
          num_captions=1,
          max_words=16,
        )
        for caption in ('red ball', '\u200ered\u3000\u00a0ba\u00adll\u2028')
      )
      self.assertEqual(plain, odd)

  @parameterized.named_parameters(
    ('word', '\n'.join(_SPECIALS + _WORDS) + '\n'),
    ('no_last_line_end', '\n'.join(_SPECIALS + _WORDS)),
    ('without_special_tokens', '\n'.join(_WORDS)),
    (
      'id_word',
      ''.join(f'{i} {w}\n' for i, w in enumerate(_SPECIALS + _WORDS)),
    ),
    (
      'id_word_in_another_order',
      ''.join(
        f'{i}\t{w}\n' for i, w in reversed([*enumerate(_SPECIALS + _WORDS)])
      ),
    ),
  )
  def test_word_files(self, content):
    path = self._write('vocabulary.txt', content)
    ids, mask = self._encode(
      ['A red, red BALL', 'élan Don’t', '?!'],
      vocabulary=path,
      num_captions=4,
      max_words=3,
    )
    self.assertEqual(ids, [[3, 4, 4], [6, 7, 0], [0, 0, 0], [0, 0, 0]])
    self.assertEqual(mask, [True, True, False, False])

  def test_start_and_end(self):
    ids, mask = self._encode(
      ['red', 'red ball red ball', ''],
      vocabulary=self._vocabulary(text.WORD),
      num_captions=3,
      max_words=4,
      use_bos=True,
      use_eos=True,
    )
    self.assertEqual(ids, [[1, 4, 2, 0], [1, 4, 5, 2], [0, 0, 0, 0]])
    self.assertEqual(mask, [True, True, False])

  @parameterized.parameters(text.WORD, text.WORDPIECE, text.SENTENCEPIECE)
  def test_detokenize(self, kind):
    config = text.TextConfig(
      kind=kind, vocabulary=self._vocabulary(kind), use_eos=kind != text.WORD
    )
    tokenizer = text.make_tokenizer(config)
    ids, _ = text.encode_captions(
      tf.constant(['red ball', 'ball']), tokenizer, config
    )
    self.assertEqual(
      tokenizer.detokenize(ids.numpy()),
      ['red ball', 'ball', '', '', ''],
    )

  def test_no_captions(self):
    ids, mask = self._encode(
      [],
      vocabulary=self._vocabulary(text.WORD),
      num_captions=2,
      max_words=3,
    )
    self.assertEqual(ids, [[0] * 3] * 2)
    self.assertEqual(mask, [False, False])

  def test_wordpiece(self):
    ids, _ = self._encode(
      ['Red ball!', 'x'],
      kind=text.WORDPIECE,
      vocabulary=self._vocabulary(text.WORDPIECE),
      num_captions=2,
      max_words=6,
      use_bos=True,
      use_eos=True,
    )
    self.assertEqual(ids, [[2, 4, 5, 6, 7, 3], [2, 1, 3, 0, 0, 0]])

  def test_sentencepiece(self):
    path = self._vocabulary(text.SENTENCEPIECE)
    processor = sentencepiece.SentencePieceProcessor(model_file=path)
    expected = processor.encode('the red ball')
    ids, mask = self._encode(
      ['the red ball'],
      kind=text.SENTENCEPIECE,
      vocabulary=path,
      num_captions=1,
      max_words=32,
      use_eos=True,
    )
    self.assertEqual(ids[0][: len(expected) + 1], [*expected, 1])
    self.assertEqual(set(ids[0][len(expected) + 1 :]), {0})
    self.assertEqual(mask, [True])

  @parameterized.parameters(text.WORD, text.WORDPIECE, text.SENTENCEPIECE)
  def test_saved_without_its_file(self, kind):
    path = self._vocabulary(kind)
    tokenizer = text.make_tokenizer(text.TextConfig(kind=kind, vocabulary=path))
    texts = tf.constant(['the red ball', 'a'])
    expected = tokenizer.tokenize(texts).to_list()

    class Exported(tf.Module):
      def __init__(self):
        super().__init__()
        self.tokenizer = tokenizer

      @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
      )
      def tokenize(self, texts):
        return self.tokenizer.tokenize(texts).to_tensor(-1)

    folder = os.path.join(self.get_temp_dir(), 'model')
    tf.saved_model.save(Exported(), folder)
    os.remove(path)
    loaded = tf.saved_model.load(folder).tokenize(texts).numpy()
    self.assertEqual(
      [[i for i in row if i >= 0] for row in loaded.tolist()], expected
    )

  @parameterized.named_parameters(
    ('empty', '', 'is empty'),
    ('blank_line', 'a\n\nb\n', 'Line 2'),
    ('two_words', 'a\nb c\n', "Line 2.*one word.*'b c'"),
    ('twice', 'a\nb\na\n', "'a' twice"),
    ('special_elsewhere', 'a\n<pad>\n', 'must begin with <pad> <bos>'),
    ('ids_without_specials', '0 a\n1 b\n', 'must begin with <pad> <bos>'),
    ('id_twice', '0 <pad>\n0 <bos>\n', 'each once'),
    ('id_missing', '0 <pad>\n<bos>\n', 'Line 2.*`id word`'),
    ('windows', 'a\r\nb\r\n', 'carriage returns'),
    ('latin1', 'é\n'.encode('latin1'), 'UTF-8.*byte 0'),
  )
  def test_refuses_word_files(self, content, message):
    path = self._write('bad.txt', content)
    with self.assertRaisesRegex(ValueError, message) as caught:
      tokenizers.WordTokenizer(path)
    self.assertIn(path, str(caught.exception))

  def test_vocabulary_larger_than_the_table(self):
    path = self._vocabulary(text.WORD)
    with self.assertRaisesRegex(
      ValueError, '8 words, more than the 7 rows.*VOCABULARY_SIZE.*at least 8'
    ):
      text.make_tokenizer(text.TextConfig(vocabulary=path, vocabulary_size=7))
    text.make_tokenizer(text.TextConfig(vocabulary=path, vocabulary_size=8))

  def test_missing_files_name_macro_and_command(self):
    with self.assertRaisesRegex(
      ValueError, '/none/v.txt.*VOCABULARY.*vatt_tf.build_vocabulary'
    ):
      tokenizers.WordTokenizer('/none/v.txt')
    with self.assertRaisesRegex(ValueError, 'no path.*VOCABULARY'):
      text.make_tokenizer(text.TextConfig())
    with self.assertRaisesRegex(ValueError, '/none/s.model.*VOCABULARY'):
      tokenizers.SentencepieceTokenizer('/none/s.model')

  def test_wrong_kind_of_file(self):
    words = self._vocabulary(text.WORD)
    with self.assertRaisesRegex(ValueError, r'\[PAD\] in its first line'):
      tokenizers.WordpieceTokenizer(words)
    with self.assertRaisesRegex(ValueError, 'SentencePiece model'):
      tokenizers.SentencepieceTokenizer(words)

  def test_asks_for_ids_that_are_there(self):
    path = self._vocabulary(text.SENTENCEPIECE)
    config = text.TextConfig(
      kind=text.SENTENCEPIECE, vocabulary=path, use_bos=True
    )
    with self.assertRaisesRegex(ValueError, '`use_bos` must be False'):
      text.make_tokenizer(config)

  @parameterized.parameters(
    ({'num_captions': 0}, 'num_captions=0'),
    ({'max_words': 0}, 'max_words=0'),
    ({'kind': 'bytes'}, "word, wordpiece, sentencepiece.*kind='bytes'"),
    ({'max_words': 2, 'use_bos': True, 'use_eos': True}, 'max_words=2'),
  )
  def test_configuration_errors(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      text.TextConfig(**arguments)


class NearestCaptionsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(0, 25, 44, 90)
  def test_nearest_first(self, center):
    starts = [0, 10, 20, 30, 40, 70]
    ends = [10, 20, 30, 40, 60, 72]

    def distance(i):
      away = max(starts[i] - center, center - ends[i], 0)
      return away, abs((starts[i] + ends[i]) // 2 - center), i

    expected = sorted(range(6), key=distance)
    for count in (1, 3, 9):
      result = tf.function(text.nearest_captions, autograph=False)(
        _int64(starts), _int64(ends), tf.constant(6), _int64(center), count
      )
      self.assertAllEqual(result, expected[:count])

  def test_order_of_the_record_without_times(self):
    empty = _int64([])
    result = text.nearest_captions(empty, empty, tf.constant(4), _int64(5), 3)
    self.assertAllEqual(result, [0, 1, 2])
    none = text.nearest_captions(empty, empty, tf.constant(0), _int64(5), 3)
    self.assertAllEqual(none, [])

  def test_ties_are_random_in_training(self):
    times = _int64([0] * 6)
    drawn = [
      tuple(
        text.nearest_captions(
          times, times, tf.constant(6), _int64(5), 2, tf.constant([1, n])
        ).numpy()
      )
      for n in range(40)
    ]
    self.assertGreater(len(set(drawn)), 10)
    self.assertEqual(set(np.ravel(drawn)), set(range(6)))


if __name__ == '__main__':
  tf.test.main()
