"""The helper that asks a container runtime by CRI: a program of its own, in its own environment.

The agent never imports it: it starts `python -m agent.cri.helper` there and reads lines of JSON.
"""
