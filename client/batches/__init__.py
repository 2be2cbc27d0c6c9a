"""Ranks a file of requests into a file of rankings from the command line, in two modes.

In client mode this process submits each line as a job; in server mode the service runs the file as a batch. Owns the
formats of both files, what is kept between runs, and the commands. Refuses HTTP: see client.protocol.
"""
