"""Host agent: which container a process belongs to, what it costs, and which container should go."""

__version__ = "1.0.0"
