"""Which containers there are, and when one starts or ends, as Docker tells it."""
