"""Webhooks: tells receivers outside of the service that jobs and batches ended.

Owns which addresses may be reached, how a delivery is sent and signed, and when it is tried again. Refuses how jobs
end, and what the store keeps.
"""
