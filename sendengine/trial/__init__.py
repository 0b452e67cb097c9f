"""Peers to try the engine against. The engine itself imports nothing from here."""
