"""Faults staged for real around a running agent, and what must hold after each."""
