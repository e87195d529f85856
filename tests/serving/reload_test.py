"""Versions that come and go while a server runs."""

import gc
import os
import shutil
import socket
import threading
import time
from unittest import mock
import weakref

from absl.testing import parameterized
from google.protobuf import text_format
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.config import model_server_config_pb2

from tests.serving import served_models
from vatt_tf.serving import errors, models

_X = {'x': np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)}


class ReloadTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.base_path = os.path.join(self.get_temp_dir(), self._testMethodName)

  def _start(self, **options):
    self.server = served_models.start(
      self, self.base_path, 'plain', poll_seconds=0.05, **options
    )
    self.stub = served_models.stub(self, self.server.port)

  def _ask(self, version=None, signature='', inputs=None):
    """The version that answered, and what it added."""
    response = self.stub.Predict(
      served_models.make_request(signature, inputs or _X, 'plain', version),
      timeout=60,
    )
    found = served_models.outputs(response)
    found = found.get('sum', found.get('value'))
    [added] = set((found - (inputs or _X)['x']).ravel().tolist())
    return response.model_spec.version.value, added

  def _states(self):
    response = self.server._models.status('plain')
    name = models.State.Name
    return {v.version: name(v.state) for v in response.model_version_status}

  def _error(self, version):
    response = self.server._models.status('plain', version)
    return response.model_version_status[0].status

  @parameterized.parameters(
    'a [b]', 'a*b', 'back\\slash', '{x,y} 100%', ' ~ "q\'?', '[!a]'
  )
  def test_name_of_the_folder_is_no_pattern(self, name):
    self.base_path = os.path.join(self.base_path, name, 'plain')
    served_models.write_plain(self.base_path, 1, warmup=[[1.0]])
    self._start()
    self.assertEqual(self._ask(), (1, 1.0))

  def test_reload_under_load_loses_nothing(self):
    served_models.write_plain(self.base_path, 1)
    self._start()
    wrong, counts, done = [], {}, threading.Event()

    def ask():
      last = 0
      while not done.is_set():
        try:
          version, added = self._ask()
        except Exception as e:  # noqa: BLE001, whatever it is, it is wrong
          wrong.append(e)
          return
        if added != version or version < last:
          wrong.append((version, added, last))
        last = version
        counts[version] = counts.get(version, 0) + 1

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
      thread.start()
    try:
      for version in (2, 3):
        served_models.write_plain(self.base_path, version, warmup=[[0.0]])
        served_models.wait_until(
          lambda v=version: wrong or counts.get(v, 0) > 20
        )
    finally:
      done.set()
      for thread in threads:
        thread.join()
    self.assertEqual(wrong, [])
    self.assertEqual(set(counts), {1, 2, 3})
    served_models.wait_until(
      lambda: self._states() == {1: 'END', 2: 'END', 3: 'AVAILABLE'}
    )
    with self.assertRaisesRegex(grpc.RpcError, 'Available: 3'):
      self._ask(version=1)

  def test_the_old_version_finishes_what_it_has(self):
    served_models.write_plain(self.base_path, 1)
    self._start()
    seconds = {'x': np.array([1.5])}
    found = []
    thread = threading.Thread(
      target=lambda: found.append(self._ask(1, 'sleep', seconds))
    )
    thread.start()
    served_models.wait_until(
      lambda: self.server._models._models['plain'].entries[1].num_users
    )
    served_models.write_plain(self.base_path, 2)
    served_models.wait_until(lambda: self._states().get(2) == 'AVAILABLE')
    self.assertEqual(self._ask(), (2, 2.0))  # and nobody waits for that
    self.assertEqual(found, [])
    served_models.wait_until(lambda: self._states()[1] == 'UNLOADING')
    thread.join()
    self.assertEqual(found, [(1, 1.0)])
    served_models.wait_until(lambda: self._states()[1] == 'END')

  def test_a_broken_version_is_reported_and_the_old_one_serves(self):
    served_models.write_plain(self.base_path, 1)
    self._start()
    whole = os.path.join(self.get_temp_dir(), 'whole')
    served_models.write_plain(whole, 2)
    broken = os.path.join(self.base_path, '2')
    os.makedirs(broken)
    served_models.wait_until(lambda: self._states().get(2) == 'END')
    self.assertIn('saved_model.pb', self._error(2).error_message)
    # As a slow copy would make it: the variables are the last to come.
    shutil.copy(os.path.join(whole, '2', 'saved_model.pb'), broken)
    served_models.wait_until(
      lambda: 'variables' in self._error(2).error_message
    )
    self.assertNotEqual(self._error(2).error_code, 0)
    self.assertEqual(self._ask(), (1, 1.0))
    shutil.copytree(os.path.join(whole, '2'), broken, dirs_exist_ok=True)
    served_models.wait_until(lambda: self._states().get(2) == 'AVAILABLE')
    self.assertEqual(self._ask(), (2, 2.0))

  def test_a_broken_version_is_tried_once(self):
    served_models.write_plain(self.base_path, 1)
    os.makedirs(os.path.join(self.base_path, '2'))
    with self.assertLogs(level='ERROR') as logs:
      self._start()  # version 1 serves
      time.sleep(0.5)
    self.assertLen(logs.records, 1)
    self.assertIn('plain version 2 cannot be loaded', logs.output[0])
    self.assertEqual(self._states(), {1: 'AVAILABLE', 2: 'END'})

  def test_wrong_warm_up_requests_are_an_error(self):
    served_models.write_plain(self.base_path, 1)
    self._start()
    served_models.write_plain(self.base_path, 2, warmup=[b'text'])
    served_models.wait_until(lambda: self._states().get(2) == 'END')
    self.assertIn('`x` must be float32', self._error(2).error_message)
    self.assertEqual(self._ask(), (1, 1.0))

  def test_rollback_and_an_empty_folder(self):
    for version in (1, 2):
      served_models.write_plain(self.base_path, version)
    self._start()
    self.assertEqual(self._ask(), (2, 2.0))
    self.assertEqual(self._states(), {2: 'AVAILABLE'})
    entries = self.server._models._models['plain'].entries
    graph = weakref.ref(entries[2].version._session.graph)
    shutil.rmtree(os.path.join(self.base_path, '2'))
    served_models.wait_until(lambda: self._states().get(2) == 'END')
    self.assertEqual(self._ask(), (1, 1.0))

    def is_gone():
      gc.collect()
      return graph() is None

    served_models.wait_until(is_gone)  # nothing is left of it
    shutil.rmtree(self.base_path)
    time.sleep(0.3)
    self.assertEqual(self._ask(), (1, 1.0))

  @parameterized.parameters(
    ('all {}', {1, 2, 3}),
    ('latest { num_versions: 2 }', {2, 3}),
    ('specific { versions: 1 versions: 3 }', {1, 3}),
  )
  def test_version_policies(self, policy, expected):
    for version in (1, 2, 3):
      served_models.write_plain(self.base_path, version)
    path = os.path.join(self.base_path, 'models.config')
    with open(path, 'w') as file:
      file.write(
        f'model_config_list {{ config {{ name: "plain" base_path: '
        f'"{self.base_path}" model_platform: "tensorflow" '
        f'model_version_policy {{ {policy} }} }} }}'
      )
    self._start(config=models.read_config(path))
    self.assertEqual(self._states(), dict.fromkeys(expected, 'AVAILABLE'))
    for version in expected:
      self.assertEqual(self._ask(version), (version, version))
    self.assertEqual(self._ask()[0], max(expected))

  def test_two_models(self):
    config = model_server_config_pb2.ModelServerConfig()
    for name in ('one', 'plain'):
      served_models.write_plain(f'{self.base_path}/{name}', 5, len(name))
      config.model_config_list.config.add(
        name=name, base_path=f'{self.base_path}/{name}'
      )
    self._start(config=config)
    self.assertEqual(self._ask(), (5, 5.0))
    request = served_models.make_request('', _X, 'one')
    found = served_models.outputs(self.stub.Predict(request))
    self.assertAllEqual(found['sum'], _X['x'] + 3)


class ConfigTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(
    ('', 'must be a model to serve'),
    ('config { name: "a" }', '`base_path` must be given.*name: "a"'),
    ('config { base_path: "/x" }', '`name` must be given'),
    (
      'config { name: "a" base_path: "/x" } ' * 2,
      '`name` must differ.*a twice',
    ),
  )
  def test_refuses(self, text, message):
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(f'model_config_list {{ {text} }}', config)
    with self.assertRaisesRegex(ValueError, message):
      models.Models(config)

  def test_refuses_files(self):
    path = os.path.join(self.get_temp_dir(), 'models.config')
    with open(path, 'w') as file:
      file.write('models: 3')
    with self.assertRaisesRegex(ValueError, 'must be a `model_config_list`'):
      models.read_config(path)
    for missing in (f'{path}.missing', self.get_temp_dir()):
      with self.assertRaisesRegex(OSError, f'Cannot read {missing}: '):
        models.read_config(missing)

  @parameterized.parameters(
    (os, 'listdir', PermissionError(13, 'not yours')),
    (
      tf.io.gfile,
      'stat',
      tf.errors.PermissionDeniedError(None, None, 'not yours'),
    ),
  )
  def test_refuses_folders_that_cannot_be_read(self, module, function, denied):
    base_path = os.path.join(self.get_temp_dir(), f'unreadable_{function}')
    os.makedirs(os.path.join(base_path, '1'))
    with open(os.path.join(base_path, '1', 'saved_model.pb'), 'w'):
      pass
    served = models.Models(models.model_config('plain', base_path))
    with mock.patch.object(module, function, side_effect=denied):
      with self.assertRaisesRegex(OSError, f'{base_path}.*plain.*not yours'):
        served.start()

  def test_refuses_ports_that_are_taken(self):
    base_path = os.path.join(self.get_temp_dir(), 'taken')
    served_models.write_plain(base_path, 1)
    with socket.create_server(('127.0.0.1', 0)) as taken:
      port = taken.getsockname()[1]
      for name in ('port', 'rest_port'):
        with self.assertRaisesRegex(OSError, f'Cannot listen at .*:{port}'):
          served_models.start(self, base_path, **{name: port})

  def test_refuses_to_start_without_a_version(self):
    folder = os.path.join(self.get_temp_dir(), 'empty')
    for setup, message in (
      (lambda: None, 'there is no folder named by a number'),
      (lambda: os.makedirs(f'{folder}/3'), 'version 3: .*saved_model.pb'),
    ):
      setup()
      served = models.Models(models.model_config('plain', folder))
      with self.assertRaisesRegex(ValueError, message):
        served.start()
      with self.assertRaises(errors.StatusError):
        served.status('other')


if __name__ == '__main__':
  tf.test.main()
