"""HTML translated with its markup kept: every tag once, in its place, and no text taken for markup."""

from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.serving.html_text import DEEPEST, MOST, Stretch, join, stretches
from zhuyi.serving.html_tokens import Kind, cut
from zhuyi.tasks.tag_placement import Link

HOSTILE = 6_000


def texts(html: str) -> list[str]:
    return [part.text for part in stretches(html) if isinstance(part, Stretch)]


def translated(html: str, *translations: str, links: tuple[Link, ...] = ()) -> str:
    """The HTML with these for its texts, or with the texts themselves in capitals."""
    parts = stretches(html)
    found = translations or [text.upper() for text in texts(html)]
    return join(parts, [(text, links) for text in found])


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Hello <b>big</b> world</p>", ["Hello big world"]),
        ("<h1>One</h1><p>Two</p>three", ["One", "Two", "three"]),
        ("one<br>two<br/>three", ["one", "two", "three"]),
        ("  <p>\n  a\n  b </p> ", ["a b"]),
        ("a &lt; b &amp;amp; c&nbsp;d", ["a < b &amp; c\xa0d"]),
        ("a < b", ["a < b"]),
        ("<title>T &amp; x</title>", ["T & x"]),
        ("<script>if (a < b) x('</p>')</script>y<style>p{}</style>", ["y"]),
        ('<div translate="no">x <div>y</div> z</div>w', ["w"]),
        ("<div class='a notranslate'>x</div>w", ["w"]),
        ("<div translate=yes>x</div>", ["x"]),
        ("<pre>x = 1</pre>", []),
        ("<!-- no --><p title='no'>yes</p><!DOCTYPE no>", ["yes"]),
        ("<!-- a > b -->x<!--> y --><!-- z", ["x y -->"]),
        ("x <b>y <i>z</b> w</i>", ["x", "y", "z", "w"]),
        ("<ul><li>a<li>b</ul>", ["a", "b"]),
        ("&#" + "9" * 5000 + ";", ["&#" + "9" * 5000 + ";"]),
    ],
)
def test_what_is_translated(html: str, expected: list[str]) -> None:
    assert texts(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Hello <b>big</b> world</p>", "<p>HELLO <b>BIG</b> WORLD</p>"),
        ("<p><b>All</b></p>\n <p>a &lt; b</p>", "<p><b>ALL</b></p>\n <p>A &lt; B</p>"),
        ("x <b>y <i>z</b> w</i>", "X <b>Y <i>Z</b> W</i>"),
        ("  <p> lead <em>deep <b>er</b></em> t  </p> ", "  <p> LEAD <em>DEEP <b>ER</b></em> T  </p> "),
        ("<P CLASS=x>a</P >", "<P CLASS=x>A</P >"),
        ("text<!-- c --> more <img src='a>b'> end", "TEXT<!-- c --> MORE <img src='a>b'>END"),
        ("a <b", "A <b"),
        ("<b></b>x", "<b></b>X"),
        ("<b><p>one</p></b>", "<b><p>ONE</p></b>"),
        ("<a href='?a&b'>x</a>", "<a href='?a&b'>X</a>"),
        ("", ""),
    ],
)
def test_markup_stays_as_it_was_written(html: str, expected: str) -> None:
    assert translated(html) == expected


def test_tags_go_with_their_words() -> None:
    html = "<p>the <b>red</b> <i>house</i></p>"
    links = (Link(0, 3, 0, 2), Link(8, 13, 3, 9), Link(4, 7, 10, 15))
    assert translated(html, "la maison rouge", links=links) == "<p>la <i>maison</i> <b>rouge</b></p>"


def test_nested_tags_stay_nested_where_the_words_part() -> None:
    html = "<b>one <i>two</i></b> three"
    links = (Link(8, 13, 0, 1), Link(4, 7, 2, 3), Link(0, 3, 4, 5))
    assert translated(html, "3 2 1", links=links) == "3 <b><i>2</i> 1</b>"


def test_two_tags_that_want_the_same_words_do_not_cross() -> None:
    html = "<b>ab</b> <i>cd</i> ef"
    links = (Link(0, 2, 0, 2), Link(3, 5, 0, 2), Link(6, 8, 3, 5))
    assert translated(html, "XY ef", links=links) in (
        "<b>XY</b><i></i> ef",
        "<i>XY</i><b></b> ef",
        "<b></b><i>XY</i> ef",
    )


def test_what_is_not_translated_within_a_sentence_is_found_again() -> None:
    (part,) = (part for part in stretches("Call <code>f(x &lt; 1)</code> now") if isinstance(part, Stretch))
    assert part.text == "Call f(x < 1) now"
    assert part.keep == ("f(x < 1)",)
    assert part.rendered("Rufe jetzt f(x < 1) auf", ()) == "Rufe jetzt <code>f(x &lt; 1)</code> auf"


def test_what_is_not_translated_stands_once() -> None:
    """Also where an element around it, or beside it, would have its words for itself."""
    html = "<b>a</b> <i>press <kbd>X</kbd></i> and <kbd>X</kbd>"
    found = translated(html, "X X", links=(Link(0, 1, 0, 1), Link(2, 7, 2, 3)))
    assert found.count("X") == 2 and found.count("<kbd>X</kbd>") == 2
    found = translated("<b>a</b> <code>X</code>", "X", links=(Link(0, 1, 0, 1),))
    assert found in ("<b></b><code>X</code>", "<code>X</code><b></b>")


def test_no_tag_lands_in_a_placeholder_or_a_url() -> None:
    html = "<p>go <b>to {user_name}</b> <i>at</i><img src=x> https://a.org/b</p>"
    links = (Link(3, 5, 0, 2), Link(6, 11, 3, 8), Link(17, 19, 23, 26))
    found = translated(html, "{user_name} https://a.org/b go", links=links)
    assert found == "<p><b>{user_name}</b> <i>https://a.org/b</i><img src=x> go</p>"
    kept = "<b>see</b> <code>name</code> of {name}"
    assert translated(kept, "{name} name sieh") == "<b>{name}</b> <code>name</code> sieh"


def test_an_answer_is_no_markup() -> None:
    answer = "<script>alert(1)</script> & <b>"
    found = translated("<p>x <i>y</i></p>", answer)
    assert [token.name for token in cut(found) if token.kind is not Kind.TEXT] == ["p", "i", "i", "p"]


PIECES = st.sampled_from(
    [
        "word ", "词", "&amp;", "<", ">", "&", " ", "\n", "<b>", "</b>", "<i class=x>", "</i>", "<p>", "</p>", "<br>",
        "<img src='>'>", "<code>", "</code>", "<!-- c -->", "<!--", "<script>", "</script>", "<span translate=no>",
        "</span>", "<a href=\"&lt;\">", "</a>", "<b", "</", "<!x>", "'", '"', "<textarea>", "</textarea>",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join), st.lists(st.sampled_from(["a", "<b>", " & ", "字", ""]), max_size=4))
def test_every_tag_comes_back_once(html: str, words: list[str]) -> None:
    """Whatever the HTML, whatever the answers: the same markup, and no more."""
    answer = " ".join(words)
    tokens = list(cut(html))
    assert "".join(token.raw for token in tokens) == html
    found = join(stretches(html), [(answer, ())] * len(texts(html)))
    markup = [Counter(token.raw for token in cut(text) if token.kind is not Kind.TEXT) for text in (html, found)]
    assert markup[0] == markup[1]


class Nesting(HTMLParser):
    """Notes where elements are not closed in the order in which they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.is_good = True

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.is_good &= bool(self.open) and self.open.pop() == tag


WELL_FORMED = st.recursive(
    st.sampled_from(["word ", "词", "&amp;", " a b "]),
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{''.join(parts)}</{name}>",
        st.sampled_from(["b", "i", "p", "a", "code", "span", "div"]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=12,
)


@given(st.lists(WELL_FORMED, max_size=3).map("".join), st.randoms(use_true_random=False))
def test_what_was_well_formed_stays_so(html: str, random: object) -> None:
    """Also where the links between the words are nonsense."""
    answers = []
    for text in texts(html):
        answer = "one two three four"
        links = [
            Link(begin := random.randrange(len(text)), begin + 1, place, place + 3)  # type: ignore[attr-defined]
            for place in (0, 4, 8, 14)
        ]
        answers.append((answer, links))
    checked = Nesting()
    checked.feed(join(stretches(html), answers))
    assert checked.is_good
    assert not checked.open
    parts = stretches(html)
    kept = [("{one_two} three {four}", links) for _, links in answers]
    assert join(parts, kept).count("{one_two}") == join(parts, kept).count("{four}") == len(answers)


@pytest.mark.parametrize(
    "piece", ["<a ", "<!--", "<", "<a href='", "</", "<b>", "<b>a</b>", "<code>", "&#", "<p>a", "<a =", "<i><b></i>"]
)
def test_what_never_ends_is_read_once(piece: str) -> None:
    """The standard library's parser takes minutes for 100,000 characters of some of these."""
    html = piece * (HOSTILE // len(piece))
    assert translated(html)


def test_more_tags_than_anybody_has_are_cut_at() -> None:
    deep = "<b>" * (DEEPEST + 1) + "x" + "</b>" * (DEEPEST + 1)
    assert translated(deep) == deep.upper().replace("B>", "b>")
    assert len(texts("<b>a</b> " * MOST)) == 1
    assert len(texts("<b>a</b> " * (MOST + 1))) > MOST
