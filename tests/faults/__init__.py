"""The fault matrix: an issuer, a Vault and an AWS that misbehave in every way, and what each fault is to end in.

`table` has the rows, `peer` the server that misbehaves, `bench` what is called and what must hold after each call.
"""
