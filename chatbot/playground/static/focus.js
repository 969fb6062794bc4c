// The focus of the keyboard, when what had it is gone: a button that was pressed, a form that was sent.

const FOCUSABLE = "button, select, [tabindex='0']";

/** Keep the focus near the place of an element that is taken out of the page; a browser gives it to nothing then. */
export function keepFocus(root) {
  let last = null;
  let around = [];
  addEventListener("focusin", (event) => {
    last = event.target;
    around = [];
    for (let place = last.parentElement; place && place !== document.body; place = place.parentElement) around.push(place);
  });
  new MutationObserver(() => {
    if (!last || last.isConnected || document.activeElement !== document.body) return;
    const places = around.filter((place) => place.isConnected);
    last = null;
    for (const place of places) if (takes(place) || [...place.querySelectorAll(FOCUSABLE)].some(takes)) return;
  }).observe(root, { childList: true, subtree: true });
}

/** Whether an element takes the focus; what is not shown does not. */
function takes(element) {
  element.focus({ preventScroll: true });
  return document.activeElement === element;
}
