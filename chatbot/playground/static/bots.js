// What the bots do now: a timeline of each, its lanes, timers, dialogs and dead letters.

import { html } from "./vendor/preact-htm.js";
import { HandlerLink, retry } from "./inspector.js";

const SHOWN_MS = 120_000;

export function Bots({ app }) {
  const { bots, hello } = app.state;
  if (!hello.has_bots) return html`<div><h2>Bots</h2><p class="empty">This emulator runs without bots.</p></div>`;
  const restart = async () => {
    if (await app.ask("restart")) app.tell("Restarted: all tasks were cut off, and the bots began again from what is stored.");
  };
  return html`<div>
    <div class="panel-head"><h2>Bots</h2><button class="quiet small" title="As a kill of the process: running handlers are cut off, and the store is opened again" onClick=${restart}>Restart the bots</button></div>
    ${bots?.error && html`<p class="empty">${bots.error}</p>`}
    ${!bots && html`<p class="empty">Loading…</p>`}
    ${bots?.bots?.map((bot) => html`<${Bot} key=${bot.name} app=${app} bot=${bot} all=${bots} />`)}
  </div>`;
}

function Bot({ app, bot, all }) {
  const { state } = app;
  const lanes = all.lanes.filter((lane) => lane.bot === bot.name && lane.thread);
  const mine = all.entries.filter((entry) => entry.bot === bot.name);
  const timers = mine.filter((entry) => entry.kind === "timer").sort((a, b) => a.due_ms - b.due_ms);
  const dialogs = mine.filter((entry) => entry.kind === "dialog");
  const letters = all.letters.filter((letter) => letter.bot === bot.name);
  return html`<section class="card">
    <h3>${state.hello.bots.find((b) => b.name === bot.name)?.display_name ?? bot.name}</h3>
    <dl class="facts">
      <dt>Handlers</dt><dd>${bot.handlers.running} running, ${bot.handlers.waiting} waiting</dd>
      <dt>Outbox</dt><dd>${bot.outbox.rows} unsent</dd>
      <dt>Quota left</dt><dd>${bot.quota_left.list_threads} requests for the list of threads</dd>
      ${bot.degraded.map((d) => html`<dt key=${d.reason}>Degraded</dt><dd class="bad">${d.detail || d.reason}</dd>`)}
    </dl>
    <${Timeline} app=${app} runs=${all.runs.filter((run) => run.bot === bot.name)} />
    <h4>Lanes</h4>
    ${lanes.length === 0 && html`<p class="empty">In no thread.</p>`}
    <ul class="rows">${lanes.slice(0, 50).map((lane) => html`<${Lane} key=${lane.thread} app=${app} lane=${lane} now=${all.now} running=${bot.running} />`)}</ul>
    ${lanes.length > 50 && html`<p class="hint">and ${lanes.length - 50} more</p>`}
    ${timers.length > 0 && html`<h4>Timers</h4><ul class="rows">${timers.map((t) => html`<li key=${t.id}><${HandlerLink} app=${app} name=${t.name} /><span class="grow"></span><span>${due(t.due_ms, all.now)}</span></li>`)}</ul>`}
    ${dialogs.length > 0 && html`<h4>Dialogs that wait</h4><ul class="rows">${dialogs.map((d) => html`<li key=${d.id}><${HandlerLink} app=${app} name=${d.name} /> <span>with <bdi>${app.name(d.user)}</bdi></span></li>`)}</ul>`}
    ${letters.length > 0 &&
    html`<h4>Dead letters</h4><ul class="rows">${letters.map(
      (l) => html`<li key=${l.id}><span><code>${l.id}</code> ${l.event}, ${l.error}, ${l.attempts} ${l.attempts === 1 ? "attempt" : "attempts"}</span><span class="grow"></span>
        <button class="primary small" onClick=${() => retry(app, l.id)}>Retry</button><button class="quiet small" onClick=${() => app.ask("drop", { letter: l.id })}>Drop</button></li>`,
    )}</ul>`}
  </section>`;
}

const topic = (app, id) => app.state.threads.get(id)?.topic ?? "outside threads";

/** The attempts of the last two minutes, a row for each thread: what has run, how long, and what failed. */
function Timeline({ app, runs }) {
  const rows = new Map();
  for (const run of runs) rows.set(run.thread, [...(rows.get(run.thread) ?? []), run]);
  const show = async (run) => {
    if (run.thread && run.thread !== app.state.thread) await app.openThread(run.thread);
    if (run.message) app.choose(run.message);
    else app.showTab("story");
  };
  return html`<h4>The last two minutes</h4>
    ${rows.size === 0 && html`<p class="empty">Nothing has happened.</p>`}
    <ul class="timeline">
      ${[...rows].map(
        ([thread, list]) => html`<li key=${thread}><bdi class="timeline-name">${topic(app, thread)}</bdi>
          <div class="track" role="img" aria-label=${summary(list)}>${list.map((run) => html`<${Run} key=${`${run.id} ${Math.round((Date.now() - run.ago_ms) / 500)}`} run=${run} onShow=${() => show(run)} />`)}</div></li>`,
      )}
    </ul>
    ${rows.size > 0 && html`<p class="timeline-axis" aria-hidden="true"><span>2 min ago</span><span>1 min</span><span>now</span></p>`}`;
}

/** The row in words; its marks are too small to be aimed at, and what they lead to is in *Story*, too. */
function summary(runs) {
  const failed = runs.filter((run) => run.failed).length;
  return `${runs.length} ${runs.length === 1 ? "event" : "events"}, ${failed ? `${failed} failed` : "none failed"}`;
}

function Run({ run, onShow }) {
  const length = run.seconds === null ? run.ago_ms : run.seconds * 1000;
  const right = Math.max(0, run.ago_ms - length) / SHOWN_MS;
  const width = Math.max(length / SHOWN_MS, 0.02);
  const state = run.seconds === null ? "runs" : run.failed ? "failed" : run.handler ? "handled" : "no handler";
  const what = `${run.text || run.event}: ${state}${run.seconds === null ? "" : ` in ${(run.seconds * 1000).toFixed(1)} ms`}, ${Math.round(run.ago_ms / 1000)} s ago`;
  const style = { insetInlineEnd: `${Math.min(98, right * 100)}%`, width: `${Math.min(100, width * 100)}%` };
  return html`<span class=${`run ${state.replace(" ", "-")}`} style=${style} title=${what} onClick=${onShow}></span>`;
}

function Lane({ app, lane, now, running }) {
  const runs = running.find((one) => one.thread === lane.thread);
  const waits = lane.unhandled_ms === null || runs ? null : Math.max(0, Math.round((now - lane.unhandled_ms) / 1000));
  const left = lane.quota_left;
  return html`<li>
    <bdi class="grow lane-name" title=${topic(app, lane.thread)}>${topic(app, lane.thread)}</bdi>
    ${runs
      ? html`<span class="pill good">${runs.event}, ${Math.round(runs.seconds)} s</span>`
      : html`<span class="pill">${lane.presence === "in" ? "idle" : lane.presence}</span>`}
    ${lane.retry_seconds > 0 && html`<span class="pill warn">again in ${Math.ceil(lane.retry_seconds)} s</span>`}
    ${waits !== null && html`<span class="pill warn">waits for ${waits} s</span>`}
    ${lane.outbox > 0 && html`<span class="pill warn">${lane.outbox} to send</span>`}
    <p class="hint">Quota left: ${left.list_messages} polls, ${left.write_message} messages, ${left.send_receipt} receipts, ${left.send_typing} typing</p>
  </li>`;
}

function due(ms, now) {
  const seconds = Math.round((ms - now) / 1000);
  if (seconds <= 0) return "due now";
  if (seconds < 90) return `in ${seconds} s`;
  if (seconds < 5400) return `in ${Math.round(seconds / 60)} min`;
  return new Date(ms).toLocaleString();
}
