"""The message of the trials: HTML and text, merge fields with and without a default, one-click unsubscribing (RFC 8058)."""

from __future__ import annotations

from sendengine.render.message import Message

_TEXT = """\
Dear {{ first_name | default("reader") }},

the summer is long, and so is our list: forty new titles wait for you.

Your voucher {{ voucher }} takes 15 % off until the end of August:
https://shop.example/redeem?code={{ voucher }}

We deliver to {{ city | default("your door") }} within two days.

The booksellers of Corner House

You get this letter since you asked for it. To stop: https://shop.example/u?who={{ email }}
"""

_HTML = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Summer reading</title></head>
<body style="margin:0;background:#f4f1ea;font-family:Georgia,serif;color:#2a2a2a">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0"><tr><td align="center">
<table role="presentation" width="560" cellpadding="24" cellspacing="0" style="background:#ffffff">
<tr><td style="background:#20504f;color:#ffffff"><h1 style="margin:0;font-size:24px">Corner House Books</h1></td></tr>
<tr><td>
<p>Dear {{ first_name | default("reader") }},</p>
<p>the summer is long, and so is our list: <strong>forty new titles</strong> wait for you, from a detective who grows
roses in Řevnice to the history of the pencil.</p>
<p style="text-align:center"><a href="https://shop.example/redeem?code={{ voucher }}"
style="background:#c8553d;color:#ffffff;padding:12px 24px;text-decoration:none">15 % off with {{ voucher }}</a></p>
<p>We deliver to {{ city | default("your door") }} within two days, to {{ company | default("your home") }} as well.</p>
<p>The booksellers</p>
</td></tr>
<tr><td style="font-size:12px;color:#777777">You get this letter since you asked for it.
<a href="https://shop.example/u?who={{ email }}">Stop it</a>.</td></tr>
</table></td></tr></table>
</body>
</html>
"""


def letter(sender: str) -> Message:
    """`voucher` is the one field without a default: a row that lacks it is refused."""
    return Message(
        sender=sender,
        subject="{{ first_name | default('Dear reader') }}, forty books for the summer",
        html=_HTML,
        text=_TEXT,
        list_unsubscribe="https://shop.example/u?who={{ email }}",
    )
