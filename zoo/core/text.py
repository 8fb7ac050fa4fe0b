"""Makes untrusted text, such as labels and errors, safe for a terminal and for the name of a file."""

import hashlib
import re

_MAX_NAME = 100  # characters of a label in a file name, which may contain two labels


def plain_text(value: object) -> str:
    """Returns text on one line, with control characters replaced."""
    text = " ".join(str(value).split())
    return "".join(x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in text)


def file_name(label: str) -> str:
    """Returns a file name for a label. Different labels have different file names."""
    name = re.sub(r"[^A-Za-z0-9_-]+|__+|^_|_$", "-", label)[:_MAX_NAME]
    return name if name == label else f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"
