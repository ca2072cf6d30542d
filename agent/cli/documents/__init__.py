"""Man pages and shell completions, written from the commands themselves."""
