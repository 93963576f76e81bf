// The page of a Larder manager: it follows `/api/v1/live`, and asks for what people want done. What servers and people call things is shown
// as text alone. The token is kept in a variable of this page and nowhere else.
'use strict';

const $ = (id) => document.getElementById(id);

/** An element with properties, `data-` and `aria-` attributes among them, and children. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-') || name === 'role') element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Sets a text, and touches nothing where it is the same: what is read aloud is what has changed. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

// Figures.

const percent = (share, digits = 1) => `${(share * 100).toFixed(share > 0 && share < 0.001 ? digits + 1 : digits)} %`;

/** Nodes as people count them: 9 before 10. */
const { compare: byName } = new Intl.Collator('en', { numeric: true });

const whole = (number) => Math.round(number).toLocaleString('en');

function short(number) {
  if (number < 10_000) return whole(number);
  for (const [unit, size] of [['k', 1e3], ['M', 1e6], ['G', 1e9]]) {
    if (number < size * 1000 || unit === 'G') return `${(number / size).toFixed(number < size * 100 ? 1 : 0)} ${unit}`;
  }
}

function bytes(number) {
  let unit = 0;
  while (number >= 1024 && unit < 4) {
    number /= 1024;
    unit += 1;
  }
  return `${number.toFixed(number < 10 && unit > 0 ? 1 : 0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

function latency(us) {
  return us < 1000 ? `${us} µs` : `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms`;
}

function ago(seconds) {
  const since = Math.max(0, Date.now() / 1000 - seconds);
  if (since < 10) return 'just now';
  if (since < 60) return `${Math.floor(since / 10) * 10} s ago`;
  if (since < 3600) return `${Math.floor(since / 60)} min ago`;
  if (since < 86_400) return `${Math.floor(since / 3600)} h ago`;
  return new Date(seconds * 1000).toLocaleDateString('en', { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' });
}

// What is asked.

let token = null;
let wanting = null;

/** Asks a manager, again where it asks for a token or has too much to do. */
async function ask(path, { method = 'GET', body, signal } = {}) {
  for (let tried = 0; ; tried += 1) {
    const headers = {};
    const used = token;
    if (used) headers.authorization = `Bearer ${used}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    const answer = await fetch(`/api/v1/${path}`, {
      method, headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error',
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (answer.status === 401) await wantToken(used);
    else if (answer.status === 429 && tried < 5) await wait(300 * (tried + 1));
    else return answer;
  }
}

/** The answer of a call, or an error with the manager's words. */
async function call(path, options) {
  const answer = await ask(path, { signal: AbortSignal.timeout(60_000), ...options }).catch((error) => {
    throw error.name === 'TimeoutError' ? new Error('The manager does not answer.') : error;
  });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error?.message ?? `HTTP ${answer.status}`);
  return said;
}

/** Has somebody type the token, once for all who want it; `refused` is the one that was not taken. */
function wantToken(refused) {
  if (token !== refused) return Promise.resolve();
  wanting ??= new Promise((typed) => {
    say($('token-wrong'), refused ? 'That is not the token.' : '');
    const form = $('token-form');
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = $('token').value.trim();
      // What else there is could not be sent.
      if (!/^[\x21-\x7e]+$/.test(text)) return say($('token-wrong'), 'A token has neither spaces nor special characters.');
      token = text;
      wanting = null;
      $('token').value = '';
      $('token-dialog').close();
      typed();
    };
    // Without it there is nothing to see: whoever dismisses it is asked again.
    $('token-dialog').onclose = () => wanting && $('token-dialog').showModal();
    $('token-dialog').showModal();
  });
  return wanting;
}

// What is known.

const SAMPLES = 60;
let ring = null;
let arcs = null;
let found = null;
let shining = null;
let events = [];
/** By name: what a node's row is made of, and what was measured of it lately. */
const nodes = new Map();
const total = [];
/** All that happened of late, where a node's history is asked for. */
let older = [];

/** Which colour a node has, and which number: by its place among all. */
const places = new Map();

/** Fewer reads say nothing: the manager's own probes are among them. */
const LEAST_READS = 50;

/** Hits and misses of one server within its samples, since it was started. */
function readsOf(samples) {
  const last = samples.at(-1);
  const of = (sample) => sample.uptime <= last.uptime && sample.hits <= last.hits && sample.misses <= last.misses;
  const first = last && samples.find(of);
  return first ? [last.hits - first.hits, last.misses - first.misses] : [0, 0];
}

const rateOf = ([hits, misses]) => (hits + misses < LEAST_READS ? '–' : percent(hits / (hits + misses)));

function lineOf(values) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('viewBox', `0 0 ${SAMPLES - 1} 20`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const most = Math.max(1, ...values);
  const from = SAMPLES - values.length;
  const points = values.map((value, at) => `${from + at},${(18.5 - 17 * (value / most)).toFixed(2)}`);
  const path = document.createElementNS(space, 'path');
  path.setAttribute('d', points.length > 1 ? `M${points.join('L')}` : '');
  svg.append(path);
  return svg;
}

function keep(samples, sample) {
  samples.push(sample);
  if (samples.length > SAMPLES) samples.shift();
}

// What is shown.

const STATES = {
  up: ['Up', 'good'],
  suspect: ['Suspect', 'warn'],
  out: ['Off the ring', 'bad'],
  draining: ['Draining', 'warn'],
  drained: ['Drained', 'still'],
};

function newRow(name) {
  const chip = el('span', { className: 'chip', 'aria-hidden': 'true' });
  const state = el('span', { className: 'pill' });
  const why = el('span', { className: 'why' });
  const more = el('span', { className: 'quiet' });
  const share = el('span');
  const bar = el('span');
  const cell = (title, ...children) => el('td', { role: 'cell', className: 'number', 'data-name': title }, ...children);
  const figures = Object.fromEntries(['keys', 'memory', 'hits', 'commands', 'latency'].map((key) => [key, el('span', {}, '–')]));
  const bound = el('div', { className: 'quiet' });
  const line = el('div', { className: 'line' });
  const button = (text, act) => el('button', { type: 'button', className: 'small', 'aria-label': `${text} ${name}`, onclick: act }, text);
  const drain = button('Drain', () => wantDrain(name));
  const back = button('Put back', () => wantBack(name));
  const buttons = el('div', { className: 'row-buttons' },
    button('History', () => showHistory(name)), drain, back, button('Remove', () => wantRemove(name)));
  const row = el('tr', { role: 'row' },
    el('td', { role: 'cell' }, el('div', { className: 'node' }, chip, el('div', {},
      el('div', { className: 'mono' }, name), el('div', { className: 'under' }, state, more), why))),
    el('td', { role: 'cell', 'data-name': 'Share' }, share, el('span', { className: 'bar', 'aria-hidden': 'true' }, bar)),
    cell('Keys', figures.keys), cell('Memory', figures.memory, bound), cell('Hits', figures.hits),
    cell('Commands/s', figures.commands, line), cell('Latency', figures.latency),
    el('td', { role: 'cell' }, buttons));
  const shine = (on) => () => {
    shining = on ? name : null;
    drawDial();
  };
  row.addEventListener('pointerenter', shine(true));
  row.addEventListener('pointerleave', shine(false));
  row.addEventListener('focusin', shine(true));
  row.addEventListener('focusout', shine(false));
  return { name, row, chip, state, why, more, share, bar, figures, bound, line, drain, back, samples: [] };
}

/** Why something is so, without the name of the node that it stands beside. */
function reason(text, node) {
  return (text ?? '').replace(` (node: ${node})`, '');
}

function showNode(shown, node) {
  shown.isOn = ['up', 'suspect', 'draining'].includes(node.state);
  const [word, tone] = STATES[node.state] ?? [node.state, 'still'];
  say(shown.state, node.state === 'draining' && node.part != null ? `${word}, ${percent(node.part, 0)} left` : word);
  shown.state.dataset.tone = tone;
  say(shown.why, reason(node.why, node.node));
  shown.why.title = shown.why.textContent;
  const falls = node.flaps > 0 ? `fell ${node.flaps === 1 ? 'once' : `${node.flaps} times`}` : '';
  const version = node.load?.version ? `v${node.load.version}` : '';
  say(shown.more, [version, falls].filter(Boolean).join(' · '));
  say(shown.share, percent(node.share));
  shown.bar.style.width = `${Math.min(100, node.share * 100)}%`;
  const held = document.activeElement;
  shown.drain.hidden = !shown.isOn;
  shown.back.hidden = shown.isOn;
  // Whoever stood on the one goes on from the other.
  if (held === shown.drain && !shown.isOn) shown.back.focus();
  if (held === shown.back && shown.isOn) shown.drain.focus();
  const load = node.load;
  const { figures } = shown;
  if (!load) {
    Object.values(figures).forEach((figure) => say(figure, '–'));
    say(shown.bound, '');
    shown.line.replaceChildren();
    return;
  }
  keep(shown.samples, load);
  say(figures.keys, short(load.keys));
  say(figures.memory, bytes(load.memory));
  say(shown.bound, load.max_memory ? `of ${bytes(load.max_memory)}` : '');
  say(figures.hits, rateOf(readsOf(shown.samples)));
  say(figures.commands, short(load.commands));
  say(figures.latency, latency(load.latency_us));
  shown.line.replaceChildren(lineOf(shown.samples.map((sample) => sample.commands)));
}

/** Rows by name; of names that are not shown, each has one of its own. */
function keysOf(list) {
  const seen = new Map();
  return list.map((node) => {
    const count = (seen.get(node.node) ?? 0) + 1;
    seen.set(node.node, count);
    return count === 1 ? node.node : `${node.node} (${count})`;
  });
}

function showNodes(list) {
  const names = keysOf(list);
  names.forEach((name) => {
    if (!places.has(name)) {
      const taken = new Set(places.values());
      let place = 0;
      while (taken.has(place)) place += 1;
      places.set(name, place);
    }
  });
  for (const [name, shown] of nodes) {
    if (names.includes(name)) continue;
    if (shining === name) shining = null;
    if (shown.row.contains(document.activeElement)) $('nodes-title').focus({ preventScroll: true });
    shown.row.remove();
    nodes.delete(name);
    places.delete(name);
  }
  list.forEach((node, at) => {
    const key = names[at];
    let shown = nodes.get(key);
    if (!shown) {
      shown = newRow(node.node);
      nodes.set(key, shown);
    }
    const place = places.get(key);
    shown.row.className = `n${place % 8}`;
    say(shown.chip, String(place + 1));
    if ($('nodes').children[at] !== shown.row) $('nodes').insertBefore(shown.row, $('nodes').children[at] ?? null);
    showNode(shown, node);
  });
  $('none').hidden = list.length > 0;
  showChoice(list.map((node) => node.node));
}

function showChoice(names) {
  const choice = $('of');
  const known = [...choice.options].slice(1).map((option) => option.value);
  const wanted = [...new Set([...names, ...events.map((event) => event.node).filter(Boolean)])].sort(byName);
  if (known.join('\n') === wanted.join('\n')) return;
  const chosen = choice.value;
  choice.replaceChildren(choice.options[0], ...wanted.map((name) => el('option', { value: name }, name)));
  choice.value = wanted.includes(chosen) ? chosen : '';
}

function showTotal(list) {
  const loads = list.map((node) => node.load).filter(Boolean);
  const sum = (field) => loads.reduce((all, load) => all + load[field], 0);
  const asked = list.filter((node) => node.state !== 'drained').length;
  const told = loads.length < asked ? `${asked - loads.length} of ${asked} nodes do not tell` : '';
  if (loads.length === 0) {
    ['all-keys', 'all-memory', 'all-hits', 'all-commands'].forEach((id) => say($(id), '–'));
    ['all-keys-more', 'all-memory-more', 'all-hits-more'].forEach((id) => say($(id), ''));
    say($('all-keys-more'), told);
    $('all-commands-line').replaceChildren();
    return;
  }
  keep(total, sum('commands'));
  const reads = keysOf(list).filter((_, at) => list[at].load).map((key) => readsOf(nodes.get(key).samples));
  const all = reads.reduce((one, other) => [one[0] + other[0], one[1] + other[1]], [0, 0]);
  const unbounded = loads.filter((load) => !load.max_memory).length;
  const evicted = sum('evicted') > 0 ? `, ${short(sum('evicted'))} evicted` : '';
  say($('all-keys'), short(sum('keys')));
  say($('all-keys-more'), told || `on ${loads.length} ${loads.length === 1 ? 'node' : 'nodes'}`);
  say($('all-memory'), bytes(sum('memory')));
  say($('all-memory-more'), (unbounded === 0 ? `of ${bytes(sum('max_memory'))}` : `${unbounded} of ${loads.length} without a bound`) + evicted);
  say($('all-hits'), rateOf(all));
  say($('all-hits-more'), all[0] + all[1] < LEAST_READS ? 'hardly anything is read' : `of ${short(all[0] + all[1])} reads lately`);
  say($('all-commands'), `${short(sum('commands'))}/s`);
  $('all-commands-line').replaceChildren(lineOf(total));
}

const HAPPENED = {
  added: ['was added', 'good'],
  changed: ['has another url', 'still'],
  removed: ['was removed', 'still'],
  added_elsewhere: ['was added by another program', 'good'],
  removed_elsewhere: ['was removed by another program', 'warn'],
  taken_over: ['A map of another program was taken over', 'still'],
  restored: ['The map was written again', 'warn'],
  rebuilt: ['All positions were chosen anew', 'still'],
  suspected: ['fails', 'warn'],
  recovered: ['is well again', 'good'],
  ejected: ['was taken off the ring', 'bad'],
  returned: ['is back on the ring', 'good'],
  draining: ['is drained', 'still'],
  drained: ['has no keys any more', 'still'],
  frozen: ['Nothing is judged', 'bad'],
  thawed: ['Nodes are judged again', 'good'],
};

function showEvents() {
  const of = $('of').value;
  const known = events.at(-1)?.id ?? 0;
  const all = of ? [...events, ...older.filter((event) => event.id < known)] : events;
  const chosen = all.filter((event) => !of || event.node === of);
  const items = chosen.map((event) => {
    const [words, tone] = HAPPENED[event.kind] ?? [event.kind, 'still'];
    const more = reason(event.text, event.node);
    const text = event.kind === 'draining' ? `${words}: ${more} left` : more && event.kind !== 'drained' ? `${words}: ${more}` : words;
    const when = new Date(event.at * 1000);
    return el('li', {},
      el('time', { dateTime: when.toISOString(), title: when.toLocaleString('en') }, ago(event.at)),
      el('span', { className: 'dot', 'data-tone': tone, 'aria-hidden': 'true' }),
      el('p', {}, ...(event.node ? [el('span', { className: 'mono' }, event.node), ' '] : []), text));
  });
  $('events').replaceChildren(...items);
  $('quiet').hidden = items.length > 0;
}

/** What happened to one of them may be long ago. */
async function choose() {
  showEvents();
  if (!$('of').value) return;
  const all = await call('events?count=1000').catch(() => null);
  older = all?.events ?? older;
  showEvents();
}

function showHistory(name) {
  showChoice([...nodes.values()].map((shown) => shown.name));
  $('of').value = name;
  choose();
  $('events-title').focus({ preventScroll: true });
  $('events-title').scrollIntoView({ block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
}

function showManager(manager) {
  const [word, tone] = manager.error ? ['In trouble', 'bad'] : manager.frozen ? ['Holding still', 'warn'] : manager.leads ? ['Judging nodes', 'good'] : ['Standing by', 'still'];
  say($('role'), word);
  $('role').dataset.tone = tone;
  const alarm = manager.error ? `The ring cannot be looked at: ${manager.error}` : manager.frozen ? `No node is judged: ${manager.frozen}.` : '';
  say($('alarm'), alarm);
  $('alarm').hidden = !alarm;
}

function show(state) {
  showManager(state.manager);
  if (!state.ring) return;
  const isFirst = !ring;
  ring = state.ring;
  const known = events[0]?.id;
  events = state.events;
  say($('epoch'), `epoch ${ring.epoch}`);
  say($('hub-nodes'), `${ring.nodes} ${ring.nodes === 1 ? 'node' : 'nodes'}`);
  say($('hub-more'), ring.nodes ? `${whole(ring.positions)} positions` : 'no map yet');
  showNodes(state.nodes.sort((one, other) => byName(one.node, other.node)));
  showTotal(state.nodes);
  if (known !== events[0]?.id || isFirst) showEvents();
  if (arcs?.epoch !== ring.epoch || ring.edited) loadArcs();
}

// The ring, drawn.

const MOST_ARCS = 40_000;

const PLACED = {
  balanced: 'positions are chosen for balance',
  xxh3: 'positions are hashes of the nodes’ names',
  crc32: 'positions are those of the Python server',
};

let loading = false;

async function loadArcs() {
  if (loading) return;
  loading = true;
  try {
    arcs = await call('ring/arcs');
    drawDial();
    const fullest = `The fullest node has ${ring.imbalance.toFixed(2)} times the mean`;
    say($('ring-note'), ring.nodes ? `${fullest}; ${PLACED[ring.labels] ?? ring.labels}.` : '');
    if (found) await find(found.key);
  } catch {
    // It is asked for again with what comes next.
    if (arcs) arcs.epoch = null;
  } finally {
    loading = false;
  }
}

let drawing = false;

/** Draws it once, however often that is wanted until then. */
function drawDial() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const canvas = $('dial');
  const size = canvas.clientWidth;
  if (!size) return;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(size * scale)) canvas.width = canvas.height = Math.round(size * scale);
  const pen = canvas.getContext('2d');
  const style = getComputedStyle(document.documentElement);
  const colours = Array.from({ length: 8 }, (_, place) => style.getPropertyValue(`--n${place}`).trim());
  const rule = style.getPropertyValue('--rule').trim();
  const colour = (name) => (places.has(name) ? colours[places.get(name) % 8] : rule);
  const middle = size / 2;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, size, size);
  const FULL = 2 ** 32;
  const angle = (at) => (at / FULL) * 2 * Math.PI - Math.PI / 2;
  const band = (from, to, start, end, fill, dim) => {
    pen.beginPath();
    pen.arc(middle, middle, to, start, end);
    pen.arc(middle, middle, from, end, start, true);
    pen.closePath();
    pen.globalAlpha = dim ? 0.16 : 1;
    pen.fillStyle = fill;
    pen.fill();
    pen.globalAlpha = 1;
  };
  const [outer, inner, core] = [middle * 0.94, middle * 0.72, middle * 0.62];
  const list = arcs?.arcs ?? [];
  const shares = new Map();
  if (list.length === 0) {
    band(inner, outer, 0, 2 * Math.PI, rule);
  }
  list.forEach(([start, node], at) => {
    const end = list[at + 1]?.[0] ?? FULL;
    const name = arcs.nodes[node];
    shares.set(name, (shares.get(name) ?? 0) + (end - start) / FULL);
    if (list.length <= MOST_ARCS) band(inner, outer, angle(start), angle(end), colour(name), shining && shining !== name);
  });
  // Within it, what that comes to.
  let from = -Math.PI / 2;
  const gap = shares.size > 1 ? 0.025 : 0;
  for (const [name, share] of [...shares].sort((one, other) => (places.get(one[0]) ?? 0) - (places.get(other[0]) ?? 0))) {
    const to = from + share * 2 * Math.PI;
    if (to - from > gap) band(core, inner - 5, from + gap / 2, to - gap / 2, colour(name), shining && shining !== name);
    from = to;
  }
  if (found) {
    const at = angle(found.hash);
    const [x, y] = [Math.cos(at), Math.sin(at)];
    pen.strokeStyle = style.getPropertyValue('--ink').trim();
    pen.fillStyle = pen.strokeStyle;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.moveTo(middle + x * core, middle + y * core);
    pen.lineTo(middle + x * outer, middle + y * outer);
    pen.stroke();
    pen.beginPath();
    pen.arc(middle + x * (outer + 4), middle + y * (outer + 4), 4, 0, 2 * Math.PI);
    pen.fill();
  }
  const parts = [...shares].map(([name, share]) => `${name} has ${percent(share)}`);
  const label = parts.length ? `The ring: ${parts.join(', ')}` : 'The ring: no nodes';
  if (canvas.getAttribute('aria-label') !== label) canvas.setAttribute('aria-label', label);
}

let wanted = 0;

async function find(key) {
  wanted += 1;
  const own = wanted;
  const answer = await call(`ring/where?key=${encodeURIComponent(key)}`);
  if (own !== wanted) return;
  const isSame = found && found.key === answer.key && found.node === answer.node;
  found = answer;
  drawDial();
  if (isSame) return;
  const shown = $('found');
  if (!found.node) return say(shown, 'Nowhere: there are no nodes.');
  shown.replaceChildren(el('span', { className: 'mono' }, found.key), ' is on ', el('strong', { className: 'mono' }, found.node));
}

// What is done.

let saying;

/** Says something, for so long; 0 until something else is said. */
function tell(text, ms = 8000) {
  clearTimeout(saying);
  say($('said'), text);
  if (ms) saying = setTimeout(() => say($('said'), ''), ms);
}

function showMoves(box, moved) {
  const moves = moved.moves.slice(0, 8);
  const rest = moved.moves.length - moves.length;
  box.replaceChildren(
    el('p', {}, moved.moved > 0 ? `${percent(moved.moved)} of all keys move, and are computed anew when they are asked for:` : 'No keys move.'),
    el('ul', {}, ...moves.map((move) => el('li', {},
      el('span', { className: 'mono' }, move.from && move.to ? `${move.from} → ${move.to}` : move.to ? `to ${move.to}` : `from ${move.from}`),
      el('span', {}, percent(move.share))))),
    ...(rest > 0 ? [el('p', { className: 'quiet' }, `and ${rest} more`)] : []));
}

/** Which question is asked: what is answered to an earlier one is nothing to it. */
let asked = 0;

/**
 * Asks something in a dialog. `act` does it when the form is sent, one thing at a time; what it answers is told once the dialog is
 * closed, and where it answers nothing there is more to ask. What goes wrong is said in the form.
 */
function askIn(dialog, form, wrong, act) {
  asked += 1;
  const first = asked;
  let since = -1000;
  const button = form.querySelector('button[type="submit"]');
  button.disabled = false;
  say(wrong, '');
  form.onsubmit = async (event) => {
    event.preventDefault();
    // Twice at once is meant once.
    if (button.disabled || performance.now() - since < 400) return;
    button.disabled = true;
    say(wrong, '');
    const own = asked;
    try {
      const text = await act(() => own === asked);
      if (own !== asked) return;
      since = performance.now();
      if (text) {
        dialog.close();
        tell(text);
      }
    } catch (error) {
      if (own === asked) say(wrong, error.message);
    } finally {
      if (own === asked) button.disabled = false;
    }
  };
  dialog.onclose = () => {
    asked += 1;
    // Nothing that was typed stays, a password least of all.
    form.reset();
  };
  dialog.showModal();
  return () => first === asked;
}

const done = (name, what, moved) => `${name} ${what}: ${percent(moved.moved)} of the keys moved, epoch ${moved.epoch}.`;

function wantAdd() {
  const go = $('add-go');
  let previewed = null;
  const again = () => {
    previewed = null;
    $('add-moves').replaceChildren();
    say(go, 'What moves?');
  };
  $('add-form').reset();
  again();
  $('url').oninput = again;
  $('password').oninput = again;
  askIn($('add-dialog'), $('add-form'), $('add-wrong'), async (isAsked) => {
    const typed = $('url').value.trim();
    const url = addressOf(typed, $('password').value);
    if (previewed !== url) {
      const moved = await call('ring/preview', { method: 'POST', body: { add: { url } } });
      // Something else may stand there by now.
      if (!isAsked() || $('url').value.trim() !== typed) return undefined;
      previewed = url;
      showMoves($('add-moves'), moved);
      say(go, 'Add it');
      return undefined;
    }
    const moved = await call('nodes', { method: 'POST', body: { url } });
    return done(typed.replace(/^.*:\/\/(.*@)?/, ''), 'was added', moved);
  });
}

/** A url with the password that was typed beside it. */
function addressOf(url, password) {
  if (!password) return url;
  const parts = url.match(/^([a-z]+:\/\/)(?:([^@/]*)@)?(.*)$/i);
  if (!parts) throw new Error('An address is redis://host:port/db');
  if (parts[2]?.includes(':')) throw new Error('There is a password in the address already');
  return `${parts[1]}${parts[2] ?? ''}:${encodeURIComponent(password)}@${parts[3]}`;
}

/** Shows what would move, and asks whether that is meant. */
function wantDone({ title, text, go, danger, steps, last, plan, act }) {
  say($('do-title'), title);
  say($('do-text'), text);
  say($('do-go'), go);
  $('do-go').className = danger ? 'danger' : 'main';
  $('do-steps-line').hidden = !steps;
  $('do-last-line').hidden = !last;
  $('do-form').reset();
  $('do-moves').replaceChildren();
  const isAsked = askIn($('do-dialog'), $('do-form'), $('do-wrong'), act);
  // Nobody agrees to what is not known yet.
  $('do-go').disabled = true;
  call('ring/preview', { method: 'POST', body: plan }).then((moved) => {
    if (!isAsked()) return;
    showMoves($('do-moves'), moved);
    $('do-go').disabled = false;
  }).catch((error) => isAsked() && say($('do-wrong'), error.message));
}

function wantRemove(name) {
  wantDone({
    title: `Remove ${name}?`,
    text: 'It leaves the ring at once and is forgotten. The server itself goes on.',
    go: 'Remove it',
    danger: true,
    last: ring?.nodes === 1 && nodes.get(name)?.isOn,
    plan: { remove: { node: name } },
    act: async () => {
      const meant = $('do-last').checked ? '&last=true' : '';
      return done(name, 'was removed', await call(`nodes?node=${encodeURIComponent(name)}${meant}`, { method: 'DELETE' }));
    },
  });
}

function wantBack(name) {
  wantDone({
    title: `Put ${name} back?`,
    text: 'What it holds is from before it left: it is emptied first, then it has its part of the keys again.',
    go: 'Put it back',
    plan: { return: { node: name } },
    act: async () => done(name, 'is back', await call('nodes', { method: 'POST', body: { node: name } })),
  });
}

function wantDrain(name) {
  wantDone({
    title: `Drain ${name}?`,
    text: 'Its keys leave it step by step, so that never many are computed anew at a time. Then it has none, until it is put back or removed. All in all:',
    go: 'Drain it',
    steps: true,
    plan: { drain: { node: name, steps: 1 } },
    act: async () => {
      const steps = Number($('do-steps').value) || 10;
      return done(name, `is drained in ${steps} steps`, await call('nodes/drain', { method: 'POST', body: { node: name, steps } }));
    },
  });
}

async function checkAll() {
  $('check').disabled = true;
  tell('All nodes are asked …', 0);
  try {
    const view = await call('nodes/check', { method: 'POST', body: {} });
    const failing = view.nodes.filter((node) => node.why);
    // One that is drained may be switched off, and is not asked.
    const asked = view.nodes.filter((node) => node.state !== 'drained').length;
    tell(failing.length ? failing.map((node) => `${node.node}: ${node.why}`).join('; ') : `All ${asked} nodes are well.`);
  } catch (error) {
    tell(error.message);
  } finally {
    $('check').disabled = false;
  }
}

// The stream.

function linked(state, text) {
  $('link').dataset.link = state;
  say($('link'), text);
}

/** A stream that says nothing for so long is none. */
const SILENT = 20_000;

/** Between two streams, if one of them was short. */
const AGAIN = 2000;

/** Hands on each event's data, until the stream ends. */
async function read(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done: over } = await reader.read();
    if (over) return;
    heard();
    text += value;
    let end;
    while ((end = text.indexOf('\n\n')) >= 0) {
      const data = text.slice(0, end).split('\n').filter((line) => line.startsWith('data:'));
      text = text.slice(end + 2);
      show(JSON.parse(data.map((line) => line.slice(5).trimStart()).join('\n')));
      linked('live', 'live');
    }
  }
}

/** One stream, from its beginning to its end; whether it was one. */
async function followOnce() {
  const stop = new AbortController();
  const hidden = () => document.hidden && stop.abort();
  let silent;
  // Whoever types the token has all the time.
  const heard = () => {
    clearTimeout(silent);
    silent = setTimeout(() => (wanting ? heard() : stop.abort()), SILENT);
  };
  document.addEventListener('visibilitychange', hidden);
  heard();
  let began = Infinity;
  try {
    const answer = await ask('live', { signal: stop.signal });
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      throw new Error(said.error?.message ?? `HTTP ${answer.status}`);
    }
    began = performance.now();
    await read(answer.body, heard);
  } catch (error) {
    // One that has been there for a while may break off; the next one tells whether the manager is there.
    if (document.hidden || performance.now() - began > AGAIN && !stop.signal.aborted) return true;
    linked('lost', error instanceof TypeError || stop.signal.aborted ? 'the manager does not answer' : error.message);
    return false;
  } finally {
    clearTimeout(silent);
    document.removeEventListener('visibilitychange', hidden);
  }
  return performance.now() - began > AGAIN;
}

async function follow() {
  for (;;) {
    while (document.hidden) {
      linked('wait', 'paused');
      await new Promise((seen) => document.addEventListener('visibilitychange', seen, { once: true }));
    }
    if (!await followOnce()) await wait(AGAIN);
  }
}

$('add').onclick = () => wantAdd();
$('check').onclick = checkAll;
$('of').onchange = choose;
document.querySelectorAll('[data-close]').forEach((button) => {
  button.onclick = () => button.closest('dialog').close();
});
$('where').onsubmit = async (event) => {
  event.preventDefault();
  const own = wanted + 1;
  try {
    await find($('key').value);
  } catch (error) {
    if (own !== wanted) return;
    found = null;
    drawDial();
    say($('found'), error.message);
  }
};
addEventListener('resize', drawDial);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawDial);
setInterval(showEvents, 10_000);
drawDial();
follow();
