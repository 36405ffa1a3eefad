"""Whether every driver that runs here gives the bits of the NumPy driver, the oracle."""
