// The list of threads, and the forms for people and threads.

import { html, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";
import { when } from "./conversation.js";

export function Sidebar({ app }) {
  const { state } = app;
  const threads = [...state.threads.values()].filter((t) => !t.deleted).sort((a, b) => b.at - a.at);
  const mine = threads.filter((t) => t.is_in);
  const others = threads.filter((t) => !t.is_in);
  return html`<nav class="sidebar" aria-label="Threads">
    <div class="sidebar-head">
      <h2>Threads</h2>
      <button class="quiet" onClick=${() => app.set({ dialog: "thread" })}>New thread</button>
    </div>
    <div class="thread-list">
      ${mine.length === 0 && html`<p class="empty">No threads yet. Create one with the bots you want to talk to.</p>`}
      ${mine.map((t) => html`<${Entry} key=${t.id} app=${app} thread=${t} />`)}
      ${others.length > 0 && html`<h3>Threads of others</h3>`}
      ${others.map((t) => html`<${Entry} key=${t.id} app=${app} thread=${t} />`)}
    </div>
  </nav>`;
}

function Entry({ app, thread }) {
  const isOpen = app.state.thread === thread.id;
  const preview = thread.last ? html`${thread.last_name && html`<bdi>${thread.last_name}</bdi>: `}<bdi>${thread.last}</bdi>` : "Nothing said yet";
  return html`<button class="thread" aria-current=${isOpen ? "true" : undefined} onClick=${() => app.openThread(thread.id)}>
    <span class="thread-top">
      <bdi class="thread-topic">${thread.topic || "(no topic)"}</bdi>
      <span class="time">${when(thread.at)}</span>
    </span>
    <span class="thread-bottom">
      <span class="thread-last">${preview}</span>
      ${thread.unread > 0 && html`<span class="badge" aria-label=${`${thread.unread} unread`}>${thread.unread}</span>`}
    </span>
  </button>`;
}

export function Welcome({ app }) {
  const [name, setName] = useState("");
  const field = useRef(null);
  useLayoutEffect(() => field.current.focus(), []);
  const bots = app.state.hello.bots;
  const begin = async (event) => {
    event.preventDefault();
    const made = await app.ask("create_person", { name });
    if (!made) return;
    app.actAs(made.user);
    const others = bots.map((bot) => bot.user);
    const thread = await app.ask("create_thread", { user: made.user, topic: `${name.trim()} and the bots`.slice(0, 250), others });
    if (thread) app.openThread(thread.thread);
  };
  return html`<form class="welcome" onSubmit=${begin}>
    <h2>Who are you?</h2>
    <p>The playground lets you talk to your bots as anybody. Begin with one name; you can add more people later.</p>
    <label>Your name <input ref=${field} name="name" value=${name} onInput=${(e) => setName(e.target.value)} required maxlength="256" autocomplete="off" /></label>
    <button class="primary">Start a thread${bots.length ? ` with ${bots.map((b) => b.display_name).join(", ")}` : ""}</button>
  </form>`;
}

/** A dialog that closes with Escape and gives the focus back. A field that is to be filled first has `autofocus`. */
export function Modal({ app, title, children }) {
  const dialog = useRef(null);
  useLayoutEffect(() => {
    const element = dialog.current;
    element.showModal();
    return () => element.close(); // gives the focus back, which its removal does not
  }, []);
  const closed = (event) => event.currentTarget.isConnected && app.set({ dialog: null });
  return html`<dialog ref=${dialog} aria-label=${title} onClose=${closed}>
    <div class="dialog-head">
      <h2>${title}</h2>
      <button class="quiet" onClick=${() => app.set({ dialog: null })} aria-label="Close">✕</button>
    </div>
    ${children}
  </dialog>`;
}

export function NewPerson({ app }) {
  const [name, setName] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    const made = await app.ask("create_person", { name });
    if (made) {
      app.actAs(made.user);
      app.set({ dialog: null });
    }
  };
  return html`<${Modal} app=${app} title="New person">
    <form class="form" onSubmit=${submit}>
      <label>Name <input autofocus value=${name} onInput=${(e) => setName(e.target.value)} required maxlength="256" autocomplete="off" /></label>
      <button class="primary">Create and switch</button>
    </form>
  <//>`;
}

/** A window beside this one, as somebody else. */
export function SecondWindow({ app }) {
  const others = app.state.hello.people.filter((person) => person.user !== app.state.me);
  const [name, setName] = useState("");
  const open = (user) => {
    app.secondWindow(user);
    app.set({ dialog: null });
  };
  const create = async (event) => {
    event.preventDefault();
    const made = await app.ask("create_person", { name });
    if (made) open(made.user);
  };
  return html`<${Modal} app=${app} title="Second window">
    ${others.length > 0 && html`<p class="hint">As somebody you know:</p><ul class="people">${others.map((p) => html`<li key=${p.user}><bdi class="grow">${p.name}</bdi><button class="quiet small" onClick=${() => open(p.user)} aria-label=${`Open as ${p.name}`}>Open</button></li>`)}</ul>`}
    <form class="form spaced" onSubmit=${create}>
      <label>As a new person <input aria-label="Name" value=${name} onInput=${(e) => setName(e.target.value)} required maxlength="256" autocomplete="off" placeholder="Name" /></label>
      <button class="primary">Create and open</button>
    </form>
  <//>`;
}

export function NewThread({ app }) {
  const { hello, me } = app.state;
  const [topic, setTopic] = useState("");
  const [others, setOthers] = useState(hello.bots.map((bot) => bot.user));
  const submit = async (event) => {
    event.preventDefault();
    const made = await app.ask("create_thread", { user: me, topic, others });
    if (made) {
      app.set({ dialog: null });
      app.openThread(made.thread);
    }
  };
  const choices = [...hello.bots.map((b) => ({ user: b.user, name: b.display_name, is_bot: true })), ...hello.people.filter((p) => p.user !== me)];
  const toggle = (user) => setOthers(others.includes(user) ? others.filter((o) => o !== user) : [...others, user]);
  return html`<${Modal} app=${app} title="New thread">
    <form class="form" onSubmit=${submit}>
      <label>Topic <input autofocus value=${topic} onInput=${(e) => setTopic(e.target.value)} required maxlength="250" autocomplete="off" /></label>
      <fieldset>
        <legend>With</legend>
        ${choices.map(
          (c) => html`<label class="check" key=${c.user}>
            <input type="checkbox" checked=${others.includes(c.user)} onChange=${() => toggle(c.user)} />
            <bdi>${c.name}</bdi> ${c.is_bot && html`<span class="tag">bot</span>`}
          </label>`,
        )}
      </fieldset>
      <button class="primary">Create</button>
    </form>
  <//>`;
}
