"""The vending machine: `service` joins three wings, and one vend walks straight through them.

access decides whether a caller may have a token, supply gets one, record says what happened. The wings do not know each
other; only `service` knows all three.
"""
