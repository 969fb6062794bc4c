// A list that renders only what is on the screen, for threads of thousands of messages.

import { html, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";

const ESTIMATE = 68;
const BEYOND = 800;
const ENOUGH = 250;
const NEAR_END = 60;

/**
 * `items` have an `id`; `current` is the id of the item that the keyboard is at; `start` that of the one to show first, by
 * default the last one; a new `endKey` leads to the end. The event "reveal" moves to the item in its `detail`.
 */
export function VirtualList({ items, current, start, onMove, onChoose, renderItem, label, resetKey, endKey }) {
  const box = useRef(null);
  const heights = useRef(new Map());
  const isAtEnd = useRef(true);
  const moved = useRef(false);
  const sought = useRef(null); // an item that is to be seen, and whose row may not be drawn yet
  const at = useRef(current); // not drawn yet when keys follow each other quickly
  const given = useRef(current);
  // The list is also drawn again by itself, with the item that the keyboard was at before the last key.
  if (given.current !== current) at.current = given.current = current;
  const [, redraw] = useState(0);
  const [isAway, setAway] = useState(false);
  const [view, setView] = useState({ top: 0, height: 600 });

  const offsets = new Array(items.length + 1);
  offsets[0] = 0;
  for (let n = 0; n < items.length; n++) offsets[n + 1] = offsets[n] + (heights.current.get(items[n].id) ?? ESTIMATE);
  const total = offsets[items.length];
  const top = isAtEnd.current ? Math.max(0, total - view.height) : view.top;
  const first = find(offsets, top - BEYOND);
  const last = Math.min(items.length, find(offsets, top + view.height + BEYOND) + 1);

  const toEnd = () => {
    isAtEnd.current = true;
    setAway(false);
    redraw((n) => n + 1);
  };

  useLayoutEffect(() => {
    heights.current = new Map();
    if (!start) {
      toEnd();
      return;
    }
    reveal(start);
    redraw((n) => n + 1);
  }, [resetKey]);

  const ended = useRef(endKey);
  useLayoutEffect(() => {
    if (ended.current !== endKey) toEnd();
    ended.current = endKey;
  }, [endKey]);

  /** Scroll to an item; it gets the focus if it is the current one. */
  const reveal = (id) => {
    const place = items.findIndex((item) => item.id === id);
    if (place < 0) return;
    isAtEnd.current = false;
    sought.current = id;
    box.current.scrollTop = Math.max(0, offsets[place] - view.height / 3);
    setView({ top: box.current.scrollTop, height: box.current.clientHeight });
  };

  useLayoutEffect(() => {
    const element = box.current;
    const revealed = (event) => {
      moved.current = true;
      at.current = event.detail;
      reveal(event.detail);
    };
    element.addEventListener("reveal", revealed);
    return () => element.removeEventListener("reveal", revealed);
  });

  useLayoutEffect(() => {
    let hasChanged = false;
    for (const row of box.current.querySelectorAll("[data-row]")) {
      const height = row.offsetHeight;
      if (height && heights.current.get(row.dataset.row) !== height) {
        heights.current.set(row.dataset.row, height);
        hasChanged = true;
      }
    }
    if (isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
    if (sought.current) {
      const row = box.current.querySelector(`[data-row="${CSS.escape(sought.current)}"]`);
      if (row) {
        sought.current = null;
        box.current.scrollTop += row.getBoundingClientRect().top - box.current.getBoundingClientRect().top - view.height / 3;
      }
    }
    if (moved.current) {
      const row = box.current.querySelector(`[data-row="${CSS.escape(at.current ?? "")}"]`);
      if (row) {
        moved.current = false;
        row.focus({ preventScroll: true });
        row.scrollIntoView({ block: "nearest" });
      }
    }
    if (hasChanged) redraw((n) => n + 1);
  });

  useLayoutEffect(() => {
    const watcher = new ResizeObserver(() => {
      if (box.current) setView((v) => ({ ...v, height: box.current.clientHeight }));
    });
    watcher.observe(box.current);
    return () => watcher.disconnect();
  }, []);

  // Drawn again only when the rows that were drawn beyond the screen run out.
  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < NEAR_END;
    setAway(!isAtEnd.current);
    const isCovered = offsets[first] <= Math.max(0, scrollTop - ENOUGH) && offsets[last] >= Math.min(total, scrollTop + clientHeight + ENOUGH);
    if (!isCovered) setView({ top: scrollTop, height: clientHeight });
  };

  const pressed = (event) => {
    if (event.target !== box.current && !event.target.matches("[data-row]")) return;
    const place = items.findIndex((item) => item.id === at.current);
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -8, PageDown: 8, Home: -items.length, End: items.length };
    if (event.key in steps && items.length) {
      const from = place < 0 ? items.length : place;
      const next = Math.max(0, Math.min(items.length - 1, from + steps[event.key]));
      event.preventDefault();
      moved.current = true;
      if (next < first || next >= last) {
        isAtEnd.current = false;
        box.current.scrollTop = Math.max(0, offsets[next] - view.height / 2);
      }
      at.current = items[next].id;
      onMove(items[next].id);
    } else if ((event.key === "Enter" || event.key === " ") && place >= 0) {
      event.preventDefault();
      onChoose(items[place].id);
    }
  };

  return html`<div class="virtual-place">${isAway && html`<button class="to-end" onClick=${toEnd}>Latest ↓</button>`}<div class="virtual" ref=${box} onScroll=${scrolled} onKeyDown=${pressed} tabindex="0" role="group" aria-label=${label}>
    <div style=${{ height: `${offsets[first] ?? 0}px` }}></div>
    ${items.slice(first, last).map((item) => renderItem(item))}
    <div style=${{ height: `${Math.max(0, total - (offsets[last] ?? total))}px` }}></div>
  </div></div>`;
}

/** The last index whose offset is not above `wanted`. */
function find(offsets, wanted) {
  let low = 0;
  let high = offsets.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (offsets[middle] <= wanted) low = middle;
    else high = middle - 1;
  }
  return low;
}
