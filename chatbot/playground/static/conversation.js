// The conversation: messages, what is going on in the thread, and the composer.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Attach, Attachments } from "./attachments.js";
import { ForkButton } from "./fork.js";
import { VirtualList } from "./list.js";

const TYPING_SHOWN = 8000;
const TYPING_AGAIN = 8000;
const SYSTEM = new Set(["topicUpdated", "participantAdded", "participantRemoved"]);
// Made once: a formatter costs more than all else that is drawn of a message.
const SAME_DAY = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const OTHER_DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

const policy = window.trustedTypes?.createPolicy("playground", { createHTML: (text) => text });

/** Html that the server has made harmless; nothing else may come here. */
export const safe = (text) => ({ __html: policy ? policy.createHTML(text) : text });

export function when(ms) {
  if (!ms) return "";
  const midnight = new Date().setHours(0, 0, 0, 0);
  const isToday = ms >= midnight && ms < midnight + 86_400_000;
  return (isToday ? SAME_DAY : OTHER_DAY).format(Number(ms));
}

export function Conversation({ app }) {
  const { state } = app;
  const thread = state.threads.get(state.thread);
  if (!thread || thread.deleted) {
    return html`<main class="conversation"><div class="empty-page">
      <h2>${thread?.deleted ? "This thread was deleted" : "No thread is open"}</h2>
      <p>${state.threads.size ? "Choose a thread on the left, or create one." : "Create a thread with the bots you want to talk to."}</p>
      <button class="primary" onClick=${() => app.set({ dialog: "thread" })}>New thread</button>
    </div></main>`;
  }
  const items = state.order;
  return html`<main class="conversation">
    <${Head} app=${app} thread=${thread} key=${thread.id} />
    <${VirtualList}
      items=${items}
      resetKey=${thread.id}
      endKey=${state.sent}
      start=${state.returned}
      current=${state.cursor ?? state.message}
      label=${`Messages of ${thread.topic}`}
      onMove=${(id) => app.set({ cursor: id })}
      onChoose=${(id) => app.choose(id)}
      renderItem=${(item) => html`<${Message} key=${item.id} app=${app} thread=${thread} message=${item} />`}
    />
    ${items.length === 0 && html`<p class="empty floating">Nothing here yet. Say something to the bots.</p>`}
    <${Typing} app=${app} />
    ${thread.is_in ? html`<${Composer} app=${app} thread=${thread} key=${`${thread.id} ${state.me}`} />` : html`<${Join} app=${app} thread=${thread} />`}
  </main>`;
}

function Head({ app, thread }) {
  const [topic, setTopic] = useState(null);
  const field = useRef(null);
  useLayoutEffect(() => field.current?.focus(), [topic === null]);
  const rename = async (event) => {
    event.preventDefault();
    if (topic.trim() && topic !== thread.topic) await app.act("topic", { topic });
    setTopic(null);
  };
  const count = thread.participants.length;
  return html`<header class="conversation-head">
    <button class="quiet only-phone" onClick=${() => app.set({ pane: "threads" })} aria-label="Back to threads">‹</button>
    ${topic === null
      ? html`<h2><bdi>${thread.topic || "(no topic)"}</bdi></h2>
          ${thread.is_in && html`<button class="quiet" onClick=${() => setTopic(thread.topic)}>Rename</button>`}`
      : html`<form class="rename" onSubmit=${rename}>
          <input aria-label="Topic" value=${topic} onInput=${(e) => setTopic(e.target.value)} onKeyDown=${(e) => e.key === "Escape" && setTopic(null)} ref=${field} maxlength="250" dir="auto" />
          <button class="primary small">Save</button>
        </form>`}
    <span class="grow"></span>
    <button class="quiet" onClick=${() => app.set({ dialog: "people" })}>${count} ${count === 1 ? "participant" : "participants"}</button>
  </header>`;
}

function Message({ app, thread, message }) {
  const { state } = app;
  const isChosen = state.message === message.id;
  const common = {
    "data-row": message.id,
    tabindex: "-1",
    onClick: () => app.choose(message.id),
    onFocus: () => state.cursor !== message.id && app.set({ cursor: message.id }),
  };
  if (SYSTEM.has(message.type)) {
    return html`<div class=${`system ${isChosen ? "chosen" : ""}`} ...${common}>${described(app, message)} <span class="time">${when(message.id)}</span></div>`;
  }
  const name = message.display_name || app.name(message.sender);
  const isMine = message.sender === state.me;
  const bot = app.bot(message.sender);
  const readers = Object.entries(thread.receipts).filter(([user, read]) => user !== message.sender && Number(read) >= Number(message.id));
  return html`<div class=${`message ${isMine ? "mine" : ""} ${isChosen ? "chosen" : ""}`} role="article" aria-label=${`${name}, ${when(message.id)}`} ...${common}>
    <span class="avatar" aria-hidden="true" data-hue=${hue(message.sender)}>${bot ? "⚙" : initials(name)}</span>
    <div class="bubble">
      <div class="by"><bdi class="name">${name}</bdi>${bot && html`<span class="tag">bot</span>`}<span class="time">${when(message.id)}</span></div>
      ${message.deleted
        ? html`<p class="text gone">Deleted</p>`
        : message.type === "html"
          ? html`<div class="text html" dir="auto" dangerouslySetInnerHTML=${safe(message.html)}></div>`
          : message.text !== "" && html`<p class="text" dir="auto">${message.text}</p>`}
      <${Attachments} app=${app} message=${message} />
      <div class="under">
        ${message.edited && !message.deleted && html`<span>edited</span>`}
        ${message.metadata && Object.keys(message.metadata).some((key) => !key.startsWith("chatbot.")) && html`<span>metadata</span>`}
        ${readers.length > 0 && html`<span>read by <${Names} names=${readers.map(([user]) => brief(app.name(user)))} /></span>`}
        ${state.troubled.has(message.id) && html`<span class="bad">a bot failed</span>`}
        ${!message.deleted && html`<${ForkButton} app=${app} message=${message} isCurrent=${(state.cursor ?? state.message) === message.id} />`}
      </div>
    </div>
  </div>`;
}

/** Whom somebody added or removed, themselves left out if there are others: who creates a thread is one of its people. */
export function others(people, user) {
  const found = people.filter((one) => one.user !== user);
  return found.length ? found : people;
}

function described(app, message) {
  const people = html`<${Names} names=${others(message.participants ?? [], message.sender).map((p) => p.display_name || app.name(p.user))} />`;
  const who = html`<bdi>${app.name(message.sender)}</bdi>`;
  if (message.type === "topicUpdated") return html`${who} set the topic: <bdi>${message.topic}</bdi>`;
  const isOwn = message.participants?.length === 1 && message.participants[0].user === message.sender;
  if (message.type === "participantAdded") return isOwn ? html`${who} joined` : html`${who} added ${people}`;
  return isOwn ? html`${who} left` : html`${who} removed ${people}`;
}

/** Names in a sentence, none of which can turn the direction of the words around it. */
export function Names({ names }) {
  return names.map((name, n) => html`${n > 0 ? ", " : ""}<bdi>${name}</bdi>`);
}

function Typing({ app }) {
  const [, redraw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => redraw((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  const names = [...app.state.typing.values()].filter((t) => t.user !== app.state.me && t.thread === app.state.thread && Date.now() - t.shown < TYPING_SHOWN).map((t) => t.name);
  return html`<p class="typing">${names.length ? html`<${Names} names=${names} /> ${names.length === 1 ? "is" : "are"} typing…` : ""}</p>`;
}

function Composer({ app }) {
  const [text, setText] = useState("");
  const [type, setType] = useState("text");
  const [metadata, setMetadata] = useState(null);
  const [attached, setAttached] = useState(null);
  const typedAt = useRef(0);
  const field = useRef(null);
  const send = async (event) => {
    event?.preventDefault();
    if (!text.trim() && !attached?.length) return;
    const values = parsed(metadata);
    if (values === null) {
      app.complain("write metadata as name=value, one a line");
      return;
    }
    // Emptied at once, because the next message may be typed before the answer comes; a refused one comes back.
    setText("");
    setMetadata(null);
    setAttached(null);
    field.current?.focus();
    app.set({ sent: app.state.sent + 1 });
    if (!(await app.act("send", { content: text, type, metadata: values, attachments: attached ?? [] }))) {
      setText((next) => next || text);
      setMetadata((next) => next ?? metadata);
      setAttached((next) => next ?? attached);
    }
  };
  const typed = (event) => {
    setText(event.target.value);
    if (Date.now() - typedAt.current > TYPING_AGAIN) {
      typedAt.current = Date.now();
      app.act("type", {}, { isQuiet: true });
    }
  };
  const pressed = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  };
  return html`<form class="composer" onSubmit=${send}>
    ${metadata !== null &&
    html`<label class="metadata">Metadata, <code>name=value</code> a line
      <textarea rows="2" value=${metadata} onInput=${(e) => setMetadata(e.target.value)} dir="auto"></textarea></label>`}
    ${attached !== null && html`<${Attach} app=${app} attached=${attached} change=${setAttached} />`}
    <textarea ref=${field} rows=${Math.min(8, text.split("\n").length)} aria-label="Message" placeholder=${`Message as ${isolated(brief(app.name(app.state.me)))}`} value=${text} onInput=${typed} onKeyDown=${pressed} dir="auto"></textarea>
    <div class="composer-row">
      <select aria-label="Type" value=${type} onChange=${(e) => setType(e.target.value)}>
        <option value="text">Text</option>
        <option value="html">HTML</option>
      </select>
      <button type="button" class="quiet" aria-pressed=${metadata !== null} onClick=${() => setMetadata(metadata === null ? "" : null)}>Metadata</button>
      <button type="button" class="quiet" aria-pressed=${attached !== null} onClick=${() => setAttached(attached === null ? [] : null)}>Attach</button>
      <span class="hint grow">Enter sends, Shift+Enter is a new line</span>
      <button class="primary" disabled=${!text.trim() && !attached?.length}>Send</button>
    </div>
  </form>`;
}

/** Metadata as it is written: name=value a line; null if a line is something else. */
export function parsed(metadata) {
  const values = {};
  for (const line of (metadata ?? "").split("\n").filter((l) => l.trim())) {
    const at = line.indexOf("=");
    if (at < 1) return null;
    values[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return values;
}

function Join({ app, thread }) {
  const member = thread.participants[0];
  const join = () => app.ask("add", { thread: thread.id, user: member.user, other: app.state.me });
  return html`<div class="join">
    <p><bdi>${app.name(app.state.me)}</bdi> is not in this thread.</p>
    ${member && html`<button class="primary" onClick=${join}>Join (<bdi>${app.name(member.user)}</bdi> adds you)</button>`}
  </div>`;
}

/** A name for an attribute, which takes no element: what it says of directions ends with it. */
export const isolated = (name) => `\u2068${name}\u2069`;

/** A name that leaves room for others. */
export const brief = (name) => (name.length > 30 ? `${name.slice(0, 29)}…` : name);

export function initials(name) {
  const visible = [...name].find((letter) => /[^\p{C}\p{Z}]/u.test(letter));
  return (visible ?? "?").toUpperCase();
}

function hue(user) {
  let sum = 0;
  for (const letter of user ?? "") sum = (sum * 33 + letter.codePointAt(0)) % 1000003;
  return sum % 6;
}
