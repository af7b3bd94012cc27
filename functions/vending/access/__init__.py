"""May they? Who is calling, and what the policy says about it."""
