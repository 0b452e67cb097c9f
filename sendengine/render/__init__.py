"""From a message and merge values to the octets on the wire: compiled once per send, filled in once per recipient."""
