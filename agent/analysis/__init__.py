"""Whose a process is and what it costs. Pure: values in, values out."""
