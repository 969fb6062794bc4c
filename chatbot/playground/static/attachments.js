// Attachments of messages: what the composer attaches, and how a message shows what it has.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

const PART = 96 * 1024;
const IMAGES = "image/png,image/jpeg,image/gif,image/webp,image/heic";

/** Upload an image into the open thread as the person; return the attachment, or null. */
export async function upload(app, file) {
  const data = await base64(file);
  for (let at = 0; at < data.length || at === 0; at += PART) {
    if (!(await app.ask("upload_part", { data: data.slice(at, at + PART), is_first: at === 0 }))) return null;
  }
  const made = await app.act("upload", { name: file.name });
  return made && { id: made.image, attachmentType: "image", name: file.name };
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** What the next message attaches. `attached` is a list, `change` replaces it. */
export function Attach({ app, attached, change }) {
  const [name, setName] = useState("");
  const [url, setUrl] = useState("");
  const [isBusy, setBusy] = useState(false);
  const picker = useRef(null);
  const images = async (event) => {
    setBusy(true);
    let next = attached;
    for (const file of event.target.files) {
      const made = await upload(app, file).catch((error) => app.complain(error.message));
      if (made) change((next = [...next, made]));
    }
    setBusy(false);
    if (picker.current) picker.current.value = "";
  };
  const addFile = () => {
    if (!name.trim() || !url.trim()) {
      app.complain("a file needs a name and an address: the service stores no files, only images");
      return;
    }
    change([...attached, { id: crypto.randomUUID(), attachmentType: "file", name: name.trim(), url: url.trim(), previewUrl: url.trim() }]);
    setName("");
    setUrl("");
  };
  const pressed = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    addFile();
  };
  return html`<fieldset class="attach">
    <legend>Attachments</legend>
    <ul>${attached.map((one, n) => html`<li key=${one.id}><bdi>${one.name || one.id}</bdi> <span class="tag">${one.attachmentType}</span>
      <button type="button" class="quiet small" aria-label=${`Remove ${one.name}`} onClick=${() => change(attached.filter((_, m) => m !== n))}>✕</button></li>`)}</ul>
    <div class="attach-row">
      <label>Images <input type="file" ref=${picker} accept=${IMAGES} multiple disabled=${isBusy} onChange=${images} /></label>
    </div>
    <div class="attach-row">
      <label class="grow">File name <input value=${name} onInput=${(e) => setName(e.target.value)} onKeyDown=${pressed} autocomplete="off" dir="auto" /></label>
      <label class="grow">Address <input value=${url} onInput=${(e) => setUrl(e.target.value)} onKeyDown=${pressed} placeholder="https://…" autocomplete="off" /></label>
      <button type="button" onClick=${addFile}>Add file</button>
    </div>
  </fieldset>`;
}

/** The attachments of a message. */
export function Attachments({ app, message }) {
  const list = message.attachments ?? [];
  if (!list.length || message.deleted) return null;
  return html`<ul class="attachments">
    ${list.map((one) => html`<li key=${one.id}>${one.type === "image" ? html`<${Picture} app=${app} one=${one} />` : html`<${File} one=${one} />`}</li>`)}
  </ul>`;
}

function File({ one }) {
  const url = one.url || one.preview_url;
  const name = html`<bdi>${one.name || "file"}</bdi>`;
  return html`<span class="file"><span class="tag">file</span> ${isWeb(url) ? html`<a href=${url} target="_blank" rel="noopener noreferrer nofollow">${name}</a>` : html`${name} <code>${url}</code>`}</span>`;
}

/** Whether an address may be followed: nobody's message may run a script. */
function isWeb(text) {
  return /^https?:$/.test(URL.canParse(text ?? "") ? new URL(text).protocol : "");
}

function Picture({ app, one }) {
  const [picture, setPicture] = useState(app.pictures.get(one.id));
  useEffect(() => {
    if (picture) return undefined;
    let isShown = true;
    app.act("image", { image: one.id }, { isQuiet: true }).then((answer) => {
      const found = answer ? `data:${kindOf(answer.data)};base64,${answer.data}` : "missing";
      if (answer) app.pictures.set(one.id, found);
      if (isShown) setPicture(found);
    });
    return () => { isShown = false; };
  }, []);
  const name = one.name || "image";
  if (picture === "missing") return html`<span class="file"><span class="tag">image</span> <bdi>${name}</bdi> (not in this thread)</span>`;
  return html`<img class="picture" src=${picture ?? ""} alt=${name} />`;
}

/** The media type, by how the bytes begin; the service takes no others. */
function kindOf(data) {
  const starts = { iVBOR: "image/png", "/9j/": "image/jpeg", R0lGO: "image/gif", UklGR: "image/webp" };
  return Object.entries(starts).find(([start]) => data.startsWith(start))?.[1] ?? "image/heic";
}
