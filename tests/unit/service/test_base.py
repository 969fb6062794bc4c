"""The links of a listing are followed as long as they lead somewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.errors import ProtocolError
from chatbot.service.base import MAX_PAGES_WITHOUT_NEWS, Paging


@given(st.lists(st.text(), unique=True, max_size=MAX_PAGES_WITHOUT_NEWS - 1))
def test_links_that_differ_are_followed(links: list[str]) -> None:
    paging = Paging("list it")

    assert [paging.follow(link, is_news=False) for link in links] == links


@given(st.lists(st.text(), unique=True, min_size=1, max_size=20), st.booleans())
def test_a_cycle_of_any_length_is_noticed_when_it_closes(links: list[str], is_news: bool) -> None:
    paging = Paging("list it")
    for link in links:
        paging.follow(link, is_news=is_news)

    with pytest.raises(ProtocolError, match=r"cannot list it: .* circle"):
        paging.follow(links[0], is_news=is_news)


def test_pages_without_end_that_show_nothing_new_are_noticed() -> None:
    paging = Paging("list it")
    for number in range(MAX_PAGES_WITHOUT_NEWS - 1):
        paging.follow(str(number), is_news=False)
    paging.follow("news", is_news=True)
    for number in range(MAX_PAGES_WITHOUT_NEWS - 1):
        paging.follow(f"again {number}", is_news=False)

    with pytest.raises(ProtocolError, match="do not end"):
        paging.follow("one more", is_news=False)
