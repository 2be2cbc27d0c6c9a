"""What scores pairs: the protocol, and the engines behind it."""
