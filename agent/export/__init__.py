"""What others may know of this host: `/metrics` for those who scrape."""
