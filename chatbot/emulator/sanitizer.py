"""What the service does to html: dangerous and unknown elements go, plain formatting stays.

The exact allow-list is unknown (U7). Established is that `src` of images is stripped (Communication issue
245) and that texts are left alone. The list here is what chat clients of the service format with. Mentions and reply
blocks stay with the attributes that say who is meant and what is quoted: the UI Library and Teams rely on them.
"""

from __future__ import annotations

import nh3

_TEXT = {"a", "b", "br", "code", "del", "em", "i", "img", "s", "span", "strike", "strong", "sub", "sup", "u"}
_BLOCKS = {"blockquote", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "ul"}
_TABLES = {"table", "tbody", "td", "th", "thead", "tr"}
_SOCIAL = {"at", "emoji", "msft-at-mention", "msft-mention", "readonly"}
_ITEM = {"itemid", "itemprop", "itemscope", "itemtype"}
_ATTRIBUTES = {
    "a": {"href", "title"},
    "at": {"id"},
    "blockquote": _ITEM,
    "emoji": {"alt", "id", "title"},
    "img": {"alt", "height", "width", "id"} | _ITEM,
    "msft-at-mention": {"displayname", "userid"},
    "msft-mention": {"displaytext", "id"},
    "p": _ITEM,
    "readonly": _ITEM,
    "span": _ITEM,
    "strong": _ITEM,
    "td": {"colspan", "rowspan"},
}


def sanitize(html: str) -> str:
    """The html as the service would store it."""
    return nh3.clean(
        html,
        tags=_TEXT | _BLOCKS | _TABLES | _SOCIAL,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel=None,
    )
