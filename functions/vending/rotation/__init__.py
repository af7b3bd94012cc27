"""The life of a key: made anew by Secrets Manager's four steps, and deleted when nobody can hold the old one any more."""
