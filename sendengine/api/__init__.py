"""The HTTP API: the shell's other face beside the command line. It knows HTTP and the Client, and decides nothing that the Client decides.

`operations.py` is the table of all that can be asked; `app.py` makes routes of it, `openapi.py` the document.
"""
