"""What the agent costs beside what people would use instead, measured side by side in one run."""
