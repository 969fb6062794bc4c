import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import MessageId, Quotation, UserId
from chatbot.dispatch.plaintext import plain_text, read_html, read_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>/roll 2 6</p>", "/roll 2 6"),
        ("Fish &amp; chips &lt;3 &#8364;5", "Fish & chips <3 €5"),
        ("<p>one</p><p>two</p>", "one\ntwo"),
        ("<div><p>one</p></div>two", "one\ntwo"),
        ("one<br>two<br/><br>four", "one\ntwo\n\nfour"),
        ("<p>one</p><p>&nbsp;</p><p>three</p>", "one\n\nthree"),
        ("<ul><li>milk</li><li>tea</li></ul>", "milk\ntea"),
        ("  many   spaces\n and lines ", "many spaces and lines"),
        ("a <b>bold</b> word", "a bold word"),
        ("a <b> bold</b> word", "a bold word"),
        ("<pre>def f():\n    pass</pre>", "def f():\n    pass"),
        ('<at id="0">Help desk</at>&nbsp;/help', "Help desk /help"),
        ('well <img alt="😀" src="x.png">', "well 😀"),
        ("<tr><td>a</td><td>b</td></tr>", "a b"),
        ("<style>p {}</style>seen<script>unseen()</script>", "seen"),
        ("<p>never closed", "never closed"),
        ("1 < 2 & 3 > 2", "1 < 2 & 3 > 2"),
        ("<![if broken]>text<![endif]>", "text"),
        ("a<!-- <b>no</b> > -->b<!DOCTYPE html><?xml?>c<!-- never closed", "abc"),
        ('<a title="1 > 0" href=x>a</a> <img title="alt=b" ALT=\'c &amp; d\'>', "a c & d"),
        ("<a title=don't>a</a> it's", "a it's"),
        ("<b", "<b"),
        ("<p>a<script>if (1 < 2) {}</SCRIPT>b<style>never closed", "ab"),
        ("x <3 y <- z", "x <3 y <- z"),
        ("<pre>a &lt;\n  b</pre>  c", "a <\n  b\nc"),
        ("", ""),
    ],
)
def test_html_reads_as_a_person_would_read_it(html: str, text: str) -> None:
    assert plain_text(html) == text


@given(st.text(alphabet="<>![]-&#;/ abp\n'\"=", max_size=60))
def test_no_html_is_too_broken_to_read(html: str) -> None:
    plain_text(html)


HOSTILE = "< |<a |<a b=|<a b='|<a \"|<!|<!--|<![|</|<?|&|&#|<script>|<pre>|<p>|a |'|<a b=\"|<br>|<title>|<|=|<a =|<a = "


@pytest.mark.parametrize("piece", HOSTILE.split("|"))
def test_reading_takes_no_longer_than_the_length_asks_for(piece: str) -> None:
    began = time.process_time()

    plain_text(piece * (28_000 // len(piece)))

    assert time.process_time() - began < 1


@given(st.text(alphabet=st.characters(exclude_characters="<&\x00\xa0", exclude_categories=["Cs", "Z", "C"])))
def test_text_without_markup_is_itself(text: str) -> None:
    assert plain_text(text) == text


REPLY = (
    '<blockquote itemscope itemtype="http://schema.skype.com/Reply" itemid="1700000000000"><strong itemprop="mri"'
    ' itemid="8:orgid:jane">Jane &amp; Co</strong><span itemprop="time" itemid="1700000000000"></span>'
    '<p itemprop="preview">shall we <b>ship</b>?</p></blockquote>'
)


def test_a_reply_block_of_teams_is_no_part_of_the_text() -> None:
    reading = read_html(f"{REPLY}<p>yes</p>")

    assert reading.text == "yes"
    assert reading.quoted == Quotation(
        "shall we ship?", "Jane & Co", UserId("8:orgid:jane"), MessageId("1700000000000")
    )
    assert "ship" not in repr(reading)
    assert "Jane" not in repr(reading)


@pytest.mark.parametrize(
    ("html", "text", "quoted"),
    [
        ("<blockquote>a</blockquote>b", "a\nb", None),
        ('<blockquote itemtype="http://schema.skype.com/Reply">a</blockquote>b', "b", Quotation("a")),
        ("<p>before</p>" + REPLY.replace("Reply", "reply") + "after", "before\nafter", "shall we ship?"),
        (REPLY.replace("<p ", "<blockquote>deep</blockquote><p ") + "b", "b", "shall we ship?"),
        (REPLY + REPLY.replace("ship", "wait") + "b", "b", "shall we ship?"),
        (REPLY.replace("</blockquote>", "") + "b", "", "shall we ship?\nb"),
        (REPLY.replace("</strong>", "") + "b", "b", "Jane & Co\nshall we ship?"),
    ],
)
def test_a_quotation_is_read_however_it_is_written(html: str, text: str, quoted: Quotation | str | None) -> None:
    reading = read_html(html)

    assert reading.text == text
    assert (reading.quoted and reading.quoted.text if isinstance(quoted, str) else reading.quoted) == quoted


@pytest.mark.parametrize(
    ("html", "parts"),
    [
        ("<p>Hey <msft-mention id='8:acs:a'>Ann</msft-mention>, hi</p>", [("Ann", "8:acs:a")]),
        ("<p> <msft-mention id=8:acs:a> Ann  <b>B</b></msft-mention> hi</p>", [("Ann B", "8:acs:a")]),
        ("a<br><msft-mention id='8:acs:a'>Ann</msft-mention><br><at id=0>Bo</at>", [("Ann", "8:acs:a"), ("Bo", None)]),
        ("<msft-mention id='x' displayText='Ann &amp; Co'></msft-mention>", [("Ann & Co", "x")]),
        ("<msft-mention id='x'>Ann", [("", "x")]),
        ("<span itemtype='http://schema.skype.com/Mention'>Ann <span>B</span></span> c", [("Ann B", None)]),
        ("<span>Ann</span>", []),
    ],
)
def test_mentions_keep_who_is_meant_and_which_words(html: str, parts: list[tuple[str, str | None]]) -> None:
    reading = read_html(html)

    assert [(reading.text[one.start : one.end], one.user) for one in reading.mentions] == parts


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a &lt; b &amp; c <msft-mention id='x'>Bot & Co</msft-mention> 1 &lt; 2", "a < b & c Bot & Co 1 < 2"),
        ("typed <b> &amp; text", "typed <b> &amp; text"),
        ("<msft-mention id='x'>never closed &amp;", "<msft-mention id='x'>never closed &amp;"),
        ("<msft-at-mention userId='x' displayName='Ann'></msft-at-mention>!", "Ann!"),
    ],
)
def test_a_text_message_with_a_mention_is_escaped_and_any_other_is_not(content: str, text: str) -> None:
    assert read_text(content).text == text


@pytest.mark.parametrize("piece", [REPLY, REPLY[:100], "<msft-mention id=a>", "<at>a</at>", "<msft-mention/>"])
def test_quotations_and_mentions_take_no_longer_than_the_length_asks_for(piece: str) -> None:
    began = time.process_time()

    read_html(piece * (28_000 // len(piece)))
    read_text(piece * (28_000 // len(piece)))

    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "html",
    [
        "<img " + "a" * 280_000 + ">",
        "<img " + "a " * 140_000 + ">",
        "<img " + "a=" * 140_000 + ">",
        "<img a" + " " * 280_000 + ">",
        '<a ="' * 56_000,
        "<a =' " * 56_000,
        "&#" + "9" * 280_000 + ";",
        "&#x" + "f" * 280_000 + ";",
        "&" * 280_000,
        "&a" * 140_000,
        "<!--" * 70_000,
        "</script" * 35_000,
        "<title>" * 40_000,
    ],
)
def test_html_that_is_made_to_take_long_is_read_in_time_that_grows_with_its_length(html: str) -> None:
    plain_text(html)
