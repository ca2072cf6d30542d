"""The door to a Docker engine, for the sources that ask and the actions that change."""
