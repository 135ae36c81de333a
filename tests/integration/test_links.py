"""Who follows a link in a page arrives."""
import functools
import re

from rig import TOP

PAGES = [path for folder in ("", "docs", "docs/decisions", "deploy") for path in sorted((TOP / folder).glob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@functools.cache
def prose(path):
    return FENCE.sub("", path.read_text(encoding="utf-8"))


@functools.cache
def anchors(path):
    """As GitHub makes them: words in small letters, hyphens for blanks, a number when a heading was there before."""
    found = []
    for heading in re.findall(r"^#{1,6} (.*)$", prose(path), re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "", heading).strip().lower()
        found.append(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return {name + (f"-{found[:i].count(name)}" if name in found[:i] else "") for i, name in enumerate(found)}


def arrives(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_every_link_between_pages():
    links = [(page, link) for page in PAGES for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]
    assert len(PAGES) > 30 and len(links) > 80
    dead = [f"{page.relative_to(TOP)}: {link}" for page, link in links if not arrives(page, link)]
    assert not dead, dead
