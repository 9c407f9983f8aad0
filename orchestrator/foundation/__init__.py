"""Small parts used throughout orchestrator.

Redaction of passwords, periodic threads, safe writes of user files, the digest of the code and the
scale on which PLW is searched. Every package of orchestrator may import from here; it imports only
`trainers.foundation`.
"""
