"""Makes untrusted text, such as labels and errors, safe for a terminal."""


def plain_text(value: object) -> str:
    """Returns text on one line, with control characters replaced."""
    text = " ".join(str(value).split())
    return "".join(x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in text)
