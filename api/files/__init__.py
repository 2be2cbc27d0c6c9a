"""Files: uploads for batches, and the results of batches. Owns who may read what, and how long it is kept.

Refuses HTTP, what is in a file, and where its bytes are.
"""
