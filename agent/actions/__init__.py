"""What the agent changes on a host: containers, cron, kernel modules and the compose project."""
