"""AUTH PLAIN and LOGIN as a server hears them (RFC 4954, RFC 4616). Pure: it says what to ask next, and who it was."""

from __future__ import annotations

import base64
import binascii

_PROMPTS = {b"PLAIN": (b"",), b"LOGIN": (b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6")}


class Login:
    """One AUTH command and the lines that follow it. Owned by its session."""

    def __init__(self, line: bytes) -> None:
        words = line.split()
        self._mechanism = words[1].upper() if len(words) > 1 else b""
        self._heard: list[bytes] = []
        self.error = b"" if self._mechanism in _PROMPTS else b"504 5.5.4 PLAIN or LOGIN"
        if len(words) > 2:
            self.hear(words[2])

    @property
    def prompt(self) -> bytes | None:
        """What to ask next, or None when all is said."""
        prompts = _PROMPTS.get(self._mechanism, ())
        return None if self.error or len(self._heard) >= len(prompts) else prompts[len(self._heard)]

    def hear(self, line: bytes) -> None:
        if line == b"*":
            self.error = b"501 5.7.0 cancelled"
            return
        try:
            self._heard.append(base64.b64decode(b"" if line == b"=" else line, validate=True))
        except binascii.Error:
            self.error = b"501 5.5.2 not base64"

    def is_by(self, user: str, password: str) -> bool:
        said = self._heard[0].split(b"\0")[1:] if self._mechanism == b"PLAIN" and self._heard else self._heard
        return not self.error and said == [user.encode(), password.encode()]
