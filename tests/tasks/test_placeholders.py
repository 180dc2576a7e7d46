import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.tasks.placeholders import find_kept


def kept(text):
    return [text[k.start : k.end] for k in find_kept(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello {name}, {0} and {}!", ["{name}", "{0}", "{}"]),
        ("{user.name!r:>10} {{x}} {{ x.y }}", ["{user.name!r:>10}", "{{x}}", "{{ x.y }}"]),
        ("${x} $(x) #{x}", ["${x}", "$(x)", "#{x}"]),
        ("用户{用户名}说", ["{用户名}"]),
        ("%s %d %1$s %(count)d %.2f %-5s %ld, %s's", ["%s", "%d", "%1$s", "%(count)d", "%.2f", "%-5s", "%ld", "%s"]),
        ("{n, plural, one {# item} other {# items}} left", ["{n, plural, one {# item} other {# items}}"]),
        ("see https://a.org/b_(c)?d=e%20f#g, or (http://x.y/z).", ["https://a.org/b_(c)?d=e%20f#g", "http://x.y/z"]),
        ("请看https://a.org/b。然后www.x.org，好", ["https://a.org/b", "www.x.org"]),
        ("write to a.b+c@d-e.org.", ["a.b+c@d-e.org"]),
        ('<b>x</b> <a href="a b">y</a>', ["<b>", "</b>", '<a href="a b">', "</a>"]),
        ("<br/>&nbsp;&#39; <!-- z -->", ["<br/>", "&nbsp;", "&#39;", "<!-- z -->"]),
        ("file_{n}.txt on {host}:{port}, v{version}.", ["file_{n}.txt", "{host}:{port}", "v{version}"]),
        ("{a}{b} %d/%d %d%%", ["{a}{b}", "%d/%d", "%d%%"]),
        ("$HOME and %PATH%", ["$HOME", "%PATH%"]),
    ],
)  # fmt: skip
def test_what_is_no_language_is_found(text, expected):
    assert kept(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "100% sure, 50% of it, 5%, 100 %",
        "a < b and c > d, I <3 you, 1<2>0",
        "AT&T & Co; R&D;",
        "It cost $5, or $5.50 in US$.",
        "{a, b, c} {我 爱} {not one",
        "me@home, @you, 3:4, e.g. this",
        "The sign :// alone; www. alone",
        "50%off 20%discount",
        "",
    ],
)
def test_language_is_let_be(text):
    assert kept(text) == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("%d {count} {n} %.1f {amount}%", ["number"] * 5),
        ("%s {name} {0} https://a.org a@b.org {n}.txt", ["name"] * 6),
        ("<b>x<br>y&amp;z</P>", ["tag", "break", "entity", "break"]),
    ],
)
def test_kinds(text, kinds):
    assert [k.kind for k in find_kept(text)] == kinds


@given(st.text("a{}<>/&;%$s@.:\" '=()#d中", max_size=60))
def test_stretches_stand_apart_and_in_order(text):
    here = 0
    for each in find_kept(text):
        assert here <= each.start < each.end <= len(text)
        here = each.end


@pytest.mark.parametrize(
    "text", ["<a ", "{", "{a ", '<a b="', "a@", "%", "{n, plural,", "<!--", "$(a", "{x}", "a.", "&a", "http://)", ")"]
)
def test_a_hostile_text_is_read_in_a_moment(text):
    """Were it quadratic, this would take minutes."""
    assert len(find_kept(text * (60_000 // len(text)))) <= 20_000
    assert len(find_kept("http://" + text * (60_000 // len(text)))) <= 20_000
