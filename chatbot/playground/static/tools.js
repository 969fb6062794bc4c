// The tools: faults, time, quirks, and copying a conversation as a test.

import { html, useState } from "./vendor/preact-htm.js";

export function Tools({ app }) {
  return html`<div><h2>Tools</h2><${Time} app=${app} /><${Faults} app=${app} /><${CopyAsTest} app=${app} /><${Quirks} app=${app} /></div>`;
}

function Time({ app }) {
  const advance = async (seconds, words) => {
    if (await app.ask("advance", { seconds })) app.tell(`Advanced by ${words}.`);
  };
  const now = new Date(Date.now() + app.state.hello.offset * 1000);
  return html`<section class="card"><h3>Time</h3>
    <p class="hint">Moves the clock of the emulator and of the bots: timers, schedules, dialogs and tokens. Pauses between retries and polls go on in real time. It is now ${now.toLocaleString()}.</p>
    <div class="buttons">
      <button onClick=${() => advance(600, "10 minutes")}>10 minutes</button>
      <button onClick=${() => advance(3600, "1 hour")}>1 hour</button>
      <button onClick=${() => advance(86400, "1 day")}>1 day</button>
    </div>
  </section>`;
}

/** Name, what it shows, and the fault for a bot's user. */
const FAULTS = [
  ["Throttle sending", "The next three sends are refused with 429.", (user) => `send_message:429,retry-after=2,times=3,user=${user}`],
  ["Lose the answer", "The next send takes effect, but its answer is lost.", (user) => `send_message:reset-after,times=1,user=${user}`],
  ["Service error", "The next three sends fail with 500.", (user) => `send_message:500,times=3,user=${user}`],
  ["Expire the token", "The next request is refused as with an expired token.", (user) => `*:expired-token,times=1,user=${user}`],
  ["Slow service", "Every request takes a second longer.", (user) => `*:latency=1,user=${user}`],
  ["Outage", "Every request is refused with 503.", (user) => `*:503,retry-after=1,user=${user}`],
];

function Faults({ app }) {
  const { hello } = app.state;
  const [bot, setBot] = useState("");
  const [text, setText] = useState("");
  const users = bot ? [bot] : hello.bots.map((b) => b.user);
  const add = async (fault) => {
    for (const user of users) if (!(await app.ask("fault", { fault: fault(user) }))) return;
  };
  const write = async (event) => {
    event.preventDefault();
    if (await app.ask("fault", { fault: text })) setText("");
  };
  return html`<section class="card"><h3>Faults</h3>
    ${hello.bots.length > 0 &&
    html`<label class="row">For <select value=${bot} onChange=${(e) => setBot(e.target.value)}><option value="">all bots</option>${hello.bots.map((b) => html`<option key=${b.user} value=${b.user}>${b.display_name}</option>`)}</select></label>
      <div class="choices">${FAULTS.map(([name, meaning, fault]) => html`<button key=${name} title=${meaning} onClick=${() => add(fault)}>${name}</button>`)}</div>`}
    <form class="buttons" onSubmit=${write}>
      <label class="grow">Any fault <input value=${text} onInput=${(e) => setText(e.target.value)} placeholder="send_message:503,times=1" autocomplete="off" spellcheck="false" required /></label>
      <button>Add</button>
    </form>
    ${hello.faults.length > 0 &&
    html`<h4>In force</h4><ul class="rows">${hello.faults.map((f, n) => html`<li key=${n}><code>${described(app, f)}</code></li>`)}</ul>
      <button class="primary small" onClick=${() => app.ask("clear_faults")}>End all faults</button>`}
    <label class="check"><input type="checkbox" checked=${hello.quotas} onChange=${(e) => app.ask("quotas", { enabled: e.target.checked })} /> The service's rate limits apply</label>
    <p class="hint">Bots keep to them in any case: <em>Quota left</em> in Bots shows what they may still do.</p>
  </section>`;
}

function described(app, fault) {
  const kind = fault.kind === "status" ? fault.status : fault.kind;
  const amount = fault.seconds ? ` ${fault.seconds} s` : "";
  return `${fault.operation}: ${kind}${amount}${fault.times ? `, ${fault.times} times` : ""}${fault.user ? `, ${app.name(fault.user)}` : ""}`;
}

function CopyAsTest({ app }) {
  const [text, setText] = useState("");
  if (!app.state.hello.can_record || !app.state.thread) return null;
  const make = async (form) => {
    const made = await app.ask("record", { thread: app.state.thread, form });
    if (!made) return;
    setText(made.text);
    try {
      await navigator.clipboard.writeText(made.text);
      app.tell("Copied as a test.");
    } catch {
      app.tell("The browser does not allow copying: take it from the field.");
    }
  };
  return html`<section class="card"><h3>Copy as test</h3>
    <p class="hint">Writes this thread as a test, with names and personal data masked. Read it before you share it.</p>
    <div class="buttons"><button onClick=${() => make("pytest")}>pytest</button><button onClick=${() => make("chat")}>.chat file</button></div>
    ${text && html`<textarea class="code" aria-label="Test" rows="10" readonly value=${text}></textarea>`}
  </section>`;
}

function Quirks({ app }) {
  const { hello } = app.state;
  return html`<details class="card"><summary><h3>Quirks</h3></summary>
    <p class="hint">How the emulator behaves where that of the service is not known.</p>
    ${hello.quirk_choices.map((q) => {
      const values = q.values.split(" | ");
      const value = String(hello.quirks[q.name]);
      const set = (event) => app.ask("quirk", { name: q.name, value: event.target.value });
      return html`<label class="quirk" key=${q.name}><span><code>${q.name}</code><small>${q.meaning}</small></span>
        ${values.length > 1 && !values.includes("…")
          ? html`<select value=${value} onChange=${set}>${values.map((v) => html`<option key=${v} value=${v} selected=${v === value}>${v}</option>`)}</select>`
          : html`<input value=${value} onChange=${set} autocomplete="off" />`}</label>`;
    })}
  </details>`;
}
