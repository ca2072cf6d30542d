"""How answers look to a person: lines, tables and the live view."""
