// The search page: what is asked stands in the address, answers in a grid.

'use strict';

const NAMES = {any: 'anything', video: 'pictures', audio: 'sounds'};
const KIND_NAMES = {video: 'picture', audio: 'sound'};
const SPACE_NAMES = {
  video_audio: 'video and sound',
  video_text: 'video and text',
};
const TOP = 24;

const byId = (id) => document.getElementById(id);
const text = byId('text');
const results = byId('results');

// What can be searched: the answer of /api/index.
let about = null;
// What is asked: {text}, {like, by} or {file, by}, and the modality.
let asked = {modality: 'any'};
// Stops a request that nobody waits for any more.
let controller = null;

// Addresses. All are relative: the page may lie below a path of a proxy.

function readAddress() {
  const values = new URLSearchParams(location.search);
  const found = {modality: values.get('in') || 'any'};
  if (values.get('like')) {
    found.like = values.get('like');
    found.by = values.get('by') || '';
  } else if (values.get('q')) {
    found.text = values.get('q');
  }
  return found;
}

function addressOf(query) {
  const values = new URLSearchParams();
  if (query.like) {
    values.set('like', query.like);
    if (query.by) values.set('by', query.by);
  } else if (query.text) {
    values.set('q', query.text);
  }
  if (query.modality !== 'any') values.set('in', query.modality);
  const search = values.toString();
  return search ? `?${search}` : './';
}

// Asking.

function ask(query, isNew = true) {
  asked = {modality: asked.modality, ...query};
  const address = new URL(addressOf(asked), location.href);
  if (isNew && address.pathname + address.search
      !== location.pathname + location.search) {
    history.pushState(null, '', address);
  }
  run();
}

async function run() {
  if (controller) controller.abort();
  controller = new AbortController();
  const {signal} = controller;
  const query = asked;
  showAsked(query, null);
  showError('');
  byId('copy').hidden = true;
  const isAsked = Boolean(query.text || query.like || query.file);
  byId('start').hidden = isAsked;
  document.title = 'Search - vatt_tf';
  if (!isAsked) {
    results.replaceChildren();
    results.setAttribute('aria-busy', 'false');
    say('');
    return;
  }
  document.title = `${nameOf(query)} - vatt_tf search`;
  showWaiting();
  say(query.file ? `Reading ${query.file.name}…` : 'Searching…');
  try {
    const answer = await request(query, signal);
    showAsked(query, answer);
    showResults(answer);
    byId('copy').hidden = Boolean(query.file) || !navigator.clipboard;
  } catch (error) {
    if (signal.aborted) return;
    results.replaceChildren();
    say('');
    showError(error.message);
  }
  results.setAttribute('aria-busy', 'false');
}

async function request(query, signal) {
  const values = new URLSearchParams({modality: query.modality, top: TOP});
  const options = {signal};
  if (query.by) values.set('by', query.by);
  if (query.file) {
    const limit = about.max_upload_bytes;
    if (query.file.size > limit) {
      throw new Error(
        `${query.file.name} is larger than ${Math.floor(limit / 2 ** 20)} MB, `
        + 'the most that is taken. Cut out the part to search with.');
    }
    options.method = 'POST';
    options.body = query.file;
    options.headers = {'X-File-Name': encodeURIComponent(query.file.name)};
  } else if (query.like) {
    values.set('like', query.like);
  } else {
    values.set('text', query.text);
  }
  return fetchJson(`api/search?${values}`, options);
}

async function fetchJson(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error(
      'The server cannot be reached. Is `python -m vatt_tf.search serve` '
      + 'still running?');
  }
  const found = await response.json().catch((error) => {
    if (response.ok || error.name === 'AbortError') throw error;
    return {};
  });
  if (!response.ok) {
    throw new Error(found.error || `The server says ${response.status}.`);
  }
  return found;
}

// Showing.

function say(words) {
  byId('status').textContent = words;
}

function showError(words) {
  byId('error').textContent = words;
  byId('error').hidden = !words;
}

function nameOf(query) {
  if (query.file) return query.file.name;
  return query.text || 'More like this';
}

function showAsked(query, answer) {
  text.value = query.text || '';
  for (const input of document.querySelectorAll('[name=modality]')) {
    input.checked = input.value === query.modality;
  }
  byId('asked').hidden = !(query.file || query.like);
  if (byId('asked').hidden) return;
  byId('asked_what').textContent = query.file ? 'With the file' : 'More like';
  const unknown = query.file ? query.file.name : '…';
  byId('asked_name').textContent = answer ? answer.query : unknown;
  const by = answer ? answer.kind : query.by;
  const kinds = answer && answer.like ? answer.like.kinds : about.kinds;
  byId('by').hidden = !(kinds.includes('video') && kinds.includes('audio'));
  for (const input of document.querySelectorAll('[name=by]')) {
    input.checked = input.value === by;
  }
}

function showWaiting() {
  results.setAttribute('aria-busy', 'true');
  results.replaceChildren(...Array.from({length: 8}, () => {
    const item = document.createElement('li');
    item.className = 'waiting';
    item.setAttribute('aria-hidden', 'true');
    return item;
  }));
}

function showResults(answer) {
  results.replaceChildren(
    ...answer.results.map((result) => makeCard(result, answer.query_name)));
  const count = answer.results.length;
  if (!count) {
    say('Nothing was found.');
    return;
  }
  say(`${count} ${count === 1 ? 'moment' : 'moments'}, the most similar first, `
      + `in the space of ${SPACE_NAMES[answer.space]}`);
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = ((tenths - 600 * minutes) / 10).toFixed(1);
  return `${minutes}:${rest.padStart(4, '0')}`;
}

function makeCard(result, queryName) {
  const card = byId('card').content.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  const name = result.path.split('/').pop() || 'without a name';
  const time = `${clock(result.start)}–${clock(result.end)}`;
  part('number').textContent = result.score.toFixed(3);
  part('score').title = 'Cosine similarity with what was asked';
  const share = Math.max(0, Math.min(1, result.score));
  part('fill').style.width = `${100 * share}%`;
  part('badge').textContent = `by its ${KIND_NAMES[result.modality]}`;
  part('name').textContent = name;
  part('time').textContent = time;
  part('path').textContent = name === result.path ? '' : `in ${result.path}`;
  part('caption').textContent = result.caption;
  result.kinds.forEach((kind, i) => {
    const link = document.createElement('a');
    link.textContent = KIND_NAMES[kind];
    link.href = addressOf(
      {like: result.id, by: kind, modality: asked.modality});
    link.setAttribute(
      'aria-label', `More like the ${KIND_NAMES[kind]} of ${name}, ${time}`);
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      ask({like: result.id, by: kind});
      scrollTo({top: 0});
    });
    part('similar').append(i ? ' · ' : '', link);
  });
  part('player').append(...makePlayer(result, name, time));
  const player = part('player').querySelector('video');
  if (player && queryName) {
    const button = part('where_button');
    button.hidden = false;
    button.setAttribute(
      'aria-label', `Show where in the picture of ${name}, ${time}`);
    const toggle = makeMap(player, result, queryName, button);
    button.addEventListener('click', toggle);
    // What cannot be played cannot be drawn over.
    player.addEventListener('error', () => { button.hidden = true; });
    card.querySelector('.card').addEventListener('keydown', (event) => {
      if (event.key === 'w' && !event.ctrlKey && !event.metaKey) toggle();
    });
  }
  return card;
}

// Maps: where in the picture the query is.

// Shows and hides the map of a result: returns the function that does so.
function makeMap(player, result, queryName, button) {
  let found = null;
  let canvas = null;
  async function toggle() {
    if (canvas) {
      canvas.remove();
      canvas = null;
      button.setAttribute('aria-pressed', 'false');
      return;
    }
    if (button.disabled) return;
    button.disabled = true;
    say('Looking where it is…');
    try {
      found = found || await fetchJson(
        `api/map/${result.id}?query=${queryName}`);
      say('The brighter a place, the more similar it is to the query.');
    } catch (error) {
      say('');
      showError(error.message);
      return;
    } finally {
      button.disabled = false;
      button.focus();
    }
    canvas = document.createElement('canvas');
    canvas.className = 'map';
    canvas.setAttribute('aria-hidden', 'true');
    player.after(canvas);
    button.setAttribute('aria-pressed', 'true');
    follow();
  }
  // Draws the map of the time that is shown, as long as there is one.
  function follow() {
    if (!canvas) return;
    drawMap(canvas, player, found);
    requestAnimationFrame(follow);
  }
  return toggle;
}

function drawMap(canvas, player, found) {
  const share = (player.currentTime - found.start) / (found.end - found.start);
  const steps = found.map.length;
  // Before and after it, the first and the last map stand still.
  const step = Math.max(0, Math.min(steps - 1, Math.floor(share * steps)));
  place(canvas, player, found.window);
  if (canvas.dataset.step === String(step)) return;
  canvas.dataset.step = step;
  const rows = found.map[step];
  canvas.height = rows.length;
  canvas.width = rows[0].length;
  const values = rows.flat();
  const sorted = [...values].sort((a, b) => a - b);
  const low = sorted[Math.floor(sorted.length / 2)];
  const range = sorted[sorted.length - 1] - low;
  const context = canvas.getContext('2d');
  const image = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    const heat = range > 0 ? Math.max(0, (value - low) / range) : 0;
    image.data.set([255, 90 + 150 * heat, 30, 200 * heat], 4 * i);
  });
  context.putImageData(image, 0, 0);
}

// Lays the canvas over the part of the picture that the map is of.
function place(canvas, player, [left, upper, right, lower]) {
  const {clientWidth, clientHeight, videoWidth, videoHeight} = player;
  if (!videoWidth) return;
  const scale = Math.min(clientWidth / videoWidth, clientHeight / videoHeight);
  const width = scale * videoWidth;
  const height = scale * videoHeight;
  const x = (clientWidth - width) / 2 + left * width;
  const y = (clientHeight - height) / 2 + upper * height;
  Object.assign(canvas.style, {
    left: `${x}px`,
    top: `${y}px`,
    width: `${(right - left) * width}px`,
    height: `${(lower - upper) * height}px`,
  });
}

function makePlayer(result, name, time) {
  if (result.problem) return [unplayable('Not there', result.problem)];
  const isVideo = result.kinds.includes('video');
  const player = document.createElement(isVideo ? 'video' : 'audio');
  player.controls = true;
  player.preload = 'metadata';
  player.playsInline = true;
  player.setAttribute('aria-label', `${name}, ${time}`);
  player.addEventListener('error', () => {
    player.parentElement.replaceChildren(unplayable(
      'This browser cannot play it',
      `Open it with another player: ${result.path}, at ${time}`));
  });
  player.addEventListener('play', () => {
    for (const other of results.querySelectorAll('video, audio')) {
      if (other !== player) other.pause();
    }
  });
  player.src = `media/${result.id}#t=${result.start},${result.end}`;
  if (isVideo) return [player];
  const wave = document.createElement('span');
  wave.className = 'wave';
  wave.textContent = '♪';
  wave.setAttribute('aria-hidden', 'true');
  return [wave, player];
}

function unplayable(title, words) {
  const box = document.createElement('p');
  box.className = 'unplayable';
  const strong = document.createElement('strong');
  strong.textContent = title;
  box.append(strong, words);
  return box;
}

function showAbout() {
  const count = about.num_moments.toLocaleString('en');
  byId('about').textContent = `${count} moments, model ${about.model}`;
  const choices = about.modalities.length > 1 ? ['any'] : [];
  for (const value of [...choices, ...about.modalities]) {
    const label = document.createElement('label');
    const input = document.createElement('input');
    Object.assign(input, {type: 'radio', name: 'modality', value});
    input.addEventListener('change', () => ask({...asked, modality: value}));
    label.append(input, ` ${NAMES[value]}`);
    byId('modalities').append(label);
  }
  const hasText = about.kinds.includes('text');
  const hasFile = about.kinds.some((kind) => kind !== 'text');
  byId('bar').hidden = !hasText;
  byId('file_part').hidden = !hasFile;
  byId('start_text').textContent = [
    hasText ? 'Type words for what is seen or heard.' : '',
    hasFile ? 'Drop a sound or a clip to find what goes with it.' : '',
    hasText && about.examples.length ? 'Or try:' : '',
  ].filter(Boolean).join(' ');
  byId('examples').append(...(hasText ? about.examples : []).map((caption) => {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = caption.split('\n')[0];
    button.addEventListener('click', () => ask({text: button.textContent}));
    item.append(button);
    return item;
  }));
}

// Hands.

function listen() {
  byId('form').addEventListener('submit', (event) => {
    event.preventDefault();
    ask({text: text.value.trim()});
  });
  byId('home').addEventListener('click', (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    ask({modality: 'any'});
    text.focus();
  });
  byId('clear').addEventListener('click', () => {
    ask({});
    text.focus();
  });
  byId('file').addEventListener('change', () => {
    const [file] = byId('file').files;
    if (file) ask({file});
    byId('file').value = '';
  });
  for (const input of document.querySelectorAll('[name=by]')) {
    input.addEventListener('change', () => ask({...asked, by: input.value}));
  }
  byId('copy').addEventListener('click', async () => {
    await navigator.clipboard.writeText(location.href);
    say('The link is copied: it asks the same of this server.');
  });
  addEventListener('popstate', () => {
    asked = readAddress();
    run();
  });
  addEventListener('keydown', (event) => {
    const isTyping = event.target.closest('input[type=search]');
    if (event.key === '/' && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      text.focus();
      text.select();
    }
  });
  const hasFile = (event) => event.dataTransfer
    && [...event.dataTransfer.types].includes('Files');
  for (const name of ['dragenter', 'dragover']) {
    addEventListener(name, (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      byId('drop').hidden = false;
    });
  }
  addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) byId('drop').hidden = true;
  });
  addEventListener('drop', (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    byId('drop').hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) ask({file});
  });
}

async function main() {
  asked = readAddress();
  try {
    about = await fetchJson('api/index');
  } catch (error) {
    showError(error.message);
    return;
  }
  showAbout();
  listen();
  if (!about.modalities.includes(asked.modality)) {
    asked.modality = about.modalities.length > 1 ? 'any' : about.modalities[0];
  }
  run();
}

main();
