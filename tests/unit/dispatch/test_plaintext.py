import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.dispatch.plaintext import plain_text


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
