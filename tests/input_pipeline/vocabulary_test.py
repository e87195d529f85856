"""Tests of vocabularies and of the command that makes one."""

import os
import subprocess
import sys

import tensorflow as tf

from vatt_tf.input_pipeline import records, text, vocabulary

_CAPTIONS = [b'A red ball, a BALL', b'the blue ball', b'red']


class BuildVocabularyTest(tf.test.TestCase):
  def test_most_frequent_first_ties_alphabetical(self):
    words = vocabulary.build_vocabulary(_CAPTIONS)
    self.assertEqual(
      words,
      [*text.SPECIAL_TOKENS, 'ball', 'a', 'red', 'blue', 'the'],
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
    vocabulary.write_vocabulary(
      path, vocabulary.build_vocabulary(_CAPTIONS)
    )
    tokenizer = text.WordTokenizer(path)
    ids = tokenizer.tokenize(tf.constant(['red ball green'])).to_list()
    self.assertEqual(ids, [[6, 4, 3]])
    self.assertEqual(os.listdir(os.path.dirname(path)), ['vocabulary.txt'])

  def test_captions_of_a_manifest(self):
    path = os.path.join(self.get_temp_dir(), 'manifest.csv')
    with open(path, 'w', encoding='utf-8-sig') as file:
      file.write('video_path,caption\na.mp4,"Red, ball"\nb.mp4,\n')
    captions = list(vocabulary.captions_of_manifest(path))
    self.assertEqual(captions, [b'Red, ball'])
    with open(path, 'w', encoding='utf-8') as file:
      file.write('video_path,text\na.mp4,x\n')
    with self.assertRaisesRegex(ValueError, '`caption`.*video_path, text'):
      list(vocabulary.captions_of_manifest(path))
    with open(path, 'wb') as file:
      file.write(b'video_path,caption\na,\xe9\n')
    with self.assertRaisesRegex(ValueError, 'UTF-8.*byte 21'):
      list(vocabulary.captions_of_manifest(path))
    with self.assertRaisesRegex(ValueError, 'no manifest'):
      list(vocabulary.captions_of_manifest('/none.csv'))

  def test_command(self):
    folder = self.get_temp_dir()
    shard = records.shard_path(folder, 'train', 0, 1)
    with records.ShardWriter(shard) as writer:
      for caption in _CAPTIONS:
        caption = records.Caption(caption.decode())
        writer.write(records.Clip(example_id='a', captions=[caption]))
    output = os.path.join(folder, 'vocabulary.txt')
    command = [sys.executable, '-m', 'vatt_tf.build_vocabulary']
    subprocess.run(
      [*command, f'--records={folder}/train-*', f'--output={output}'],
      check=True,
      capture_output=True,
    )
    with open(output, encoding='utf-8') as file:
      self.assertEqual(file.read().split()[4:6], ['ball', 'a'])
    failed = subprocess.run(
      [*command, f'--records={folder}/none-*', f'--output={output}'],
      check=False,
      capture_output=True,
      text=True,
    )
    self.assertEqual(failed.returncode, 1)
    self.assertIn('No file matches the record pattern', failed.stderr)
    self.assertNotIn('Traceback', failed.stderr)


if __name__ == '__main__':
  tf.test.main()
