"""Words for a page that may be passed on."""

import re

_PATH = re.compile(
    r"""(?P<quote>['"])(?:~?/|[A-Za-z]:[\\/])[^'"\n]*?(?P<quoted>[^'"\n\\/]*)[\\/]?(?P=quote)"""
    r"""|(?<![\w.:/~-])(?:~?/|[A-Za-z]:[\\/])(?=[^\s/\\])(?:[^\s'"<>|:;,()\[\]]*[\\/](?=\w))?"""
    r"""(?P<bare>[^\s'"<>|:;,()\[\]\\/]*)[\\/]?"""
)


def shareable(text: str) -> str:
    """The text with each absolute path cut to its last name: folders tell of people and machines.

    A path with spaces is known as one where it is quoted.
    """
    return _PATH.sub(
        lambda found: f"{found['quote'] or ''}{found['quoted'] or found['bare'] or ''}{found['quote'] or ''}", text
    )
