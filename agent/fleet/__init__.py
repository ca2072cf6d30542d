"""Many hosts in one PostgreSQL: what each ships, how the centre takes it, and who asks it what.

Runs in an environment of its own (`requirements/fleet.txt`), as one process for each flush or
command: the agent never imports a PostgreSQL driver.
"""
