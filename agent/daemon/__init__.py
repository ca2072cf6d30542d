"""The running agent: composed, started, ticking, and taken down again."""
