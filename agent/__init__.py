"""Host agent: whose process is this, what does it cost, which container should go?"""

__version__ = "1.0.0"
