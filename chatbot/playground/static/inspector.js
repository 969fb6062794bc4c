// The inspector: the story of a message, its details, the bots, and the tools.

import { html, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";
import { isolated, parsed } from "./conversation.js";
import { Modal } from "./sidebar.js";
import { Bots } from "./bots.js";
import { Tools } from "./tools.js";

const TABS = { story: "Story", details: "Details", bots: "Bots", tools: "Tools" };

export function Inspector({ app }) {
  const { state } = app;
  const pressed = (event) => {
    const names = Object.keys(TABS);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = names[(names.indexOf(state.tab) + step + names.length) % names.length];
    app.showTab(next);
    event.currentTarget.querySelector(`#tab-${next}`).focus();
  };
  const Panel = { story: Stories, details: Details, bots: Bots, tools: Tools }[state.tab];
  return html`<aside class="inspector" aria-label="Inspector">
    <div class="tabs" role="tablist" aria-label="Inspector" onKeyDown=${pressed}>
      ${Object.entries(TABS).map(
        ([name, label]) => html`<button key=${name} id=${`tab-${name}`} role="tab" aria-selected=${state.tab === name} aria-controls="panel" tabindex=${state.tab === name ? 0 : -1} onClick=${() => app.showTab(name)}>${label}</button>`,
      )}
    </div>
    <div class="panel" id="panel" role="tabpanel" aria-labelledby=${`tab-${state.tab}`} tabindex="0"><${Panel} app=${app} /></div>
  </aside>`;
}

function Stories({ app }) {
  const { state } = app;
  const message = state.messages.get(state.message);
  if (message) {
    const stories = app.storiesOf(message).sort((a, b) => !a.handler - !b.handler); // bots that answer come first
    return html`<div>
      <div class="panel-head"><h2>Story of a message</h2><button class="quiet small" onClick=${() => app.choose(null)}>All events</button></div>
      <blockquote class="quote" dir="auto">${message.text || message.topic || message.type}</blockquote>
      ${stories.length === 0 && html`<p class="empty">No bot has handled this message in this run. Bots do not handle their own messages.</p>`}
      ${stories.map((story) => html`<${Story} key=${`of ${message.id} ${story.id}`} app=${app} story=${story} isOpen />`)}
    </div>`;
  }
  const stories = [...state.stories.values()].sort((a, b) => b.id - a.id).slice(0, 100);
  return html`<div>
    <h2>Events</h2>
    <p class="hint">What the bots did in this thread, newest first. Choose a message to see only its story.</p>
    ${stories.length === 0 && html`<p class="empty">Nothing yet. The story of each event appears here while bots handle it.</p>`}
    ${stories.map((story) => html`<${Story} key=${story.id} app=${app} story=${story} />`)}
  </div>`;
}

/** `isReplay`: of a fork, where nothing can be retried. */
export function Story({ app, story, isOpen = false, isReplay = false }) {
  const [isShown, show] = useState(isOpen);
  const last = story.steps.findLast((step) => step.kind === "handler");
  const state = story.dead_letter ? "dead letter" : last?.error ? "failed" : story.handler ? "handled" : "no handler";
  return html`<details class="story" open=${isShown} onToggle=${(event) => event.target === event.currentTarget && show(event.currentTarget.open)}>
    <summary>
      <bdi class="name">${app.state.hello.bots.find((b) => b.name === story.bot)?.display_name ?? story.bot}</bdi>
      <span class="what">${story.text ? html`<bdi>${story.text.slice(0, 80)}</bdi>` : story.event}</span>
      <span class=${`pill ${state === "handled" ? "good" : state === "no handler" ? "" : "bad"}`}>${state}</span>
    </summary>
    ${isShown && html`<${StoryBody} app=${app} story=${story} isReplay=${isReplay} />`}
  </details>`;
}

/** What a story tells. It is drawn only while it is open: a thread has a hundred of them. */
function StoryBody({ app, story, isReplay }) {
  return html`<p class="hint">${story.event}</p>
    ${story.handler && html`<${Place} handler=${story.handler} place=${story.place} app=${app} />`}
    ${story.text !== undefined && story.normalized !== story.text && html`<p class="fact">Normalized to <q dir="auto">${story.normalized}</q></p>`}
    <ol class="steps">${merged(story.steps).map((step, n) => html`<${Step} key=${n} app=${app} step=${step} />`)}</ol>
    ${story.others?.length > 0 &&
    html`<details class="others"><summary>${story.others.length} other ${story.others.length === 1 ? "handler" : "handlers"} did not match</summary>
      <ul>${story.others.map((o) => html`<li key=${o.handler}><${HandlerLink} app=${app} name=${o.handler} /> ${o.reason}</li>`)}</ul></details>`}
    ${story.trace && html`<p class="fact">Trace <code>${story.trace}</code></p>`}
    ${story.dead_letter && !isReplay && html`<p><button class="primary small" onClick=${() => retry(app, story.dead_letter)}>Retry the dead letter</button></p>`}`;
}

export async function retry(app, letter) {
  const answer = await app.ask("retry", { letter });
  if (answer) app.tell(answer.outcome === "now" ? "The bot handles it again now." : `Retry: ${answer.outcome}.`);
}

/** Steps without those that another one already tells. */
function merged(steps) {
  const isUsage = (step, n) => step.kind === "handler" && !step.error && steps[n - 1]?.refused;
  return steps.map((step, n) => (isUsage(step, n) ? { ...step, kind: "usage" } : step)).filter((step) => !(step.kind === "attempt" && step.number === 1));
}

function Place({ app, handler, place }) {
  return html`<p class="place"><${HandlerLink} app=${app} name=${handler} isLong /><br /><code class="dim">${place}</code></p>`;
}

/** A handler's name, which shows its file and line. */
export function HandlerLink({ app, name, isLong = false }) {
  const show = async () => {
    const source = await app.ask("source", { handler: name });
    if (source) app.set({ dialog: "source", source: { ...source, handler: name } });
  };
  return html`<button class="link" title="Show file and line" onClick=${show}>${isLong ? name : short(name)}</button>`;
}

export function Source({ app }) {
  const { handler, place, file, line, text } = app.state.source;
  const copy = async () => {
    await navigator.clipboard.writeText(file ? `${file}:${line}` : place);
    app.tell("Copied.");
  };
  return html`<${Modal} app=${app} title=${short(handler)}>
    <p class="place"><code>${place}</code></p>
    ${text ? html`<pre class="source" tabindex="0">${text.trimEnd().split("\n").map((code, n) => html`<span key=${n}><i aria-hidden="true">${line + n}</i>${code}\n</span>`)}</pre>` : html`<p class="empty">Its text cannot be read.</p>`}
    <div class="buttons"><button onClick=${copy}>Copy file and line</button></div>
  <//>`;
}

const MS = (seconds) => (seconds === undefined ? "" : seconds >= 1 ? `${seconds.toFixed(2)} s` : `${(seconds * 1000).toFixed(1)} ms`);

function Step({ app, step }) {
  const [title, body, kind] = told(app, step);
  return html`<li class=${`step ${kind ?? (step.error ? "bad" : "")}`}>
    <div class="step-head"><span>${title}</span><span class="time">${MS(step.seconds)}</span></div>
    ${body}
  </li>`;
}

function told(app, step) {
  switch (step.kind) {
    case "poll":
      return ["Found by a poll", null];
    case "attempt":
      return [`Attempt ${step.number}`, null];
    case "skipped":
      return ["Did not match", html`<p class="fact"><${HandlerLink} app=${app} name=${step.handler} /> ${step.reason}</p>`, "dim"];
    case "chosen":
      return ["Chosen", html`<p class="fact"><code>${step.command ?? step.handler}</code>${step.refused && html` <span class="bad">${step.refused}</span>`}</p><${Values} values=${step.arguments} />`];
    case "handler":
      return [
        html`Ran <${HandlerLink} app=${app} name=${step.handler} />`,
        step.error && html`<p class="bad"><strong>${step.error}</strong> ${step.text}</p><details><summary>Traceback</summary><pre tabindex="0">${step.traceback}</pre></details>`,
      ];
    case "usage":
      return ["Answered how it is used; it did not run", null];
    case "recalled":
      return [html`Result of <code>${step.call}</code> from the journal`, html`<p class="fact"><code>${step.result}</code></p>`];
    case "refused":
      return ["Network refused", html`<p class="bad">${step.what}</p><p class="hint">${step.place}</p>`, "bad"];
    case "unrepeatable":
      return [`Not repeatable: reads ${step.what}`, html`<p class="hint">${step.place}</p>`, "warn"];
    case "retry":
      return [`Retried in ${step.pause} s`, null, "warn"];
    case "commit":
      return [step.error ? "Commit failed" : "Committed", html`${step.changes?.map((change, n) => html`<${Change} key=${n} change=${change} />`)}<p class="hint">${step.writes.join(", ")}</p>`];
    case "action":
      return [html`Action <code>${step.action}</code>`, html`<${Values} values=${step.values} /><p class="hint">key ${step.key}</p>`];
    case "sent":
      return [step.error?.startsWith("OutcomeUnknown") ? "Sent, outcome unknown" : step.error ? "Sending failed" : "Sent", step.error && html`<p class="bad">${step.error}</p>`];
    case "settled":
      return step.status === "done" ? ["Found in the thread: it was sent", null] : ["Given up", html`<p class="bad">${step.reason}</p>`, "bad"];
    case "receipt":
      return [step.error ? "Read receipt failed" : "Read receipt sent", step.error && html`<p class="bad">${step.error}</p>`];
    case "call":
      return [html`Called <code>${step.operation}</code>`, html`<p class=${step.outcome === "ok" ? "hint" : "bad"}>${step.outcome}${step.status ? ` ${step.status}` : ""}${step.quota_left !== undefined && html`<span class="hint">, quota left: ${step.quota_left}</span>`}</p>`, step.outcome === "ok" ? "dim" : "bad"];
  }
  return [step.kind, null];
}

/** The class of a text that points at lines of a file: its signs stand below each other. */
export const excerpt = (text) => (text?.includes("\n") ? "excerpt" : "");

const short = (name) => name.split(".").slice(-2).join(".");

function Values({ values }) {
  const entries = Object.entries(values ?? {}).filter(([, value]) => value !== "{}");
  if (!entries.length) return null;
  return html`<dl class="values">${entries.map(([name, value]) => html`<dt key=${`${name}.`}>${name}</dt><dd dir="auto">${value}</dd>`)}</dl>`;
}

function Change({ change }) {
  if (change.kind === "state") {
    const [before, after] = [change.before, change.after].map((value) => (value === null ? "" : JSON.stringify(value, null, 2)));
    const [old, now] = [before.split("\n"), after.split("\n")];
    const lines = [...old.filter((l) => l && !now.includes(l)).map((l) => ["−", l]), ...now.filter((l) => l && !old.includes(l)).map((l) => ["+", l])];
    return html`<p class="fact">State <code>${short(change.name)}</code> ${change.whose}</p>
      <pre class="diff" tabindex="0">${lines.map(([sign, line], n) => html`<span key=${n} class=${sign === "+" ? "added" : "removed"}>${sign} ${line}</span>`)}</pre>`;
  }
  if (change.kind === "dialog") {
    return html`<p class="fact">Dialog <code>${short(change.name)}</code> ${change.state}${change.deadline_ms ? `, until ${new Date(change.deadline_ms).toLocaleString()}` : ""}</p>
      ${change.journal && html`<details><summary>Journal</summary><pre tabindex="0">${JSON.stringify(change.journal, null, 1)}</pre></details>`}`;
  }
  if (change.kind === "timer") {
    return html`<p class="fact">Timer <code>${short(change.name)}</code> ${change.due_ms ? `due ${new Date(change.due_ms).toLocaleString()}` : "ended"}</p>`;
  }
  if (change.state === "ended") return html`<p class="fact">Dead letter <code>${change.name}</code> dropped</p>`;
  return html`<p class="bad">Dead letter ${change.name}: ${change.error}</p>`;
}

function Details({ app }) {
  const { state } = app;
  const message = state.messages.get(state.message);
  if (!message) return html`<div><h2>Details</h2><p class="empty">Choose a message to see its id, version, sequence and metadata.</p></div>`;
  return html`<${MessageDetails} key=${message.id} app=${app} message=${message} />`;
}

function MessageDetails({ app, message }) {
  const { state } = app;
  const [text, setText] = useState(null);
  const [lines, setLines] = useState("");
  const field = useRef(null);
  useLayoutEffect(() => field.current?.focus(), [text === null]);
  const thread = state.threads.get(state.thread);
  const isMine = message.sender === state.me && !message.deleted && message.text !== undefined;
  const metadata = Object.entries(message.metadata ?? {}).filter(([key]) => key !== "chatbot.key");
  const facts = {
    Id: message.id,
    Version: message.version,
    Sequence: message.sequence,
    Type: message.type,
    Sender: message.sender && `${isolated(app.name(message.sender))} ${message.sender}`,
    Created: new Date(Number(message.id)).toLocaleString(),
    Edited: message.edited && new Date(message.edited).toLocaleString(),
    Deleted: message.deleted && new Date(message.deleted).toLocaleString(),
    "Reply key": message.metadata?.["chatbot.key"],
    "Read by": Object.entries(thread?.receipts ?? {}).filter(([, read]) => Number(read) >= Number(message.id)).map(([user]) => isolated(app.name(user))).join(", "),
  };
  const begin = () => {
    setText(message.text);
    setLines(metadata.map(([name, value]) => `${name}=${value}`).join("\n"));
  };
  const edit = async (event) => {
    event.preventDefault();
    const values = parsed(lines);
    if (values === null) {
      app.complain("write metadata as name=value, one a line");
      return;
    }
    // The service merges metadata: a name goes away by an empty value.
    const gone = Object.fromEntries(metadata.filter(([name]) => !(name in values)).map(([name]) => [name, ""]));
    const changed = { ...gone, ...values };
    const fields = Object.keys(changed).length ? { metadata: changed } : {};
    if (await app.act("edit", { message: message.id, content: text, ...fields })) setText(null);
  };
  return html`<div>
    <h2>Details</h2>
    ${text === null
      ? html`<blockquote class="quote" dir="auto">${message.text || message.topic || message.type}</blockquote>`
      : html`<form class="form" onSubmit=${edit} onKeyDown=${(e) => e.key === "Escape" && setText(null)}><label>Text <textarea ref=${field} rows="4" value=${text} onInput=${(e) => setText(e.target.value)} dir="auto"></textarea></label>
          <label>Metadata, name=value a line <textarea rows="2" value=${lines} onInput=${(e) => setLines(e.target.value)} dir="auto"></textarea></label>
          <div class="buttons"><button class="primary small">Save</button><button type="button" class="quiet small" onClick=${() => setText(null)}>Cancel</button></div></form>`}
    ${isMine &&
    text === null &&
    html`<div class="buttons"><button class="quiet small" onClick=${begin}>Edit</button>
      <button class="quiet small danger" onClick=${() => app.act("delete", { message: message.id })}>Delete</button></div>`}
    <dl class="facts">
      ${Object.entries(facts).filter(([, value]) => value !== undefined && value !== "" && value !== 0).map(([name, value]) => html`<dt key=${`${name}.`}>${name}</dt><dd>${value}</dd>`)}
    </dl>
    ${metadata.length > 0 && html`<h3>Metadata</h3><dl class="facts">${metadata.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd dir="auto">${value}</dd>`)}</dl>`}
    ${message.attachments?.length > 0 && html`<h3>Attachments</h3>${message.attachments.map((one) => html`<dl class="facts" key=${one.id}>${Object.entries(one).filter(([, value]) => value).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>`)}`}
  </div>`;
}

export function People({ app }) {
  const { state } = app;
  const { hello } = state;
  const thread = state.threads.get(state.thread);
  const present = new Set(thread.participants.map((p) => p.user));
  const absent = [...hello.bots.map((b) => ({ user: b.user, name: b.display_name })), ...hello.people].filter((p) => !present.has(p.user));
  const [other, setOther] = useState("");
  const chosen = absent.some((p) => p.user === other) ? other : absent[0]?.user;
  return html`<${Modal} app=${app} title="Participants">
    <ul class="people">
      ${thread.participants.map(
        (p) => html`<li key=${p.user}><bdi>${p.name || app.name(p.user)}</bdi>${app.bot(p.user) && html`<span class="tag">bot</span>`}<span class="grow"></span>
          ${thread.is_in && html`<button class="quiet small" aria-label=${`${p.user === state.me ? "Leave" : "Remove"} ${p.name}`} onClick=${() => app.act("remove", { other: p.user })}>${p.user === state.me ? "Leave" : "Remove"}</button>`}</li>`,
      )}
    </ul>
    ${thread.is_in &&
    absent.length > 0 &&
    html`<div class="buttons"><label class="grow">Add <select value=${chosen} onChange=${(e) => setOther(e.target.value)}>${absent.map((p) => html`<option key=${p.user} value=${p.user}>${p.name}</option>`)}</select></label>
      <button class="primary small" onClick=${() => app.act("add", { other: chosen })}>Add</button></div>`}
    ${thread.is_in && html`<p><button class="quiet small danger" onClick=${async () => (await app.act("delete_thread", {})) && app.set({ dialog: null })}>Delete the thread for everyone</button></p>`}
  <//>`;
}
