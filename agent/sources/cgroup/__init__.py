"""What the cgroup hierarchies say: whose directory is whose, and what it costs."""
