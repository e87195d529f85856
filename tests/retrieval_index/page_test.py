"""Tests of the web page in a browser: typing, dropping, keyboard alone.

They need Chromium, on the path or named by the environment variable
VATT_TF_CHROMIUM; without it they are skipped and say so. With
VATT_TF_SCREENSHOTS=FOLDER they leave pictures of the page there.
"""

import base64
import os
import re
import shutil
import time
import unittest

import tensorflow as tf

from tests.retrieval_index import searchable

_CHROMIUM = os.environ.get('VATT_TF_CHROMIUM') or shutil.which('chromium')
_SCREENSHOTS = os.environ.get('VATT_TF_SCREENSHOTS')
_LIMIT = 1 << 20

# What has no name that a screen reader can say.
_NAMELESS = """() => {
  const found = [];
  const what = 'a, button, input, video, audio, fieldset, section, ol, ul';
  for (const one of document.querySelectorAll(what)) {
    if (!one.checkVisibility()) continue;
    const legend = one.querySelector(':scope > legend, :scope > h2');
    const label = one.labels && one.labels[0];
    const name = one.getAttribute('aria-label')
      || (label && label.textContent.trim())
      || (legend && legend.textContent.trim())
      || ('OL UL SECTION FIELDSET'.includes(one.tagName)
          ? '' : one.textContent.trim());
    if (!name) found.push(one.outerHTML.slice(0, 120));
  }
  return found;
}"""
# Reads an answer whose body breaks off.
_READ_BROKEN = """async ([status, name]) => {
  const real = window.fetch;
  window.fetch = async () => ({
    status,
    ok: status < 400,
    json: async () => { throw new DOMException('it broke off', name); },
  });
  try {
    return await fetchJson('/api/index');
  } catch (error) {
    return `${error.name}: ${error.message}`;
  } finally {
    window.fetch = real;
  }
}"""
# Drops a file, as a file manager does.
_DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type}));
  for (const event of ['dragenter', 'dragover', 'drop']) {
    document.body.dispatchEvent(new DragEvent(
      event, {bubbles: true, cancelable: true, dataTransfer: transfer}));
    if (event === 'dragover') {
      window.wasOver = !document.getElementById('drop').hidden;
    }
  }
}"""


@unittest.skipUnless(
  _CHROMIUM,
  'There is no Chromium: `apt-get install chromium`, or set VATT_TF_CHROMIUM.',
)
class PageTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # With the tests of the requests alone, no browser is needed.
    from playwright import sync_api

    cls.files = searchable.get()
    cls.address = cls._serve()
    cls.api = sync_api
    playwright = cls.enterClassContext(sync_api.sync_playwright())
    cls.browser = playwright.chromium.launch(
      executable_path=_CHROMIUM, args=['--no-sandbox', '--disable-gpu']
    )
    cls.addClassCleanup(cls.browser.close)

  @classmethod
  def _serve(cls):
    """The address of the page."""
    return cls.enterClassContext(
      searchable.serve(cls.files.searcher, max_upload_bytes=_LIMIT)
    )

  def setUp(self):
    super().setUp()
    context = self.browser.new_context(
      viewport={'width': 1280, 'height': 860},
      permissions=['clipboard-read', 'clipboard-write'],
    )
    self.addCleanup(context.close)
    context.set_default_timeout(15_000)
    self.page = context.new_page()
    self.faults = []
    self.page.on('pageerror', lambda error: self.faults.append(str(error)))
    self.page.on(
      'console',
      lambda said: (
        self.faults.append(said.text)
        if 'Content Security Policy' in said.text
        else None
      ),
    )
    self.addCleanup(lambda: self.assertEmpty(self.faults))

  def _open(self, path=''):
    self.page.goto(self.address + path)
    self.page.wait_for_selector('#about:not(:empty)')
    return self.page

  def _wait(self, count=None):
    """Waits for results; returns the names of the files, in order."""
    self.page.wait_for_selector('#results[aria-busy=false] .card')
    names = self.page.locator('.card .name').all_inner_texts()
    if count is not None:
      self.assertLen(names, count)
    return names

  def _until(self, expression, of=None):
    """Waits for JavaScript to be true, which the page itself may not run."""
    where = self.page if of is None else of
    end = time.monotonic() + 15
    while not where.evaluate(expression):
      self.assertLess(time.monotonic(), end, expression)
      self.page.wait_for_timeout(20)

  def _shot(self, name, **arguments):
    if _SCREENSHOTS:
      os.makedirs(_SCREENSHOTS, exist_ok=True)
      self.page.wait_for_timeout(500)  # for the first frames
      path = os.path.join(_SCREENSHOTS, f'{name}.png')
      self.page.screenshot(path=path, **arguments)

  def _drop(self, name, kind, data=None):
    if data is None:
      with open(os.path.join(self.files.media, name), 'rb') as file:
        data = file.read()
    name = os.path.basename(name)
    self.page.evaluate(_DROP, [name, kind, base64.b64encode(data).decode()])

  def test_typing(self):
    page = self._open()
    self.assertEqual(page.inner_text('h2'), 'What are you looking for?')
    self._shot('start')
    page.click('#text')
    page.keyboard.type('a red star')
    page.keyboard.press('Enter')
    names = self._wait(searchable.NUM_MOMENTS)
    expected = self.files.searcher.by_text('a red star').hits
    self.assertEqual(
      names, [os.path.basename(hit.moment.path) for hit in expected]
    )
    self.assertEqual(
      page.locator('.card .number').all_inner_texts(),
      [f'{hit.score:.3f}' for hit in expected],
    )
    self.assertIn('?q=a+red+star', page.url)
    self.assertIn('a red star', page.title())
    self.assertIn('8 moments', page.inner_text('#status'))
    self.assertTrue(page.is_hidden('#start'))
    self._shot('words')
    # What files and captions say is shown, and does nothing.
    self.assertIn(
      searchable.CAPTION, page.locator('.card .caption').all_inner_texts()
    )
    self.assertEqual(page.locator('.card img').count(), 0)
    self.assertNotEqual(page.title(), 'caught')
    # Filters, and the way back.
    page.get_by_label('sounds').check()
    self._until("document.querySelectorAll('.card').length === 7")
    self.assertIn('in=audio', page.url)
    self.assertEqual(
      set(page.locator('.card .badge').all_inner_texts()), {'by its sound'}
    )
    page.go_back()
    self._until("document.querySelectorAll('.card').length === 8")
    self.assertTrue(page.get_by_label('anything').is_checked())
    page.click('#home')
    page.wait_for_selector('#start:not([hidden])')
    page.get_by_role('button', name='a blue ring turns').click()
    self._wait(searchable.NUM_MOMENTS)
    self.assertEqual(page.input_value('#text'), 'a blue ring turns')

  def test_players(self):
    page = self._open('?q=a+red+star')
    self._wait()
    player = page.get_by_label('red star.mp4, 0:00.8–0:01.6', exact=True)
    self.assertEqual(player.evaluate('one => one.tagName'), 'VIDEO')
    self._until('one => one.readyState >= 2', player)
    self.assertAlmostEqual(
      player.evaluate('one => one.currentTime'), 0.8, delta=0.05
    )
    player.evaluate('one => { one.muted = true; return one.play(); }')
    self._until('one => one.currentTime > 1', player)
    bell = page.get_by_label('bell.wav, 0:00.0–0:00.8', exact=True)
    self.assertEqual(bell.evaluate('one => one.tagName'), 'AUDIO')
    # One at a time.
    bell.evaluate('one => { one.muted = true; return one.play(); }')
    self._until('one => one.paused', player)
    said = page.locator('.unplayable').all_inner_texts()
    self.assertLen(said, 1)
    self.assertIn('cannot play it', said[0])
    self.assertIn(searchable.UNPLAYABLE, said[0])

  def test_dropping(self):
    page = self._open()
    self._drop('shapes/red star.mp4', 'video/mp4')
    self.assertTrue(page.evaluate('window.wasOver'))
    self.assertTrue(page.is_hidden('#drop'))
    names = self._wait(searchable.NUM_MOMENTS)
    self.assertEqual(names[0], 'red star.mp4')
    self.assertEqual(page.inner_text('#asked_name'), 'red star.mp4, 0.8-1.6 s')
    self.assertTrue(page.get_by_label('picture', exact=True).is_checked())
    # It has no link: others do not have the file.
    self.assertTrue(page.is_hidden('#copy'))
    self.assertEqual(page.url, self.address)
    self._shot('dropped')
    page.get_by_label('sound', exact=True).check()
    self._until(
      "document.getElementById('status').textContent.includes('moments')"
    )
    self.assertTrue(page.get_by_label('sound', exact=True).is_checked())
    self._drop('bell.wav', 'audio/wav')
    self._until(
      "document.getElementById('asked_name').textContent.includes(' s')"
      " && document.getElementById('asked_name').textContent.includes('bell')"
    )
    self._wait(searchable.NUM_MOMENTS)
    page.get_by_role('button', name='Clear').click()
    page.wait_for_selector('#start:not([hidden])')
    # By the button for those who do not drag.
    page.set_input_files('#file', os.path.join(self.files.media, 'bell.wav'))
    self._wait(searchable.NUM_MOMENTS)

  def test_files_that_cannot_be_used(self):
    page = self._open()
    with open(
      os.path.join(self.files.media, 'shapes/red star.mp4'), 'rb'
    ) as file:
      data = file.read(3000)
    self._drop('broken.mp4', 'video/mp4', data)
    page.wait_for_selector('#error:not([hidden])')
    self.assertIn('FFmpeg cannot open it', page.inner_text('#error'))
    self._shot('broken')
    self._drop('large.mp4', 'video/mp4', b'a' * (_LIMIT + 1))
    self._until("document.getElementById('error').textContent.includes('1 MB')")
    page.fill('#text', '   ')
    page.keyboard.press('Enter')
    page.wait_for_selector('#start:not([hidden])')
    page.fill('#text', 'a star')
    page.keyboard.press('Enter')
    self._wait(searchable.NUM_MOMENTS)
    self.assertTrue(page.is_hidden('#error'))

  def test_links(self):
    page = self._open('?q=a+red+star&in=video')
    names = self._wait(6)
    self.assertTrue(page.get_by_label('pictures').is_checked())
    page.get_by_role('button', name='Copy link').click()
    self._until(
      "document.getElementById('status').textContent.includes('copied')"
    )
    link = page.evaluate('navigator.clipboard.readText()')
    self.assertEqual(link, f'{self.address}?q=a+red+star&in=video')
    page.get_by_role(
      'link', name=re.compile('More like the sound of blue ring.mp4, 0:00.0')
    ).click()
    self._until("location.search.includes('like=')")
    like = page.url
    self._until(
      "document.getElementById('asked_name').textContent.includes(' s')"
    )
    found = self._wait()
    self.assertEqual(
      page.inner_text('#asked_name'), 'shapes/blue ring.mp4, 0.0-0.8 s'
    )
    self.assertTrue(page.get_by_label('sound', exact=True).is_checked())
    # In another window they say the same.
    self._open(like.removeprefix(self.address))
    self.assertEqual(self._wait(), found)
    self._open(link.removeprefix(self.address))
    self.assertEqual(self._wait(6), names)
    self._open('?like=0123456789abcdef')
    page.wait_for_selector('#error:not([hidden])')
    self.assertIn('no moment', page.inner_text('#error'))

  def test_where_it_is(self):
    page = self._open('?q=a+red+star&in=video')
    self._wait(6)
    card = page.locator('.card').filter(has_text='blue ring.mp4').first
    button = card.locator('.where_button')
    self.assertEqual(button.inner_text(), 'Show where')
    button.click()
    canvas = card.locator('canvas.map')
    canvas.wait_for()
    self.assertEqual(button.get_attribute('aria-pressed'), 'true')
    self.assertIn('The brighter', page.inner_text('#status'))
    self._until(
      '(canvas) => canvas.width > 0 && canvas.clientWidth > 50', canvas
    )
    shown = canvas.evaluate(
      """(canvas) => {
        const video = canvas.parentElement.querySelector('video');
        const data = canvas.getContext('2d').getImageData(
          0, 0, canvas.width, canvas.height).data;
        const alphas = [...data].filter((_, i) => i % 4 === 3);
        return {
          width: canvas.width,
          height: canvas.height,
          share: canvas.clientWidth / video.clientHeight,
          low: Math.min(...alphas),
          high: Math.max(...alphas),
        };
      }"""
    )
    self.assertGreater(shown['width'], 1)
    self.assertEqual((shown['low'], shown['high']), (0, 200))
    # The square in the middle, which the model sees.
    self.assertAllClose(shown['share'], 0.875, atol=0.03)
    self._shot('where')
    page.keyboard.press('w')
    canvas.wait_for(state='detached')
    self.assertEqual(button.get_attribute('aria-pressed'), 'false')
    page.keyboard.press('w')
    canvas.wait_for()
    # A file that the browser does not play has no map, and a sound neither.
    old = page.locator('.card').filter(has_text='.avi').first
    old.get_by_text('This browser cannot play it').wait_for()
    self.assertFalse(old.locator('.where_button').is_visible())
    page = self._open('?q=a+red+star&in=audio')
    self._wait()
    bell = page.locator('.card').filter(has_text='bell.wav').first
    self.assertFalse(bell.locator('.where_button').is_visible())

  def test_keyboard_alone(self):
    page = self._open()

    def focused():
      return page.evaluate(
        "document.activeElement.getAttribute('aria-label')"
        ' || document.activeElement.id'
        ' || document.activeElement.textContent.trim()'
      )

    def tab_to(name, most=30):
      for _ in range(most):
        page.keyboard.press('Tab')
        if name in focused():
          return
      self.fail(f'{name} is not reached; the focus is on {focused()}')

    page.evaluate('document.activeElement.blur()')
    page.keyboard.press('/')
    self.assertEqual(focused(), 'text')
    page.keyboard.type('blue/red')
    self.assertEqual(page.input_value('#text'), 'blue/red')
    page.keyboard.press('Enter')
    self._wait(searchable.NUM_MOMENTS)
    page.keyboard.press('Tab')
    self.assertEqual(focused(), 'Search')
    page.keyboard.press('Tab')  # the filters, then its choices by arrows
    page.keyboard.press('ArrowDown')
    self._until("location.search.includes('in=video')")
    self._wait(6)
    tab_to('file')
    self.assertEqual(
      page.evaluate(
        "getComputedStyle(document.querySelector('#file + label')).outlineStyle"
      ),
      'solid',
    )
    tab_to('More like the picture')
    self._shot('keyboard')
    page.keyboard.press('Enter')
    page.wait_for_selector('#asked:not([hidden])')
    self._wait()
    self.assertIn('like=', page.url)
    page.reload()
    self._wait()
    self.assertEqual(focused(), 'text')
    page.keyboard.press('Shift+Tab')
    page.keyboard.press('Shift+Tab')
    self.assertEqual(focused(), 'Skip to the results')
    page.keyboard.press('Enter')
    self.assertEqual(focused(), 'Results')

  def test_names_for_screen_readers(self):
    page = self._open()
    self.assertEmpty(page.evaluate(_NAMELESS))
    page = self._open('?q=a+red+star')
    self._wait()
    self.assertEmpty(page.evaluate(_NAMELESS))
    self.assertEqual(page.get_attribute('html', 'lang'), 'en')

  def test_narrow_and_dark(self):
    page = self._open('?q=a+red+star')
    self._wait()
    for width in (320, 390, 768):
      page.set_viewport_size({'width': width, 'height': 780})
      self.assertLessEqual(
        page.evaluate('document.documentElement.scrollWidth'), width
      )
      self._shot(f'width_{width}')
    page.emulate_media(color_scheme='dark')
    page.set_viewport_size({'width': 1280, 'height': 860})
    self._shot('dark')
    self.assertEqual(
      page.evaluate('getComputedStyle(document.body).backgroundColor'),
      'rgb(20, 22, 27)',
    )

  def test_waiting_and_no_server(self):
    page = self._open()
    waiting = []
    page.route('**/api/search?*', lambda route: waiting.append(route))
    page.fill('#text', 'a star')
    page.keyboard.press('Enter')
    page.wait_for_selector('#results[aria-busy=true] .waiting')
    self.assertEqual(page.inner_text('#status'), 'Searching…')
    self._shot('waiting')
    # What is asked later is what is shown.
    page.fill('#text', 'a ring')
    page.keyboard.press('Enter')
    while len(waiting) < 2:
      page.wait_for_timeout(20)
    waiting[1].continue_()
    self._wait(searchable.NUM_MOMENTS)
    page.unroute('**/api/search?*')
    page.route('**/api/search?*', lambda route: route.abort())
    page.fill('#text', 'a cross')
    page.keyboard.press('Enter')
    page.wait_for_selector('#error:not([hidden])')
    self.assertIn('cannot be reached', page.inner_text('#error'))
    self.assertEqual(page.locator('.waiting').count(), 0)
    page.unroute('**/api/search?*')
    page.route(
      '**/api/search?*', lambda route: route.fulfill(status=502, body='<b>')
    )
    page.keyboard.press('Enter')
    self._until("document.getElementById('error').textContent.includes('502')")
    page.unroute('**/api/search?*')
    page.route(
      '**/api/search?*',
      lambda route: route.fulfill(
        json={'query': 'x', 'kind': 'text', 'space': 'video_text',
              'results': []}
      ),
    )  # fmt: skip
    page.keyboard.press('Enter')
    self._until(
      "document.getElementById('status').textContent === 'Nothing was found.'"
    )

  def test_answers_that_break_off(self):
    page = self._open()
    for (status, name), expected in {
      (200, 'AbortError'): 'AbortError: it broke off',
      (502, 'AbortError'): 'AbortError: it broke off',
      (200, 'NetworkError'): 'NetworkError: it broke off',
      (502, 'NetworkError'): 'Error: The server says 502.',
    }.items():
      self.assertEqual(page.evaluate(_READ_BROKEN, [status, name]), expected)


class PageBelowPathTest(PageTest):
  """The same behind a proxy, at a path of its own."""

  @classmethod
  def _serve(cls):
    return cls.enterClassContext(searchable.below_path(super()._serve()))


if __name__ == '__main__':
  tf.test.main()
