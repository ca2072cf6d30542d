"""Where the history is kept: SQLite through peewee."""
