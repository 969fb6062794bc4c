// Wide tables scroll sideways on a phone. The theme wraps them after the page has loaded, in an element that a keyboard
// cannot reach; it gets a place in the tab order here.
const focusable = () =>
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((wrap) => {
    wrap.tabIndex = 0;
    wrap.setAttribute("role", "region");
    wrap.setAttribute("aria-label", "Table");
  });
new MutationObserver(focusable).observe(document.documentElement, { childList: true, subtree: true });
focusable();
