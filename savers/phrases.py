"""What LangGraph's serializer writes into every message, said short.

Owns the phrases and their numbers. It looks at bytes alone and never at what they mean, so what was shortened comes
back as it was, byte for byte, wherever a phrase stood: in the frame of a message or in what somebody said.

```
 phrase    0xC1, its number: MessagePack gives that byte no meaning, and UTF-8 never has it; what has it all the same,
           in a number or a length, is not shortened
```
"""

from __future__ import annotations

from typing import Final

from eventlog import CorruptionError

_MARK: Final = b"\xc1"
_TYPICAL: Final = b"langchain_core.messages."
"""Without it there is nothing to look for; the letter behind it says of which kind the message is."""
_MOST: Final = 4096
"""Of more bytes the frame is a small part, and reading them would cost what it saves."""

_EMPTY: Final = b"\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type"
_UUID: Final = b"\xa4name\xc0\xa2id\xd9$"
_USAGE: Final = b"\xb2invalid_tool_calls\x90\xaeusage_metadata"
PHRASES: Final = (
    b"\xbdlangchain_core.messages.human\xacHumanMessage\x86\xa7content",
    b"\xbalangchain_core.messages.ai\xa9AIMessage\x89\xa7content",
    b"\xbclangchain_core.messages.tool\xabToolMessage\x89\xa7content",
    b"\xbelangchain_core.messages.system\xadSystemMessage\x86\xa7content",
    _EMPTY + b"\xa5human" + _UUID,
    _EMPTY + b"\xa2ai" + _UUID,
    _EMPTY,
    b"\xaatool_calls\x90" + _USAGE,
    _USAGE,
    b"\xb3model_validate_json",
)
"""Their places are their numbers for ever: new ones come behind them, and into PostgreSQL's views."""
_OF_KIND: Final = {
    letter: [(PHRASES[number], _MARK + bytes((number,))) for number in numbers]
    for letter, numbers in {b"h": (0, 4, 9), b"a": (1, 5, 6, 7, 8, 9), b"t": (2, 6, 9), b"s": (3, 6, 9)}.items()
}
"""By the first message's kind what is looked for; of phrases that hold each other the longer first."""


def shortened(data: bytes) -> bytes | None:
    """The same with its phrases by number; None where that is not worth it."""
    found = data.find(_TYPICAL) + len(_TYPICAL) if len(data) <= _MOST and _MARK not in data else 0
    phrases = _OF_KIND.get(data[found : found + 1]) if found >= len(_TYPICAL) else None
    if phrases is None:
        return None
    for phrase, short in phrases:
        data = data.replace(phrase, short)
    return data


def lengthened(data: bytes) -> bytes:
    """What `shortened` was given.

    Raises:
        CorruptionError: there is no phrase of a number that it says.
    """
    parts = data.split(_MARK)
    try:
        for index in range(1, len(parts)):
            part = parts[index]
            parts[index] = PHRASES[part[0]] + part[1:]
    except IndexError as error:
        raise CorruptionError("a stored value", "it names a phrase that this release does not have") from error
    return b"".join(parts)
