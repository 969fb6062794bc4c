// The page: its state, what the person does, and what the playground pushes.

import { html, render, useEffect, useReducer } from "./vendor/preact-htm.js";
import { Connection, takeToken } from "./connection.js";
import { Conversation, isolated } from "./conversation.js";
import { keepFocus } from "./focus.js";
import { closeFork, Fork, takeProgress } from "./fork.js";
import { excerpt, Inspector, People, Source } from "./inspector.js";
import { NewPerson, NewThread, SecondWindow, Sidebar, Welcome } from "./sidebar.js";

const TOAST_SHOWN = 9000;

class App {
  constructor() {
    const place = new URLSearchParams(location.hash.slice(1));
    this.redraw = () => {};
    this.state = {
      connection: "connecting",
      hello: null,
      me: place.get("as") ?? sessionStorage.getItem("as"),
      threads: new Map(),
      thread: place.get("thread"),
      message: place.get("message"),
      cursor: null,
      order: [],
      messages: new Map(),
      stories: new Map(),
      troubled: new Map(),
      typing: new Map(),
      sent: 0,
      bots: null,
      tab: "story",
      pane: place.get("thread") ? "conversation" : "threads",
      dialog: null,
      fork: null,
      toasts: [],
      news: "",
    };
    this.pictures = new Map();
    this.isDrawing = false;
    this.reads = "";
  }

  start(token) {
    this.token = token;
    this.connection = new Connection(token, { onPush: (frame) => this.take(frame), onState: (connection) => this.set({ connection }) });
    addEventListener("hashchange", () => this.follow());
    addEventListener("focus", () => this.markRead());
  }

  /** Change the state, and draw once for all changes of this turn. */
  set(changes) {
    Object.assign(this.state, changes);
    if (this.isDrawing) return;
    this.isDrawing = true;
    requestAnimationFrame(() => {
      this.isDrawing = false;
      this.redraw();
    });
  }

  // What the playground pushes

  take(frame) {
    const { state } = this;
    switch (frame.push) {
      case "hello":
        this.welcome(frame);
        break;
      case "threads": {
        const threads = frame.is_all ? new Map() : new Map(state.threads);
        for (const thread of frame.threads) threads.set(thread.id, thread);
        this.set({ threads });
        if (frame.is_all && state.thread && !threads.has(state.thread)) this.openThread(null);
        if (frame.is_all && !state.thread) this.openLatest();
        break;
      }
      case "messages":
        this.takeMessages(frame);
        break;
      case "typing":
        state.typing.set(`${frame.thread} ${frame.user}`, { ...frame, shown: Date.now() });
        this.set({});
        break;
      case "story":
        state.stories.set(frame.story.id, frame.story);
        this.noteTrouble(frame.story);
        this.set({});
        break;
      case "fork":
        takeProgress(this, frame);
        break;
      case "bots":
        this.set({ bots: frame });
        break;
    }
  }

  welcome(hello) {
    const { state } = this;
    const isNew = state.connection !== "open";
    const known = hello.people.some((person) => person.user === state.me);
    const me = known ? state.me : (hello.people[0]?.user ?? null);
    this.set({ hello, me, connection: "open" });
    if (isNew) {
      this.set({ toasts: state.toasts.filter((toast) => !toast.isBad) }); // what was refused meanwhile can be done now
      // After a lost connection everything is asked for again: what happened meanwhile was pushed to nobody.
      this.connection.ask("look", { user: me }).catch(() => {});
      if (state.thread) this.openThread(state.thread, { message: state.message, isAgain: true });
      if (state.tab === "bots") this.watchBots(true);
    } else if (me !== state.looked) {
      this.connection.ask("look", { user: me }).catch(() => {});
    }
    state.looked = me;
    document.title = me ? `${isolated(this.name(me))} · Playground` : "Playground";
  }

  takeMessages(frame) {
    const { state } = this;
    if (frame.thread !== state.thread) return;
    for (const message of frame.messages) {
      const isNew = !state.messages.has(message.id);
      state.messages.set(message.id, message);
      if (message.sender) state.typing.delete(`${frame.thread} ${message.sender}`);
      if (isNew && state.isLoaded && message.sender !== state.me && message.text !== undefined) {
        state.news = `${message.display_name || this.name(message.sender)}: ${message.text}`.slice(0, 300);
      }
    }
    state.order = [...state.messages.values()].sort((a, b) => a.id - b.id);
    this.set({});
    this.markRead();
  }

  /** Send a read receipt for the last message of others, if the person looks at it. */
  markRead() {
    const { state } = this;
    const thread = state.threads.get(state.thread);
    if (!state.isLoaded || !document.hasFocus() || !thread?.is_in || !state.me) return;
    const last = state.order.findLast((m) => m.sender !== state.me && m.text !== undefined && !m.deleted);
    if (!last || Number(thread.receipts[state.me] ?? 0) >= Number(last.id) || this.reads === `${state.me} ${last.id}`) return;
    this.reads = `${state.me} ${last.id}`;
    this.act("read", { message: last.id }, { isQuiet: true });
  }

  // What the person does

  async ask(name, fields, { isQuiet = false } = {}) {
    try {
      return await this.connection.ask(name, fields);
    } catch (error) {
      if (!isQuiet) this.complain(error.message);
      return null;
    }
  }

  /** Do something in the open thread as the person. */
  act(name, fields, options) {
    return this.ask(name, { user: this.state.me, thread: this.state.thread, ...fields }, options);
  }

  complain(text) {
    this.tell(text, true);
  }

  tell(text, isBad = false) {
    const toast = { text, isBad };
    this.set({ toasts: [...this.state.toasts.filter((t) => t.text !== text), toast].slice(-3) });
    setTimeout(() => this.set({ toasts: this.state.toasts.filter((t) => t !== toast) }), TOAST_SHOWN);
  }

  async openThread(id, { message = null, isAgain = false } = {}) {
    const { state } = this;
    if (!isAgain) closeFork(this);
    if (!isAgain) this.set({ order: [], returned: null, pane: id ? "conversation" : "threads" });
    // Opened again, the thread is shown as it was until the news come: a list that shrinks would lose its place.
    if (!isAgain) this.set({ cursor: message, messages: new Map() });
    this.set({ thread: id, message, stories: new Map(), isLoaded: false });
    this.remember();
    if (!id) return;
    const opened = await this.ask("open", { thread: id });
    if (!opened) {
      if (state.connection === "open" && state.thread === id) this.openThread(null);
      return;
    }
    if (state.thread === id) {
      this.set({ isLoaded: true });
      this.markRead();
    }
  }

  openLatest() {
    const threads = [...this.state.threads.values()].filter((t) => t.is_in && !t.deleted).sort((a, b) => b.at - a.at);
    if (threads.length && matchMedia("(min-width: 821px)").matches) this.openThread(threads[0].id);
  }

  choose(message) {
    this.set({ message, cursor: message, tab: ["story", "details"].includes(this.state.tab) ? this.state.tab : "story" });
    this.watchBots(false);
    this.remember();
  }

  actAs(user) {
    sessionStorage.setItem("as", user);
    this.reads = "";
    this.set({ me: user });
    this.state.looked = user;
    this.connection.ask("look", { user }).catch(() => {});
    this.remember();
    document.title = `${isolated(this.name(user))} · Playground`;
  }

  showTab(tab) {
    this.set({ tab });
    this.watchBots(tab === "bots");
  }

  watchBots(on) {
    if (this.state.isWatching === on) return;
    this.state.isWatching = on;
    this.ask("watch_bots", { on }, { isQuiet: true });
  }

  /** Keep the place in the address, so that it survives a reload and can be shared between windows. */
  remember() {
    const { thread, message, me } = this.state;
    const place = new URLSearchParams(Object.entries({ thread, message, as: me }).filter(([, value]) => value));
    history.replaceState(null, "", place.size ? `#${place}` : location.pathname);
  }

  follow() {
    const place = new URLSearchParams(location.hash.slice(1));
    if (place.get("thread") !== this.state.thread) this.openThread(place.get("thread"), { message: place.get("message") });
    else if (place.get("message") !== this.state.message) this.choose(place.get("message"));
  }

  secondWindow(user) {
    const place = new URLSearchParams({ token: this.token, as: user });
    if (this.state.thread) place.set("thread", this.state.thread);
    window.open(`${location.pathname}#${place}`, "_blank", "noopener");
  }

  // What is known

  name(user) {
    const { hello } = this.state;
    const bot = this.bot(user);
    if (bot) return bot.display_name;
    return hello?.people.find((person) => person.user === user)?.name ?? (user ? `…${user.slice(-6)}` : "the service");
  }

  bot(user) {
    return this.state.hello?.bots.find((bot) => bot.user === user);
  }

  /** Stories of a message: of the events that it caused, and of those that it answers. */
  storiesOf(message) {
    const key = message.metadata?.["chatbot.key"];
    return [...this.state.stories.values()].filter(
      (story) => story.message === message.id || (key && story.steps.some((step) => step.kind === "action" && step.key === key)),
    );
  }

  /** Remember whether a bot has failed with a message; every message on the screen asks for it. */
  noteTrouble(story) {
    if (!story.message) return;
    const isBad = story.dead_letter || story.steps.findLast((step) => step.kind === "handler")?.error;
    const { troubled } = this.state;
    const stories = troubled.get(story.message) ?? new Set();
    if (isBad) stories.add(story.id);
    else stories.delete(story.id); // other bots have stories of the same message
    if (stories.size) troubled.set(story.message, stories);
    else troubled.delete(story.message);
  }
}

function Page({ app }) {
  const [, redraw] = useReducer((n) => n + 1, 0);
  useEffect(() => {
    app.redraw = redraw;
  }, []);
  const { state } = app;
  if (state.connection === "denied") return html`<${Denied} />`;
  if (!state.hello) return html`<p class="loading">${state.connection === "lost" ? "The playground does not answer. Is `chatbot run` running?" : "Connecting…"}</p>`;
  const dialogs = { person: NewPerson, thread: NewThread, people: People, source: Source, window: SecondWindow };
  const Dialog = dialogs[state.dialog];
  return html`<div class="page" data-pane=${state.pane}>
    <${TopBar} app=${app} />
    ${state.me ? html`<${Sidebar} app=${app} />${state.fork ? html`<${Fork} app=${app} />` : html`<${Conversation} app=${app} /><${Inspector} app=${app} />`}` : html`<${Welcome} app=${app} />`}
    ${state.me && html`<${PhoneBar} app=${app} />`}
    ${Dialog && html`<${Dialog} app=${app} />`}
    <div class="toasts" role="alert">${state.toasts.map((t) => html`<p class=${`toast ${t.isBad ? "bad" : ""} ${excerpt(t.text)}`} key=${t.text}>${t.text}</p>`)}</div>
    <p class="unseen" role="status">${state.news}</p>
  </div>`;
}

function TopBar({ app }) {
  const { state } = app;
  const { hello } = state;
  const chosen = (event) => {
    if (event.target.value === "new") {
      event.target.value = state.me;
      app.set({ dialog: "person" });
    } else app.actAs(event.target.value);
  };
  return html`<header class="top">
    <h1>Playground</h1>
    ${state.me &&
    html`<label class="who"><span>You are</span>
        <select aria-label="You are" value=${state.me} onChange=${chosen}>
          ${hello.people.map((p) => html`<option key=${p.user} value=${p.user} selected=${p.user === state.me}>${p.name}</option>`)}
          <option value="new">New person…</option>
        </select></label>
      <button class="quiet not-phone" onClick=${() => app.set({ dialog: "window" })}>Second window</button>`}
    <span class="grow"></span>
    ${state.connection !== "open" && html`<span class="pill bad" role="status">Connecting again…</span>`}
    ${hello.faults.length > 0 && html`<button class="pill warn" onClick=${() => { app.showTab("tools"); app.set({ pane: "inspector" }); }}>${hello.faults.length} ${hello.faults.length === 1 ? "fault" : "faults"}</button>`}
    ${hello.offset > 0 && html`<span class="pill">Clock +${duration(hello.offset)}</span>`}
    <span class="pill">${hello.has_bots ? "Emulator, not Azure" : "Emulator"}</span>
  </header>`;
}

export function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor((seconds % 86400) / 3600);
  const minutes = Math.round((seconds % 3600) / 60);
  return [days && `${days} d`, hours && `${hours} h`, minutes && `${minutes} min`].filter(Boolean).join(" ") || "0 min";
}

function PhoneBar({ app }) {
  const panes = { threads: "Threads", conversation: "Chat", inspector: "Inspector" };
  return html`<nav class="phone-bar only-phone" aria-label="Parts of the page">
    ${Object.entries(panes).map(([pane, label]) => html`<button key=${pane} aria-current=${app.state.pane === pane ? "true" : undefined} onClick=${() => app.set({ pane })}>${label}</button>`)}
  </nav>`;
}

function Denied() {
  return html`<div class="empty-page"><h1>This link is not valid</h1>
    <p>Open the link that <code>chatbot run</code> prints. It contains a token that belongs to the bots of one directory.</p></div>`;
}

const app = new App();
const root = document.getElementById("app");
root.textContent = "";
const token = takeToken();
if (token) {
  render(html`<${Page} app=${app} />`, root);
  keepFocus(root);
  app.start(token);
} else render(html`<${Denied} />`, root);
