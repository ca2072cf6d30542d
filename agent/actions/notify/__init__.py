"""How a message reaches a receiver: a webhook, Alertmanager, the journal. One call, one attempt."""
