"""Text of others, such as labels and errors, for a terminal."""


def plain_text(value: object) -> str:
    """Returns text on one line, without characters that a terminal would act on."""
    text = " ".join(str(value).split())
    return "".join(x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in text)
