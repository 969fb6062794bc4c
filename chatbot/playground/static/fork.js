// The fork: the thread replayed with today's code, old and new answers side by side.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Names, others, safe, when } from "./conversation.js";
import { excerpt, Story } from "./inspector.js";
import { VirtualList } from "./list.js";

const MARKS = { different: "bad", missing: "bad", new: "bad", "not repeatable": "warn", same: "good" };
const CHANGED = new Set(["different", "missing", "new"]);

/** Open the fork of the open thread at a message, and run it. */
export function openFork(app, message) {
  app.watchBots(false);
  app.set({ fork: { thread: app.state.thread, from: message, edits: {}, network: false, onlyChanged: false, cursor: null, run: 0 }, pane: "conversation" });
  runFork(app);
}

export function closeFork(app) {
  const { fork } = app.state;
  if (!fork) return;
  if (fork.status === "running") app.ask("stop_fork", {}, { isQuiet: true });
  app.set({ fork: null, cursor: fork.from, returned: fork.from });
  // The list of messages is drawn again first.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      const row = document.querySelector(`.conversation [data-row="${CSS.escape(fork.from)}"]`);
      (row ?? document.querySelector(".conversation .virtual"))?.focus();
    }),
  );
}

function change(app, fields) {
  if (app.state.fork) app.set({ fork: { ...app.state.fork, ...fields } });
}

async function runFork(app, fields = {}) {
  const run = app.state.fork.run + 1;
  change(app, { ...fields, run, status: "running", done: 0, of: 0, error: null });
  const { thread, edits, network } = app.state.fork;
  let outcome;
  try {
    outcome = { status: "done", result: await app.connection.ask("fork", { thread, edits, network }) };
  } catch (error) {
    outcome = { status: "failed", error: error.message, result: null };
  }
  // An answer that comes after the next run has begun, or in another fork, is nobody's.
  if (app.state.fork?.run === run && app.state.fork.thread === thread) change(app, outcome);
}

/** Take a push of the playground: how far the replay is. */
export function takeProgress(app, frame) {
  if (app.state.fork?.status === "running") change(app, { done: frame.done, of: frame.of });
}

/** The button on a message; rows that the keyboard is not at are no stops of the Tab key. */
export function ForkButton({ app, message, isCurrent }) {
  if (!app.state.hello.can_fork) return null;
  const open = (event) => {
    event.stopPropagation();
    openFork(app, message.id);
  };
  return html`<button class="quiet small fork-here" tabindex=${isCurrent ? 0 : -1} onClick=${open}>Fork from here</button>`;
}

export function Fork({ app }) {
  const { fork } = app.state;
  const thread = app.state.threads.get(fork.thread);
  const head = useRef(null);
  useLayoutEffect(() => head.current.focus(), []);
  const pressed = (event) => {
    if (event.key === "Escape" && !event.target.matches("textarea")) closeFork(app);
  };
  const { result } = fork;
  const edited = Object.keys(fork.edits).length;
  const rows = (result?.rows ?? []).map((row) => ({ ...row, id: `${row.kind === "reply" ? "r" : "p"}${row.id}`, message: row.id }));
  const shown = fork.onlyChanged ? rows.filter((row) => CHANGED.has(row.mark)) : rows;
  return html`<main class="fork" aria-label="Fork" onKeyDown=${pressed}>
    <header class="conversation-head fork-head">
      <button class="quiet" aria-label="Back to the thread" onClick=${() => closeFork(app)}>‹ Back</button>
      <h2 ref=${head} tabindex="-1">Fork of <bdi>${thread?.topic || "the thread"}</bdi></h2>
      <span class="grow"></span>
      <label class="check"><input type="checkbox" checked=${fork.network} onChange=${(e) => change(app, { network: e.target.checked })} /> Allow the network</label>
      ${edited > 0 && html`<button class="quiet small" onClick=${() => runFork(app, { edits: {} })}>Undo ${edited} ${edited === 1 ? "edit" : "edits"}</button>`}
      ${fork.status === "running"
        ? html`<button onClick=${() => app.ask("stop_fork", {})}>Stop</button>`
        : html`<button class="primary" onClick=${() => runFork(app)}>Run again</button>`}
    </header>
    <${Outcome} app=${app} fork=${fork} rows=${rows} />
    ${result &&
    html`<div class="fork-columns" aria-hidden="true"><span>Before</span><span>Now</span></div>
      <${VirtualList}
        items=${shown}
        resetKey=${`${fork.thread} ${fork.onlyChanged}`}
        start=${start(shown, fork)}
        current=${fork.cursor}
        label="Answers before and now"
        onMove=${(id) => change(app, { cursor: id })}
        onChoose=${(id) => change(app, { cursor: id })}
        renderItem=${(row) => html`<${Row} key=${row.id} app=${app} row=${row} />`}
      />`}
    ${result && shown.length === 0 && html`<p class="empty floating">No answer differs.</p>`}
  </main>`;
}

/** The row of the message from which the thread is forked. */
function start(rows, fork) {
  return rows.find((row) => row.message === fork.from)?.id ?? null;
}

function Outcome({ app, fork, rows }) {
  const { result } = fork;
  const changed = rows.filter((row) => CHANGED.has(row.mark));
  const step = (direction) => {
    const at = rows.findIndex((row) => row.id === fork.cursor);
    const next = direction > 0 ? changed.find((row) => rows.indexOf(row) > at) : changed.findLast((row) => at < 0 || rows.indexOf(row) < at);
    if (next) change(app, { cursor: next.id, jump: (fork.jump ?? 0) + 1 });
  };
  useEffect(() => {
    if (!fork.jump) return;
    const box = document.querySelector(".fork .virtual");
    box?.dispatchEvent(new CustomEvent("reveal", { detail: fork.cursor }));
  }, [fork.jump]);
  const counts = result?.counts ?? {};
  return html`<div class="fork-outcome">
    <p role="status" class=${fork.status === "failed" ? `bad ${excerpt(fork.error)}` : ""}>${told(fork, changed.length)}</p>
    ${fork.status === "running" && html`<progress aria-label="Replay" value=${fork.of ? fork.done : undefined} max=${fork.of || 1}></progress>`}
    ${result &&
    html`<div class="buttons">
      ${Object.entries(counts).filter(([, count]) => count).map(([mark, count]) => html`<span key=${mark} class=${`pill ${MARKS[mark]}`}>${count} ${mark}</span>`)}
      <button class="small" aria-pressed=${fork.onlyChanged} onClick=${() => change(app, { onlyChanged: !fork.onlyChanged })}>Only differences</button>
      ${changed.length > 0 &&
      html`<button class="small" onClick=${() => step(-1)}>Previous difference</button><button class="small" onClick=${() => step(1)}>Next difference</button>`}
    </div>
    ${result.problems.map((text) => html`<p class="bad" key=${text}>${text}</p>`)}
    ${result.refused.map((one) => html`<p class="warn-text" key=${`${one.what} ${one.place}`}><code>${one.place}</code> may not <bdi>${one.what}</bdi>: the network is not allowed for this fork.</p>`)}`}
  </div>`;
}

function told(fork, changed) {
  if (fork.status === "failed") return fork.error;
  const edited = Object.keys(fork.edits).length;
  const conditions = `today's code${edited ? ` and ${edited} edited ${edited === 1 ? "line" : "lines"}` : ""}`;
  if (fork.status === "running") return fork.of ? `Replaying with ${conditions}: ${fork.done} of ${fork.of} steps` : "Starting…";
  const answers = changed === 1 ? "1 answer differs" : `${changed || "No"} ${changed ? "answers differ" : "answer differs"}`;
  return `${answers} with ${conditions}.`;
}

function Row({ app, row }) {
  const { fork } = app.state;
  const isCurrent = fork.cursor === row.id;
  const name = row.name || app.name(row.user);
  const common = {
    "data-row": row.id,
    tabindex: "-1",
    onFocus: (event) => event.target === event.currentTarget && fork.cursor !== row.id && change(app, { cursor: row.id }),
  };
  const tab = isCurrent ? 0 : -1;
  if (row.kind === "reply") return html`<${Reply} app=${app} row=${row} name=${name} common=${common} tab=${tab} />`;
  if (row.kind === "says") return html`<${Line} app=${app} row=${row} name=${name} common=${common} tab=${tab} />`;
  const people = others(row.people, row.user).map((one) => one.name || app.name(one.user));
  const what = row.kind === "renames" ? html`set the topic: <bdi>${row.text}</bdi>` : html`${row.kind === "adds" ? "added" : "removed"} <${Names} names=${people} />`;
  return html`<div class="system" ...${common}><bdi>${name}</bdi> ${what}</div>`;
}

function Line({ app, row, name, common, tab }) {
  const [isEditing, setEditing] = useState(false);
  const { fork } = app.state;
  const isStart = fork.from === row.message;
  return html`<div class=${`fork-line ${isStart ? "chosen" : ""}`} role="article" aria-label=${`${name}, ${when(row.message)}`} ...${common}>
    <div class="by"><bdi class="name">${name}</bdi><span class="time">${when(row.message)}</span>
      ${row.before !== undefined && html`<span class="pill warn">edited for this fork</span>`}
      <span class="grow"></span>
      ${!isEditing &&
      html`<button class="quiet small" tabindex=${tab} onClick=${() => setEditing(true)}>Edit</button><${StoryButton} app=${app} row=${row} ask=${{ message: row.message }} tab=${tab} />`}</div>
    ${isEditing
      ? html`<${EditForm} app=${app} row=${row} name=${name} close=${() => setEditing(false)} />`
      : html`${row.before !== undefined && html`<p class="text gone" dir="auto"><del>${row.before}</del></p>`}<${Text} message=${row} />`}
    <${Opened} app=${app} row=${row} />
  </div>`;
}

function EditForm({ app, row, name, close }) {
  const [text, setText] = useState(row.text);
  const field = useRef(null);
  useLayoutEffect(() => field.current.focus(), []);
  const save = (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    const edits = { ...app.state.fork.edits, [row.message]: text };
    if (text === (row.before ?? row.text)) delete edits[row.message];
    close();
    runFork(app, { edits });
  };
  const pressed = (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save(event);
    event.stopPropagation();
  };
  return html`<form class="form" onSubmit=${save}>
    <label><span class="unseen">Text of ${name}</span><textarea rows="3" value=${text} onInput=${(e) => setText(e.target.value)} onKeyDown=${pressed} ref=${field} dir="auto"></textarea></label>
    <div class="buttons"><button class="primary small">Run with this text</button><button type="button" class="quiet small" onClick=${close}>Cancel</button></div>
  </form>`;
}

function Reply({ app, row, name, common, tab }) {
  const { fork } = app.state;
  const { old, new: now } = row;
  const [before, after] = row.mark === "different" && !old.is_html && !now.is_html ? parts(old.text, now.text) : [null, null];
  return html`<div class="fork-reply" data-mark=${row.mark} role="article" aria-label=${`${name}: ${row.mark}`} ...${common}>
    <div class="by"><bdi class="name">${name}</bdi><span class="tag">bot</span><span class=${`pill ${MARKS[row.mark]}`}>${row.mark}</span>
      <span class="grow"></span><${StoryButton} app=${app} row=${row} ask=${{ key: row.key }} tab=${tab} /></div>
    <div class="fork-pair">
      <div><span class="unseen">Before: </span>${old ? html`<${Text} message=${old} parts=${before} tag="del" />` : html`<p class="empty">No answer</p>`}</div>
      <div><span class="unseen">Now: </span>${now ? html`<${Text} message=${now} parts=${after} tag="ins" />` : html`<p class="empty">No answer</p>`}</div>
    </div>
    ${fork.edits[row.answers] !== undefined && html`<p class="hint">Answers a line that was edited for this fork.</p>`}
    ${row.reasons.map((reason) => html`<p class="hint" key=${reason}>Not repeatable: ${reason}</p>`)}
    ${row.mark === "not repeatable" && row.reasons.length === 0 && html`<p class="hint">Not repeatable: two runs of this code gave different answers.</p>`}
    <${Opened} app=${app} row=${row} />
  </div>`;
}

function Text({ message, parts: found, tag: Tag }) {
  if (message.is_html) return html`<div class="text html" dir="auto" dangerouslySetInnerHTML=${safe(message.html ?? "")}></div>`;
  if (!found) return html`<p class="text" dir="auto">${message.text}</p>`;
  const [head, middle, tail] = found;
  return html`<p class="text" dir="auto">${head}${middle && html`<${Tag}>${middle}<//>`}${tail}</p>`;
}

/** Two texts, each as beginning, what differs, and end. */
function parts(one, other) {
  const [a, b] = [[...one], [...other]];
  let head = 0;
  while (head < Math.min(a.length, b.length) && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const cut = (letters) => [letters.slice(0, head).join(""), letters.slice(head, letters.length - tail).join(""), letters.slice(letters.length - tail).join("")];
  return [cut(a), cut(b)];
}

function StoryButton({ app, row, ask, tab }) {
  const { fork } = app.state;
  const isOpen = fork.opened?.id === row.id;
  const toggle = async () => {
    if (isOpen) return change(app, { opened: null });
    const found = await app.ask("fork_story", ask);
    if (found) change(app, { opened: { id: row.id, stories: found.stories } });
  };
  return html`<button class="quiet small" tabindex=${tab} aria-expanded=${isOpen} onClick=${toggle}>Story</button>`;
}

function Opened({ app, row }) {
  const { opened } = app.state.fork;
  if (opened?.id !== row.id) return null;
  if (!opened.stories.length) return html`<p class="empty">No bot has handled this in the fork.</p>`;
  return html`${opened.stories.map((story) => html`<${Story} key=${story.id} app=${app} story=${story} isOpen isReplay />`)}`;
}
