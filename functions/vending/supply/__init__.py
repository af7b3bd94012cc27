"""From where? Tokens by an exchange in line."""
