"""From where? Tokens from the pool, by an exchange in line, or shared; and how the pool is filled."""
