"""Header fields: what each kind allows, and how one becomes octets and slots.

Three kinds: addresses (a merge value is one display name or one address, whatever it holds), the URLs of List-* (a
value is percent-encoded) and unstructured text. A field without merge fields is encoded here and now.
"""

from __future__ import annotations

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import getaddresses

from sendengine.address import normalise
from sendengine.errors import RefusedInput
from sendengine.render import encode
from sendengine.render.logic import Logic
from sendengine.render.parts import Header
from sendengine.render.slots import Addresses, HeaderText, Slot, Url
from sendengine.render.template import FIELD, Template, is_template, parse, parse_fields
from sendengine.render.values import CannotRender

ADDRESS_FIELDS = frozenset(
    ("from", "sender", "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-to", "resent-cc")
)
URL_FIELDS = frozenset(("list-unsubscribe", "list-help", "list-subscribe", "list-post", "list-owner", "list-archive"))
_OURS = frozenset((  # not for `headers`: they have their own place, or none
    "from", "subject", "reply-to", "date", "message-id", "mime-version", "bcc", "return-path", "received",
    "dkim-signature",
))  # fmt: skip
_is_name = re.compile(r"[!-9;-~]{1,70}").fullmatch
_fold = re.compile(rb"\r\n(?=[ \t])")
_held = re.compile("\x01(\\d+)\x02")

Mailboxes = tuple[tuple[Template, Template], ...]


def compiled(header: Header) -> list[bytes | Slot]:
    """The field with its CRLF. Raises RefusedInput naming it."""
    if isinstance(header.value, bytes):
        return [header.name.encode() + b":" + header.value + b"\r\n"]
    try:
        return [f"{header.name}: ".encode(), _value(header, header.value), b"\r\n"]
    except (CannotRender, UnicodeEncodeError) as error:
        raise RefusedInput(f"field {header.name}: {error}") from None


def extra(name: str, value: str) -> Header:
    """A field of Message.headers. Raises RefusedInput."""
    if not _is_name(name):
        raise RefusedInput(f"{name!r} is no header field name")
    if name.lower() in _OURS or name.lower().startswith("content-"):
        raise RefusedInput(f"field {name} cannot be set through headers")
    return Header(name, value)


def unsubscribe(template: str) -> list[Header]:
    """RFC 2369 3.2, and RFC 8058 3.1 (one-click), which is for https only."""
    value = template if template.lstrip().startswith("<") else f"<{template.strip()}>"
    headers = [Header("List-Unsubscribe", value)]
    if "<https:" in value.lower() or "<{{" in value:
        headers.append(Header("List-Unsubscribe-Post", b" List-Unsubscribe=One-Click"))
    return headers


def author(header: Header) -> str:
    """The first address of From: the same in every copy."""
    text = unfolded(header.value) if isinstance(header.value, bytes) else header.value
    address = mailboxes(text, header.name)[0][1].literal
    if address is None:
        raise RefusedInput("field From: its address cannot be a merge field", "use one in the display name or Reply-To")
    try:
        return encode.address(address).decode()
    except CannotRender:
        raise RefusedInput(f"field From: {address!r} is no address") from None


def mailboxes(text: str, name: str) -> Mailboxes:
    """The addresses of a field. Merge fields are held aside from the parser: they may hold quotes and parentheses."""
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match[0])
        return f"\x01{len(held) - 1}\x02"

    def restored(part: str) -> Template:
        return parse_fields(_held.sub(lambda match: held[int(match[1])], decoded_words(part)))

    if encode.has_control(text):
        raise RefusedInput(f"field {name}: control character or line end")
    masked = FIELD.sub(hold, text)
    if is_template(masked):
        raise RefusedInput(f"field {name}: only plain merge fields can stand among addresses")
    found = tuple((restored(shown), restored(_in_a_labels(spec))) for shown, spec in getaddresses([masked]))
    if not found or not all(spec.pieces for _, spec in found):
        raise RefusedInput(f"field {name}: no address in {text!r}")
    return found


def unfolded(value: bytes) -> str:
    """A field's octets as one line of text; RFC 6532's raw UTF-8 is understood, though never written."""
    return _fold.sub(b"", value).decode("utf-8").strip(" \t").replace("\t", " ")


def decoded_words(text: str) -> str:
    """RFC 2047, for what a message's author wrote; a recipient's value never comes here."""
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text


def _value(header: Header, text: str) -> bytes | Slot:
    column = len(header.name) + 2
    if header.key in ADDRESS_FIELDS:
        return _addresses(mailboxes(text, header.name), column)
    if header.key in URL_FIELDS:
        return _urls(text, header.name, column)
    source = parse(text, f"field {header.name}")
    if isinstance(source, Template) and source.literal is not None:
        return encode.header_text(source.literal, column)
    if encode.has_control(text):
        raise CannotRender("control character or line end in a header")
    return HeaderText(source, column)


def _addresses(found: Mailboxes, column: int) -> bytes | Slot:
    fixed = [(shown.literal, spec.literal) for shown, spec in found]
    made = [encode.mailbox(name, spec, column) for name, spec in fixed if name is not None and spec is not None]
    return encode.listed(made, column) if len(made) == len(found) else Addresses(found, column)


def _urls(text: str, name: str, column: int) -> bytes | Slot:
    source = parse(text, f"field {name}")
    if isinstance(source, Logic):
        raise RefusedInput(f"field {name}: only plain merge fields can stand in an URL")
    literals = "".join(piece for piece in source.pieces if isinstance(piece, str))
    if not encode.is_url_text(literals) or len(literals) + column > encode.MAX_LINE:
        raise CannotRender("an URL is printable ASCII that fits one line")
    return Url(source, column) if source.fields else literals.encode()


def _in_a_labels(spec: str) -> str:
    return spec if spec.isascii() else normalise(spec)
