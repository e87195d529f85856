"""Tests of the reading and writing of gin files."""

import os
from unittest import mock

from absl.testing import parameterized
import gin
import tensorflow as tf

from vatt_tf.core import gin_utils
from vatt_tf.training import schedules  # noqa: F401


class GinUtilsTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    gin.clear_config()
    self.dir = self.get_temp_dir()
    self.base = self._write(
      'base.gin', 'STEPS = 100\nWarmupCosine.total_steps = %STEPS\n'
    )

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _write(self, name, text):
    path = os.path.join(self.dir, name)
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
    return path

  def test_later_files_and_params_override(self):
    later = self._write('later.gin', 'STEPS = 200\n')
    gin_utils.parse([self.base, later])
    self.assertEqual(
      gin.get_configurable('WarmupCosine')(warmup_steps=0).total_steps, 200
    )
    gin_utils.parse(
      [self.base, later], ['STEPS=300', 'WarmupCosine.warmup_steps=7']
    )
    schedule = gin.get_configurable('WarmupCosine')()
    self.assertEqual((schedule.total_steps, schedule.warmup_steps), (300, 7))

  def test_files_of_the_repository_are_found_from_anywhere(self):
    here = os.getcwd()
    os.chdir(self.dir)
    try:
      self.assertEndsWith(
        gin_utils.find_file('gin/pretrain_ma_medium.gin'),
        'gin/pretrain_ma_medium.gin',
      )
    finally:
      os.chdir(here)

  def test_missing_file_lists_those_there_are(self):
    with self.assertRaisesRegex(ValueError, r'nothing\.gin.*pretrain_ma_base'):
      gin_utils.parse(['nothing.gin'])

  def test_home_is_expanded(self):
    path = self._write('home.gin', "FILE = '~/a [1]/b'\nOTHER = 'a~/b'\n")
    with mock.patch.dict(os.environ, HOME='/nowhere/me'):
      gin_utils.parse([path], ["OTHER='~/c'"])
      self.assertEqual(gin.query_parameter('%FILE'), '/nowhere/me/a [1]/b')
      self.assertEqual(gin.query_parameter('%OTHER'), '/nowhere/me/c')
      gin_utils.parse([path])
    self.assertEqual(gin.query_parameter('%OTHER'), 'a~/b')

  @parameterized.parameters(
    ("SIZE='x'", 'SIZE must be a whole number, such as SIZE=4. .*SIZE=.x'),
    ('SIZE=4.5', 'must be a whole number'),
    ('SIZE=True', 'must be a whole number'),
    ("RATE='x'", 'RATE must be a number'),
    ('FILE=3', "FILE must be a string in quotes, such as FILE='a'"),
    ('FILE=True', 'must be a string'),
    ('IS_ON=1', 'IS_ON must be True or False'),
    ('IS_ON=None', 'IS_ON must be True or False'),
  )
  def test_macro_of_another_kind(self, binding, message):
    path = self._write(
      'kinds.gin', "SIZE = 4\nRATE = 0.5\nFILE = 'a'\nIS_ON = False\n"
    )
    with self.assertRaisesRegex(ValueError, message):
      gin_utils.parse([path], [binding])

  def test_macros_of_the_same_kind(self):
    path = self._write(
      'kinds.gin',
      "SIZE = 4\nRATE = 0.5\nFILE = 'a'\nIS_ON = False\nNOTHING = None\n",
    )
    bindings = [
      'SIZE=5',
      'RATE=1',
      "FILE=['a', 'b']",
      'IS_ON=True',
      "NOTHING='x'",
    ]
    gin_utils.parse([path], bindings)
    self.assertEqual(gin.query_parameter('%FILE'), ['a', 'b'])
    # What may be left out is found where it is used.
    gin_utils.parse([path], ['SIZE=None', 'RATE=None', 'FILE=None'])
    gin_utils.parse([path, self.base], ['SIZE=%STEPS', 'NOTHING=3'])
    self.assertEqual(gin.query_parameter('%NOTHING'), 3)

  def test_unknown_macro_is_an_error(self):
    with self.assertRaisesRegex(ValueError, '`STEP`.*The macros are: STEPS'):
      gin_utils.parse([self.base], ['STEP=3'])

  def test_unknown_configurable_lists_the_names(self):
    bad = self._write('bad.gin', 'WarmupCosinus.total_steps = 3\n')
    with self.assertRaisesRegex(
      ValueError, 'no configurable named `WarmupCosinus`.*WarmupCosine'
    ):
      gin_utils.parse([bad])

  def test_unknown_parameter_lists_the_parameters(self):
    with self.assertRaisesRegex(
      ValueError, 'no parameter `total_step`.*total_steps.*warmup_steps'
    ):
      gin_utils.parse([self.base], ['WarmupCosine.total_step=3'])

  def test_param_without_value(self):
    with self.assertRaisesRegex(ValueError, 'NAME=value'):
      gin_utils.parse([self.base], ['STEPS'])

  def test_config_beside_a_checkpoint(self):
    run = self.create_tempdir()
    path = run.create_file('config.gin').full_path
    run.mkdir('best')
    for checkpoint in ('', 'ckpt-3', 'best', 'best/ckpt-2'):
      self.assertEqual(
        gin_utils.config_beside(os.path.join(run.full_path, checkpoint)), path
      )
    with self.assertRaisesRegex(ValueError, 'no .*config.gin.*--gin_file'):
      gin_utils.config_beside(self.create_tempdir().full_path)

  def test_operative_config_reproduces_the_run(self):
    gin_utils.parse([self.base], ['WarmupCosine.warmup_steps=7'])
    first = gin.get_configurable('WarmupCosine')()
    gin_utils.write_config(self.dir)
    gin_utils.write_operative_config(self.dir)
    for name in ('config.gin', 'operative_config.gin'):
      gin_utils.parse([os.path.join(self.dir, name)])
      again = gin.get_configurable('WarmupCosine')()
      self.assertEqual(first.get_config(), again.get_config())


if __name__ == '__main__':
  tf.test.main()
