"""The values that flow through one tick: immutable, and free of I/O.

So that the decisions taken on them can be tested by the thousand.
"""
