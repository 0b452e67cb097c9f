"""What a scheduler does with the Desk port: submit, look, steer, account for. Knows the port only, never Redis or SMTP."""
