"""Which containers go, and why. Pure: values in, decisions out."""
