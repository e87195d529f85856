"""Tests of vocabularies and of the command that makes one."""

import os

import tensorflow as tf

from tests import mains
from vatt_tf.input_pipeline import tokenizers, vocabulary
from vatt_tf.input_pipeline.records import schema, writing

_CAPTIONS = [b'A red ball, a BALL', b'the blue ball', b'red']


class BuildVocabularyTest(tf.test.TestCase):
  def test_most_frequent_first_ties_alphabetical(self):
    words = vocabulary.build_vocabulary(_CAPTIONS)
    self.assertEqual(
      words,
      [*tokenizers.SPECIAL_TOKENS, 'ball', 'a', 'red', 'blue', 'the'],
    )

  def test_limits(self):
    words = vocabulary.build_vocabulary(_CAPTIONS, max_size=6)
    self.assertEqual(words[4:], ['ball', 'a'])
    words = vocabulary.build_vocabulary(_CAPTIONS, min_count=2)
    self.assertEqual(words[4:], ['ball', 'a', 'red'])
    with self.assertRaisesRegex(ValueError, 'max_size=4'):
      vocabulary.build_vocabulary(_CAPTIONS, max_size=4)
    with self.assertRaisesRegex(ValueError, 'no word'):
      vocabulary.build_vocabulary([b'?!'])

  def test_file_is_that_of_the_tokenizer(self):
    path = os.path.join(self.get_temp_dir(), 'new', 'vocabulary.txt')
    vocabulary.write_vocabulary(path, vocabulary.build_vocabulary(_CAPTIONS))
    tokenizer = tokenizers.WordTokenizer(path)
    ids = tokenizer.tokenize(tf.constant(['red ball green'])).to_list()
    self.assertEqual(ids, [[6, 4, 3]])
    self.assertEqual(os.listdir(os.path.dirname(path)), ['vocabulary.txt'])

  def test_any_white_space_separates_words(self):
    # Of Unicode, all that Python's `str.split` splits at.
    spaces = [chr(i) for i in range(0x110000) if chr(i).isspace()]
    words = vocabulary.build_vocabulary(
      [f'one{space}two'.encode() for space in spaces]
    )
    self.assertEqual(words[4:], ['one', 'two'])

  def test_every_vocabulary_can_be_read(self):
    path = os.path.join(self.get_temp_dir(), 'any.txt')
    captions = [
      f'x{chr(i)}y {chr(i)}'.encode()
      for i in range(0x3100)
      if not 0xD800 <= i < 0xE000
    ]
    words = vocabulary.build_vocabulary([*captions, b'\xff\xfe', b'a\x00b'])
    vocabulary.write_vocabulary(path, words)
    self.assertEqual(tokenizers.WordTokenizer(path).words, words)

  def test_scripts_without_spaces_are_told(self):
    sentences = ['一只狗在门口叫', '一只猫在睡觉', '男人在跑步', 'the']
    with self.assertLogs(level='WARNING') as logs:
      vocabulary.build_vocabulary([one.encode() for one in sentences])
    self.assertRegex(logs.output[0], 'does not separate words')
    with self.assertNoLogs(level='WARNING'):
      vocabulary.build_vocabulary([b'a man runs', 'un café noir 好'.encode()])

  def test_command_with_a_manifest(self):
    folder = self.create_tempdir().full_path
    output = os.path.join(folder, 'vocabulary.txt')
    path = os.path.join(folder, 'manifest.csv')

    def run(data, *arguments):
      with open(path, 'wb') as file:
        file.write(data)
      return mains.run(
        'build_vocabulary',
        f'--manifest={path}',
        f'--output={output}',
        *arguments,
      )

    data = '\ufeffvideo_path, caption,x\na,Café\xa0one\u2028two,1\nb,nan,2\n'
    self.assertEqual(run(data.encode('utf-16-le')).returncode, 0)
    with open(output, encoding='utf-8') as file:
      self.assertEqual(file.read().split()[4:], ['café', 'one', 'two'])
    data = 'video_path,start,caption\na,x,caf\xe9\n'.encode('cp1252')
    failed = run(data)
    self.assertEqual(failed.returncode, 1)
    self.assertIn('--manifest_encoding=cp1252', failed.stderr)
    done = run(data, '--manifest_encoding=cp1252', '--ignore_columns=start')
    self.assertEqual(done.returncode, 0, done.stderr)
    with open(output, encoding='utf-8') as file:
      self.assertEqual(file.read().split()[4:], ['café'])

  def test_command(self):
    folder = self.get_temp_dir()
    shard = writing.shard_path(folder, 'train', 0, 1)
    with writing.ShardWriter(shard) as writer:
      for caption in _CAPTIONS:
        caption = schema.Caption(caption.decode())
        writer.write(schema.Clip(example_id='a', captions=[caption]))
    output = os.path.join(folder, 'vocabulary.txt')
    done = mains.run(
      'build_vocabulary', f'--records={folder}/train-*', f'--output={output}'
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    with open(output, encoding='utf-8') as file:
      self.assertEqual(file.read().split()[4:6], ['ball', 'a'])
    failed = mains.run(
      'build_vocabulary', f'--records={folder}/none-*', f'--output={output}'
    )
    self.assertEqual(failed.returncode, 1)
    self.assertIn('No file matches the record pattern', failed.stderr)
    self.assertNotIn('Traceback', failed.stderr)


if __name__ == '__main__':
  tf.test.main()
