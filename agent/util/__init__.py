"""Small helpers that know nothing of containers: programs, the terminal, undoing, memory."""
