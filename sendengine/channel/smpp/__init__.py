"""SMS by SMPP 3.4: a way out beside SMTP, behind the same ports."""
