"""SMS: sessions, providers, and the whole way."""
