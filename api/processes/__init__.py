"""Several API processes that serve one address of one machine.

Owns starting, replacing and stopping them, their sockets, and the memory that they share. Knows nothing about requests.
"""
